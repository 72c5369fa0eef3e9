"""Runs maintenance: partitions ahead of need, history that is dropped in bounded steps."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import structlog

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db import maintenance
from dispatcher.db.database import open_database
from dispatcher.db.rules import forget_used
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)

# Times as long as a step took. With half of the time, dropping left `send` 0.76 of its rate on two
# cores; a quarter of it still drops some thirty million messages an hour.
REST = 3.0

Act = Callable[[], Awaitable[int | str]]  # what one step did, 0: nothing is left to do;
# a string: why it could not be done now


async def run_keeping(works: Mapping[str, Act], *, every: float, stop: asyncio.Event) -> None:
    """Do a round of *works*, by what is logged of them, every *every* seconds until *stop*.

    A work is done step by step until nothing is left, and rests after each step for REST times as
    long as it took.
    """
    clock = asyncio.get_running_loop().time
    while not stop.is_set():
        for event, step in works.items():
            done = 0
            while not stop.is_set():
                began = clock()
                match await step():
                    case 0:
                        break
                    case str() as why:
                        log.warning("no keeping: the database is away", why=why)
                        break
                    case int() as more:
                        done += more
                await _rest(stop, REST * (clock() - began))
            if done:
                log.info(event, count=done)
        await _rest(stop, every)


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


EVERY: Final = 60.0  # seconds: 20 million ids ahead last for an hour at 5,000 messages/s


async def upkeep(settings: Settings, dsn: str, stop: asyncio.Event) -> None:
    """Keep the tables in shape until *stop*, over a connection of its own: steps take seconds."""
    async with open_database(dsn, max_size=1, statement_cache=settings.statement_cache) as database:

        def named(act: Callable[[], Awaitable[int]]) -> Act:
            async def step() -> int | str:
                try:
                    return await act()
                except DatabaseUnavailable as error:
                    return str(error)

            return step

        works = {
            "partitions made": named(partial(maintenance.make_partitions, database)),
            "indexes of full partitions made": named(
                partial(maintenance.index_full_partitions, database)
            ),
            "numbers of yesterday forgotten": named(partial(forget_used, database)),
        }
        if settings.wipe_params_after is not None:
            wipe = partial(maintenance.wipe_params, database, settings.wipe_params_after)
            works["variables looked at, to be wiped"] = named(wipe)
        if settings.retention is not None:
            for event, act in (
                ("a new partition begun", maintenance.turn_page),
                ("steps of dropping what is over", maintenance.drop_old),
                ("old rows deleted", maintenance.prune),
            ):
                works[event] = named(partial(act, database, settings.retention))
        await run_keeping(works, every=EVERY, stop=stop)
