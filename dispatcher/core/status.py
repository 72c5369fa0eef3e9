"""The state of things, as operators and machines are shown it; filled by db, drawn by others."""

from datetime import datetime
from typing import Any

from msgspec import Struct

WAITING_COUNTED = 10_000  # more than this many waiting messages are not counted one by one


class AppState(Struct, frozen=True):
    """One app, now."""

    name: str
    known: bool  # False: messages wait for it, and no worker was ever configured for it
    paused_at: datetime | None
    paused_by: str | None
    pause_code: str | None
    pause_reason: str | None
    probe_at: datetime | None
    numbers_per_second: float | None  # as configured
    rate: float | None  # as it is now
    waiting: int  # WAITING_COUNTED + 1 means more than that
    oldest_due_at: datetime | None
    sending: int
    unsure_batches: int
    paused_countries: list[str]


class WorkerState(Struct, frozen=True):
    """One worker that runs, or that died without saying so."""

    id: int
    host: str
    pid: int
    version: str
    apps: list[str]
    started_at: datetime
    silent_seconds: float
    alive: bool
    cut_off: list[str] = []  # apps for which its host cannot send


class EventTotal(Struct, frozen=True):
    """How often something happened."""

    app: str
    event: str
    code: str
    hour: int
    day: int


class MessageHistory(Struct, frozen=True):
    """One message, its requests and its reports, as the database has them."""

    message: dict[str, Any]
    batches: list[dict[str, Any]]
    reports: list[dict[str, Any]]


class EventCount(Struct, frozen=True):
    """How often something happened in one minute."""

    minute: datetime
    app: str
    event: str
    code: str
    count: int


class MissingReports(Struct, frozen=True):
    """What of an app's accepted messages has no report yet."""

    app: str
    accepted: int  # in the time that counts
    waiting: int  # of these, without any report
    overdue: int  # of these, accepted longer ago than a report should take
    oldest_seconds: float | None  # since the oldest of them was accepted, by the minute


class UnmatchedReport(Struct, frozen=True):
    """A report that belongs to no message."""

    provider_id: str
    segment: int
    why: str  # a row of core.report_matching.WHY
    since: datetime
    again: bool  # whether it is looked at again
    status: str
    state: str
    token: str | None
    recipient: str | None


class UnsureBatch(Struct, frozen=True):
    """A request that may have been sent."""

    token: str
    app: str
    messages: int
    unsure_at: datetime
    code: str | None
    description: str | None


class StatusSnapshot(Struct, frozen=True):
    """The state of everything, and what happened in the last ten minutes."""

    at: datetime  # by the database's clock
    apps: list[AppState]
    workers: list[WorkerState]
    recent: list[EventCount]
    awaiting: list[MissingReports] = []  # empty also where no reports are asked for
    totals: list[EventTotal] = []
    unsure: list[UnsureBatch] = []  # the oldest; only where they are asked for


class MessageSummary(Struct, frozen=True):
    """A message that somebody looked for."""

    id: int
    app: str
    recipient: str
    reference: str | None
    state: str
    code: str | None
    queued_at: datetime


class BatchStory(Struct, frozen=True):
    """One request: what was sent, what was answered, and its messages."""

    batch: dict[str, Any]
    messages: list[MessageSummary]


class AuditEntry(Struct, frozen=True):
    """What somebody did: a row of the audit."""

    at: datetime
    who: str
    action: str
    target: str
    detail: str
    result: str


class OutcomeSummary(Struct, frozen=True):
    """What became of some messages, all in the same way."""

    state: str
    code: str | None
    reason: str | None
    messages: int
    example: int  # id of one of them
