"""The state of everything, for the console, commands and metrics; db fills it."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from dispatcher.core.language import N_

WAITING_COUNTED = 10_000  # waiting messages are counted up to this number
# What is counted beside what happens to messages: replies, and reports that fit none.
OTHER_EVENTS = frozenset({N_("replied"), N_("unmatched report"), N_("report refused")})


class StoppedCampaign(Struct, frozen=True):
    """A campaign whose messages are due, and of which no claim takes any."""

    name: str
    state: str  # paused, moving or cancelled
    reason: str


class AppState(Struct, frozen=True):
    """The present state of one app."""

    name: str
    known: bool  # False: messages wait for it, but no worker ever had it
    paused_at: datetime | None
    paused_by: str | None
    pause_code: str | None
    pause_reason: str | None
    probe_at: datetime | None
    numbers_per_second: float | None  # as configured
    rate: float | None  # as it is now
    waiting: int  # WAITING_COUNTED + 1 means more than that
    oldest_due_at: datetime | None  # of what a claim may take: of no stopped campaign
    sending: int
    unsure_batches: int
    paused_countries: list[str]
    next_at: datetime | None = None  # when the next numbers may be sent
    held_batches: int = 0  # unsure ones of before a restore: the policy resend leaves them alone
    due: int = 0  # of those that wait; WAITING_COUNTED + 1 means more than that
    stopped_campaigns: list[StoppedCampaign] = []  # that have the first due messages


class WorkerState(Struct, frozen=True):
    """One worker that runs, or that stopped without a shutdown."""

    id: int
    host: str
    pid: int
    version: str
    apps: list[str]
    started_at: datetime
    silent_seconds: float
    alive: bool
    unreachable_apps: list[str] = []  # apps for which its host cannot send
    failing_parts: list[str] = []  # "part: why" for each part that fails


class EventTotal(Struct, frozen=True):
    """How often an event occurred in the last hour and day."""

    app: str
    event: str
    code: str
    hour: int
    day: int


class MinuteCount(Struct, frozen=True):
    """What happened in one minute to messages of one app."""

    app: str
    minute: datetime
    accepted: int
    failed: int  # rejected or undelivered


class DeliveredMessage(Struct, frozen=True, gc=False):
    """A message whose report came: whether it was delivered, and how long that took."""

    app: str
    template_id: str
    recipient: str  # in its canonical form
    delivered: bool
    seconds: float  # from the provider's answer to the report


class MessageHistory(Struct, frozen=True):
    """One message with its requests and reports."""

    message: dict[str, Any]
    batches: list[dict[str, Any]]
    reports: list[dict[str, Any]]


class EventCount(Struct, frozen=True):
    """How often an event occurred in one minute."""

    minute: datetime
    app: str
    event: str
    code: str
    count: int


class MissingReports(Struct, frozen=True):
    """The accepted messages of an app that have no report yet."""

    app: str
    accepted: int  # in the time that counts
    waiting: int  # of these, without any report
    overdue: int  # of these, accepted longer ago than a report should take
    oldest_seconds: float | None  # since the oldest of them was accepted, by the minute
    since_last: int = 0  # overdue ones that were accepted after the last one with a report


class UnmatchedReport(Struct, frozen=True):
    """A report that belongs to no message."""

    provider_id: str
    segment: int
    reason: str  # a key of core.report_matching.UNMATCHED_REASONS
    first_seen_at: datetime
    again: bool  # whether matching is tried again
    status: str
    state: str
    token: str | None
    recipient: str | None


class StoredReply(Struct, frozen=True):
    """A reply of a person."""

    id: int
    app: str  # empty: unknown
    number: str
    channel: str | None
    text: str
    unsubscribed: bool
    received_at: datetime
    replied_at: datetime | None


class UnreadablePush(Struct, frozen=True):
    """A push to the secret address that is no report, or not only."""

    digest: str
    received_at: datetime
    last_at: datetime
    times: int  # how often the same has come
    reason: str
    content_type: str
    body: bytes
    path: str = "reports"  # where it came, without the token


class UnreadableCount(Struct, frozen=True):
    """How many pushes could not be read."""

    pushes: int = 0  # 10,001 stands for more
    last_at: datetime | None = None


class UnsureBatch(Struct, frozen=True):
    """A request that may have been sent."""

    token: str
    app: str
    messages: int  # that are in question
    unsure_at: datetime
    code: str | None
    description: str | None


class StatusSnapshot(Struct, frozen=True):
    """The state of all apps and workers, and the events of the last ten minutes."""

    at: datetime  # by the database's clock
    apps: list[AppState]
    workers: list[WorkerState]
    recent: list[EventCount]
    awaiting: list[MissingReports] = []  # empty also where no reports are asked for
    totals: list[EventTotal] = []
    unsure: list[UnsureBatch] = []  # the oldest; only where they are asked for
    unreadable: UnreadableCount = UnreadableCount()


class MessageSummary(Struct, frozen=True):
    """One message in a list of search results."""

    id: int
    app: str
    recipient: str
    reference: str | None
    state: str
    code: str | None
    queued_at: datetime
    template_id: str | None = None  # this and what follows only in lists by a filter
    campaign: str | None = None
    reason: str | None = None
    segments: int | None = None
    provider_id: str | None = None
    accepted_at: datetime | None = None
    finished_at: datetime | None = None


class BatchStory(Struct, frozen=True):
    """One request: its answer and its messages."""

    batch: dict[str, Any]
    messages: list[MessageSummary]


class AuditEntry(Struct, frozen=True):
    """One action of an operator: a row of the audit."""

    created_at: datetime
    actor: str
    action: str
    target: str
    detail: str
    result: str


class OutcomeSummary(Struct, frozen=True):
    """Messages with the same outcome."""

    state: str
    code: str | None
    reason: str | None
    messages: int
    example: int  # id of one of them
