"""The console's desk: look-ups of the database, shared where many look at the same thing."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar

from dispatcher.core.overview import Now
from dispatcher.db import console
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.pool import Pool
from dispatcher.service.glance import Glance
from dispatcher.web.console import AwayError, Desk

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

NOW = 0.9  # seconds that the first page's picture may be old; it is drawn every second
TOTALS = 10.0  # seconds that the totals of a day may be old: they cost a few milliseconds


def made_desk(pool: Pool, now: Glance[Now], *, dsn: str) -> Desk:
    """Return what the console may ask and do, with *pool*."""
    totals = Glance(partial(console.totals, pool), dsn=dsn)
    naming = partial(_naming, dsn)
    return Desk(
        now=partial(_seen, now, NOW),
        totals=partial(_seen, totals, TOTALS),
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


async def _seen(glance: Glance[Answer], max_age: float) -> Answer:
    seen = await glance.look(max_age)
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
