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


class Total(Struct, frozen=True):
    """How often something happened."""

    app: str
    event: str
    code: str
    hour: int
    day: int


class Overview(Struct, frozen=True):
    """The state of everything, small whatever the number of messages."""

    apps: list[AppState]
    workers: list[WorkerState]
    totals: list[Total]


class Story(Struct, frozen=True):
    """One message, its requests and its reports, as the database has them."""

    message: dict[str, Any]
    batches: list[dict[str, Any]]
    reports: list[dict[str, Any]]
