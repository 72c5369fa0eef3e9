"""The console's desk: look-ups of the database, shared where many look at the same thing."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar

from msgspec.structs import replace

from dispatcher.core.overview import Now
from dispatcher.db import console
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.pool import Pool
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
        self._awaiting = Glance(partial(console.awaiting, pool), dsn=dsn) if reports else None

    async def now(self, max_age: float = NOW) -> Now | str:
        """Return how everything stands, not older than *max_age* seconds; a string: why not."""
        now = await self._now.look(max_age)
        if isinstance(now, str) or self._awaiting is None:
            return now
        awaiting = await self._awaiting.look(AWAITING)
        return awaiting if isinstance(awaiting, str) else replace(now, awaiting=awaiting)


def made_desk(pool: Pool, looks: Looks, *, dsn: str) -> Desk:
    """Return what the console may ask and do, with *pool*."""
    totals = Glance(partial(console.totals, pool), dsn=dsn)
    naming = partial(_naming, dsn)
    return Desk(
        now=partial(_seen, looks.now),
        totals=partial(_seen, partial(totals.look, TOTALS)),
        unmatched=naming(partial(console.unmatched, pool)),
        series=naming(partial(console.series, pool)),
        unsure=naming(partial(console.unsure, pool)),
        find=naming(partial(console.find, pool)),
        story=naming(partial(console.story, pool)),
        batch=naming(partial(console.batch, pool)),
        deeds=naming(partial(console.deeds, pool)),
        look_closely=naming(partial(console.look_closely, pool)),
        pause=naming(partial(console.pause, pool)),
        resume=naming(partial(console.resume, pool)),
        cancel=naming(partial(console.cancel, pool)),
        requeue=naming(partial(console.requeue, pool)),
        settle=naming(partial(console.settle, pool)),
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
