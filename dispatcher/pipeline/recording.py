"""Writes what has gathered: as many ends of requests as wait, in one transaction."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from dispatcher.core.closing import Closing

MOST_AT_ONCE = 64  # closings in one transaction: at most 32,000 messages
MOST_WAITING = 64  # closings; more, and the lanes stop claiming

# Seconds after a transaction until the next one begins, unless so many closings wait before. A
# transaction costs as much as some hundred of its rows: one for each request took a fifth more of
# the processors.
GATHER = 0.02
ENOUGH = 4


class Outbox:
    """The ends of requests that wait to be recorded."""

    def __init__(self) -> None:
        # Unbounded, so that even a cancelled request can put its end in. What bounds it is
        # `room`: no lane claims while too much waits.
        self._waiting: asyncio.Queue[Closing | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._enough = asyncio.Event()  # to record without waiting for more

    def put(self, closing: Closing) -> None:
        """Add the end of a request."""
        self._waiting.put_nowait(closing)
        if self._waiting.qsize() >= ENOUGH:
            self._enough.set()
        if self._waiting.qsize() >= MOST_WAITING:
            self._room.clear()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._waiting.put_nowait(None)
        self._enough.set()

    async def gather(self) -> None:
        """Wait until enough is waiting, or for as long as it may wait for more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._enough.wait()

    def rest(self) -> list[Closing]:
        """Take whatever is still waiting; for a stop that cannot wait for the database."""
        waiting: list[Closing] = []
        while not self._waiting.empty():
            closing = self._waiting.get_nowait()
            if closing is not None:
                waiting.append(closing)
        return waiting

    async def room(self) -> None:
        """Wait while too much is waiting."""
        await self._room.wait()

    async def take(self) -> tuple[list[Closing], bool]:
        """Wait for at least one closing; return what has gathered, and whether it was the last."""
        taken: list[Closing] = []
        end = await self._waiting.get()
        while end is not None:
            taken.append(end)
            if len(taken) >= MOST_AT_ONCE or self._waiting.empty():
                break
            end = self._waiting.get_nowait()
        if self._waiting.qsize() < ENOUGH and end is not None:
            self._enough.clear()
        if self._waiting.qsize() < MOST_WAITING:
            self._room.set()
        return taken, end is None


async def run_recorder(
    outbox: Outbox, record: Callable[[Sequence[Closing]], Awaitable[None]]
) -> None:
    """Record until the outbox is closed and empty. *record* returns when it is done."""
    last = False
    while not last:
        closings, last = await outbox.take()
        if closings:
            await record(closings)
            await outbox.gather()
