"""The console's desk: look-ups of the database, shared where many look at the same thing."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from dispatcher.core.overview import Now
from dispatcher.db import console, deeds
from dispatcher.db.deeds import Done
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.pool import Connection, Pool
from dispatcher.service.glance import Glance
from dispatcher.web.console import AwayError, Desk

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

NOW = 0.9  # seconds that the first page's picture may be old; it is drawn every second
AWAITING = 30.0  # seconds; made of three days of counters, and true to the minute anyway
TOTALS = 10.0  # seconds that the totals of a day may be old: they cost a few milliseconds


class Looks:
    """What is looked at often: by every open page and every scraper, at the cost of one."""

    def __init__(self, pool: Pool, *, dsn: str, reports: bool) -> None:
        """With *reports*, status reports are asked for, and missing ones are a sign."""
        self._now = Glance(partial(console.now, pool), dsn=dsn)
        self.totals = Glance(partial(console.totals, pool), dsn=dsn)
        self._awaiting = Glance(partial(console.awaiting, pool), dsn=dsn) if reports else None

    async def now(self, max_age: float = NOW) -> Now | str:
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


def made_desk(pool: Pool, looks: Looks, *, dsn: str) -> Desk:
    """Return what the console may ask and do, with *pool*."""
    naming = partial(_naming, dsn)
    return Desk(
        now=partial(_seen, looks.now),
        totals=partial(_seen, partial(looks.totals.look, TOTALS)),
        unmatched=naming(partial(console.unmatched, pool)),
        series=naming(partial(console.series, pool)),
        unsure=naming(partial(console.unsure, pool)),
        find=naming(partial(console.find, pool)),
        story=naming(partial(console.story, pool)),
        batch=naming(partial(console.batch, pool)),
        rules=naming(partial(console.rules, pool)),
        deeds=naming(_asking(pool, partial(deeds.written, limit=console.MOST))),
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
    pool: Pool, do: Callable[Concatenate[Connection, Arguments], Awaitable[Done]]
) -> Callable[Arguments, Awaitable[str]]:
    """Return *do* with a connection of *pool*, answering what came of it."""

    async def did(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        async with pool.acquire() as connection:
            return (await do(connection, *args, **kwargs)).said

    return did
