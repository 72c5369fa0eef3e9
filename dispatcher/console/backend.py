"""The console's desk: look-ups of the database, shared where many look at the same thing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Concatenate, Generic, ParamSpec, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.rules import RuleList
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
from dispatcher.db.database import Connection, Pool
from dispatcher.db.deeds import ActionResult
from dispatcher.db.errors import DatabaseAwayError, naming_absence

Step = tuple[datetime, str, int]  # beginning of the step, event, how often


class AwayError(Exception):
    """The database is away; the text is one line for people."""


class Desk(Struct, frozen=True):
    """Look-ups and deeds. Each raises `AwayError` if the database is away, and nothing else.

    Deeds take who does it first, write it down, and return one line that says what came of it.
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
    rules: Callable[[], Awaitable[RuleList]]
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

    def __init__(self, pool: Pool, *, dsn: str, reports: bool) -> None:
        """With *reports*, status reports are asked for, and missing ones are a sign."""
        self._now = CachedQuery(partial(status.now, pool), dsn=dsn)
        self.totals = CachedQuery(partial(status.totals, pool), dsn=dsn)
        self._awaiting = CachedQuery(partial(status.awaiting, pool), dsn=dsn) if reports else None

    async def now(self, max_age: float = NOW) -> StatusSnapshot | str:
        """Return how everything stands, not older than *max_age* seconds; a string: why not."""
        now = await self._now.look(max_age)
        if isinstance(now, str):
            return now
        totals = await self.totals.look(TOTALS)
        if isinstance(totals, str):
            return totals
        awaiting = await self._awaiting.look(AWAITING) if self._awaiting else []
        if isinstance(awaiting, str):
            return awaiting
        return replace(now, totals=totals, awaiting=awaiting)


def made_desk(pool: Pool, looks: StatusCache, *, dsn: str) -> Desk:
    """Return what the console may ask and do, with *pool*."""
    naming = partial(_naming, dsn)
    return Desk(
        now=partial(_seen, looks.now),
        totals=partial(_seen, partial(looks.totals.look, TOTALS)),
        unmatched=naming(partial(status.unmatched, pool)),
        series=naming(partial(status.series, pool)),
        unsure=naming(partial(status.unsure, pool)),
        find=naming(partial(status.find, pool)),
        story=naming(partial(status.story, pool)),
        batch=naming(partial(status.batch, pool)),
        rules=naming(partial(status.rules, pool)),
        deeds=naming(_asking(pool, partial(deeds.written, limit=status.MOST))),
        look_closely=naming(_doing(pool, deeds.look_closely)),
        pause=naming(_doing(pool, deeds.pause)),
        resume=naming(_doing(pool, deeds.resume)),
        cancel=naming(_doing(pool, deeds.cancel)),
        requeue=naming(_doing(pool, deeds.requeue)),
        settle=naming(_doing(pool, deeds.settle)),
        define_template=naming(_doing(pool, deeds.define_template)),
        drop_template=naming(_doing(pool, deeds.drop_template)),
    )


async def _seen(look: Callable[[], Awaitable[Answer | str]]) -> Answer:
    seen = await look()
    if isinstance(seen, str):
        raise AwayError(seen)
    return seen


def _naming(
    dsn: str, ask: Callable[Arguments, Awaitable[Answer]]
) -> Callable[Arguments, Awaitable[Answer]]:
    """Return *ask*, telling of a database that is away in the console's own words."""

    async def asked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        try:
            with naming_absence(dsn):
                return await ask(*args, **kwargs)
        except DatabaseAwayError as error:
            raise AwayError(str(error)) from error

    return asked


def _asking(
    pool: Pool, ask: Callable[Concatenate[Connection, Arguments], Awaitable[Answer]]
) -> Callable[Arguments, Awaitable[Answer]]:
    """Return *ask* with a connection of *pool*."""

    async def asked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        async with pool.acquire() as connection:
            return await ask(connection, *args, **kwargs)

    return asked


def _doing(
    pool: Pool, do: Callable[Concatenate[Connection, Arguments], Awaitable[ActionResult]]
) -> Callable[Arguments, Awaitable[str]]:
    """Return *do* with a connection of *pool*, answering what came of it."""

    async def did(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        async with pool.acquire() as connection:
            return (await do(connection, *args, **kwargs)).said

    return did


Seen = TypeVar("Seen")

PATIENCE = 4.0  # seconds; whoever asks has a time-out of his own, and would rather be told


class CachedQuery(Generic[Seen]):
    """What one question to the database was answered last, and how long ago.

    However many browsers and scrapers look, the database is asked once in a while.
    """

    def __init__(self, ask: Callable[[], Awaitable[Seen]], *, dsn: str) -> None:
        self._ask = ask
        self._dsn = dsn
        self._turn = asyncio.Lock()
        self._at = float("-inf")
        self._seen: Seen | str = "the database was never asked"

    async def look(self, max_age: float) -> Seen | str:
        """Return an answer not older than *max_age* seconds; a string if there is none, and why."""
        async with self._turn:
            if monotonic() - self._at >= max_age:
                self._seen = await self._look()
                self._at = monotonic()
            return self._seen

    async def _look(self) -> Seen | str:
        try:
            with naming_absence(self._dsn):
                async with asyncio.timeout(PATIENCE):
                    return await self._ask()
        except DatabaseAwayError as error:
            return str(error)
