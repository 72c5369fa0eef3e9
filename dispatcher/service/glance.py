"""Looks at the database once for all who want to see the same thing at about the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from dispatcher.db.errors import DatabaseAwayError, naming_absence

Seen = TypeVar("Seen")

PATIENCE = 4.0  # seconds; whoever asks has a time-out of his own, and would rather be told


class Glance(Generic[Seen]):
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
