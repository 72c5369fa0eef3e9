"""Keeps the tables in shape: partitions ahead of need, history that leaves in bounded steps."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import structlog

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
