"""Repeats a step that needs the database, and goes on when the database is unavailable."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from dispatcher.core.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


async def run_every(
    interval: float,
    stop: asyncio.Event,
    step: Callable[[], Awaitable[bool | None]],
    *,
    unavailable: str,
) -> None:
    """Call *step*, and again after *interval* seconds, until *stop*.

    A step that returns True has more to do: the next one begins at once. If the database is
    unavailable, *unavailable* is logged and the next step begins after *interval*.
    """
    while not stop.is_set():
        if not await attempt(step, unavailable=unavailable):
            await wait_for_event(stop, interval)


async def attempt(step: Callable[[], Awaitable[Result]], *, unavailable: str) -> Result | None:
    """Return what *step* returns; log *unavailable* and return None if the database cannot be used.

    What cannot be done now waits for the next attempt, so each step must be safe to repeat.
    """
    try:
        return await step()
    except DatabaseUnavailable as error:
        log.warning(unavailable, why=str(error))
        return None


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, at most *seconds*."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
