"""The results of requests that wait to be recorded: how many may wait, and how long they gather."""

import asyncio
from collections.abc import Iterable, Sized
from typing import Final

from dispatcher.core.outcome import Resolved
from dispatcher.core.result import BatchResult
from dispatcher.db.loop import wait_for_event

MAX_TRANSACTION_RESULTS: Final = 64  # results in one transaction: at most 32,000 messages
MAX_WAITING_RESULTS: Final = 64  # more, and the claim loops stop claiming

# Time from one transaction until the next one begins, unless so many results wait before, or those
# of all requests. A transaction costs as much as some hundred of its rows, and COPY spends twice as
# much on its first thousand rows: of PostgreSQL's time, a message took 1.4 µs where 8 results of
# 500 messages were written together, 1.9 of 4, and 2.3 of one.
GATHER_SECONDS: Final = 0.1
GATHER_RESULTS: Final = 8


class ResultQueue:
    """The results of requests that wait to be recorded."""

    def __init__(self, in_flight: Sized = ()) -> None:
        """Gather results until no batch that is *in_flight* is without one."""
        self._in_flight = in_flight
        # Unbounded, so that even a cancelled request can add its result. What bounds it is
        # `wait_for_capacity`: nothing is claimed while too much waits.
        self._waiting: asyncio.Queue[BatchResult | None] = asyncio.Queue()
        self._capacity = asyncio.Event()  # set when there may be some again
        self._enough = asyncio.Event()  # to record without waiting for more
        self._is_urgent = False  # one of them may stop further requests
        self._is_limited = True
        self._locked: frozenset[str] = frozenset()  # apps whose results cannot be written now
        self._kept_waiting = 0  # results that were taken, and cannot be written now

    def put(self, result: BatchResult) -> None:
        """Add the result of a request."""
        self._waiting.put_nowait(result)
        self._is_urgent |= _stops_requests(result)
        if self._is_enough():
            self._enough.set()

    def keep_waiting(self, apps: Iterable[str], results: int) -> None:
        """Note that *results* were taken that a lock keeps waiting, some for all of *apps*.

        They take no room of others: only *apps* claim nothing meanwhile.
        """
        self._locked = frozenset(apps)
        self._kept_waiting = results
        self._capacity.set()

    def close(self) -> None:
        """Note that no result will follow."""
        self._waiting.put_nowait(None)
        self._enough.set()

    def _is_enough(self) -> bool:
        enough = min(GATHER_RESULTS, len(self._in_flight) - self._kept_waiting)
        return self._is_urgent or self._waiting.qsize() >= enough

    async def gather(self) -> None:
        """Wait for GATHER_RESULTS, or those of all requests, at most GATHER_SECONDS.

        A result that may stop further requests waits for no others.
        """
        if not self._is_enough():
            await wait_for_event(self._enough, GATHER_SECONDS)

    def drain(self) -> list[BatchResult]:
        """Remove and return all results that wait; for a stop that cannot wait for the database."""
        waiting: list[BatchResult] = []
        while not self._waiting.empty():
            result = self._waiting.get_nowait()
            if result is not None:
                waiting.append(result)
        return waiting

    def lift_limit(self) -> None:
        """Let any number of results wait: nothing takes them any more."""
        self._is_limited = False
        self._capacity.set()

    async def wait_for_capacity(self, app: str) -> None:
        """Wait while too many results wait, or those of *app* cannot be written."""
        while self._is_limited and (
            app in self._locked or self._waiting.qsize() >= MAX_WAITING_RESULTS
        ):
            self._capacity.clear()
            await self._capacity.wait()

    async def take(self, seconds: float | None = None) -> tuple[list[BatchResult], bool]:
        """Wait for at least one result; return those that wait, and whether they are the last.

        Returns none if none comes for *seconds*.
        """
        taken: list[BatchResult] = []
        try:
            async with asyncio.timeout(seconds):
                end = await self._waiting.get()
        except TimeoutError:
            return [], False
        while end is not None:
            taken.append(end)
            if len(taken) >= MAX_TRANSACTION_RESULTS or self._waiting.empty():
                break
            end = self._waiting.get_nowait()
        if self._waiting.empty():
            self._is_urgent = False
        if self._waiting.qsize() < GATHER_RESULTS and end is not None:
            self._enough.clear()
        self._capacity.set()
        return taken, end is None


def _stops_requests(result: BatchResult) -> bool:
    """Tell whether *result* may open a circuit, or pause the app or one of its countries."""
    verdict = result.verdict
    if not isinstance(verdict, Resolved):
        return True
    return verdict.refused or verdict.pause is not None or bool(verdict.countries)
