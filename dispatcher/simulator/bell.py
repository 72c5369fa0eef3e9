"""Lets a test wait for what the simulator sees, instead of sleeping."""

import asyncio
from collections.abc import Callable


class Bell:
    """Rings whenever something happened; whoever waits looks again."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake all that wait."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as *condition* holds; it is asked again after each ring."""
        while not condition():
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
