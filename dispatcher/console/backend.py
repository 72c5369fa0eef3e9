"""The console's desk: look-ups of the database, shared where many look at the same thing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Concatenate, Generic, ParamSpec, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.rules import Listed
from dispatcher.core.status import (
    AuditEntry,
    BatchStory,
    EventTotal,
    MessageHistory,
    MessageSummary,
    StatusSnapshot,
    UnmatchedReport,
    UnsureBatch,
)
from dispatcher.core.templates import Template
from dispatcher.db import deeds, status
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.deeds import ActionResult
from dispatcher.db.errors import as_unavailable

Step = tuple[datetime, str, int]  # beginning of the step, event, how often


class Desk(Struct, frozen=True):
    """Look-ups and actions. Each raises `DatabaseUnavailable`, and nothing else.

    Actions take who does it first, write it down, and return one line that says what came of it.
    """

    now: Callable[[], Awaitable[StatusSnapshot]]
    totals: Callable[[], Awaitable[list[EventTotal]]]
    series: Callable[[str | None, float, float], Awaitable[list[Step]]]
    unmatched: Callable[[], Awaitable[list[UnmatchedReport]]]
    unsure: Callable[[], Awaitable[list[UnsureBatch]]]
    find: Callable[
        [str, str], Awaitable[list[MessageSummary]]
    ]  # id, recipient, reference, provider_id
    story: Callable[[int], Awaitable[MessageHistory | None]]
    batch: Callable[[str], Awaitable[BatchStory | None]]
    rules: Callable[[], Awaitable[Listed]]
    deeds: Callable[[], Awaitable[list[AuditEntry]]]
    look_closely: Callable[[str, int], Awaitable[str]]
    pause: Callable[[str, str, str], Awaitable[str]]  # app, reason
    resume: Callable[[str, str], Awaitable[str]]  # app
    cancel: Callable[[str, list[int]], Awaitable[str]]
    requeue: Callable[[str, list[int]], Awaitable[str]]
    settle: Callable[[str, str, str], Awaitable[str]]  # token; sent or resend
    define_template: Callable[[str, Template, str, str | None], Awaitable[str]]  # note, text
    drop_template: Callable[[str, str], Awaitable[str]]


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

NOW = 0.9  # seconds that the first page's picture may be old; it is drawn every second
AWAITING = 30.0  # seconds; made of three days of counters, and true to the minute anyway
TOTALS = 10.0  # seconds that the totals of a day may be old: they cost a few milliseconds


class StatusCache:
    """What is looked at often: by every open page and every scraper, at the cost of one."""

    def __init__(self, database: Database, *, reports: bool) -> None:
        """With *reports*, status reports are asked for, and missing ones are a sign."""
        self._now = CachedQuery(partial(status.now, database), database)
        self.totals = CachedQuery(partial(status.totals, database), database)
        awaiting = CachedQuery(partial(status.awaiting, database), database)
        self._awaiting = awaiting if reports else None

    async def now(self, max_age: float = NOW) -> StatusSnapshot:
        """Return how everything stands, not older than *max_age* seconds.

        Raises DatabaseUnavailable.
        """
        now = await self._now.look(max_age)
        totals = await self.totals.look(TOTALS)
        awaiting = await self._awaiting.look(AWAITING) if self._awaiting else []
        return replace(now, totals=totals, awaiting=awaiting)


def made_desk(database: Database, looks: StatusCache) -> Desk:
    """Return what the console may ask and do, with *database*."""
    return Desk(
        now=looks.now,
        totals=partial(looks.totals.look, TOTALS),
        unmatched=partial(status.unmatched, database),
        series=partial(status.series, database),
        unsure=partial(status.unsure, database),
        find=partial(status.find, database),
        story=partial(status.story, database),
        batch=partial(status.batch, database),
        rules=partial(status.rules, database),
        deeds=_asking(database, partial(deeds.written, limit=status.MOST)),
        look_closely=_doing(database, deeds.look_closely),
        pause=_doing(database, deeds.pause),
        resume=_doing(database, deeds.resume),
        cancel=_doing(database, deeds.cancel),
        requeue=_doing(database, deeds.requeue),
        settle=_doing(database, deeds.settle),
        define_template=_doing(database, deeds.define_template),
        drop_template=_doing(database, deeds.drop_template),
    )


def _asking(
    database: Database, ask: Callable[Concatenate[Connection, Arguments], Awaitable[Answer]]
) -> Callable[Arguments, Awaitable[Answer]]:
    """Return *ask* with a connection of *database*."""

    async def asked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            return await ask(connection, *args, **kwargs)

    return asked


def _doing(
    database: Database, do: Callable[Concatenate[Connection, Arguments], Awaitable[ActionResult]]
) -> Callable[Arguments, Awaitable[str]]:
    """Return *do* with a connection of *database*, answering what came of it."""

    async def did(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            return (await do(connection, *args, **kwargs)).said

    return did


Seen = TypeVar("Seen")

PATIENCE = 4.0  # seconds; whoever asks has a time-out of his own, and would rather be told


class CachedQuery(Generic[Seen]):
    """What one question to the database was answered last, and how long ago.

    However many browsers and scrapers look, the database is asked once in a while.
    """

    def __init__(self, ask: Callable[[], Awaitable[Seen]], database: Database) -> None:
        self._ask = ask
        self._database = database
        self._turn = asyncio.Lock()
        self._at = float("-inf")
        self._seen: Seen | DatabaseUnavailable = DatabaseUnavailable("the database was never asked")

    async def look(self, max_age: float) -> Seen:
        """Return an answer not older than *max_age* seconds.

        Raises DatabaseUnavailable if the last try did, as long as that is not older.
        """
        async with self._turn:
            if monotonic() - self._at >= max_age:
                self._seen = await self._look()
                self._at = monotonic()
            seen = self._seen
        if isinstance(seen, DatabaseUnavailable):
            raise DatabaseUnavailable(str(seen))
        return seen

    async def _look(self) -> Seen | DatabaseUnavailable:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask()
        except DatabaseUnavailable as error:
            return error
        except TimeoutError as error:
            return as_unavailable(error, self._database.dsn)
