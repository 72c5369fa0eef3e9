"""Waits for what cannot tell of itself: another process, or a table."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

Found = TypeVar("Found")


async def until(
    condition: Callable[[], Found | Awaitable[Found]],
    *,
    deadline: float = 60.0,
    every: float = 0.02,
    what: str = "",
) -> Found:
    """Return the first true value of *condition*; fail after *deadline* seconds."""
    began = monotonic()
    while True:
        found = condition()
        value: Found = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if monotonic() - began > deadline:
            raise AssertionError(f"not within {deadline:g} s: {what or condition}; last: {value!r}")
        await asyncio.sleep(every)
