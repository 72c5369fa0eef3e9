"""Claims for free request slots: one loop for all messages, one for urgent messages only."""

import asyncio
import contextlib
from collections import deque
from datetime import datetime
from time import monotonic
from typing import Final

from dispatcher.core.message import Batch
from dispatcher.core.wire import MAX_NUMBERS
from dispatcher.db.claim import Claimed
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.loop import StoppingTaskGroup, wait_for_event
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.result_queue import ResultQueue
from dispatcher.worker.sender import Sender

DURATION_SAMPLES: Final = 15  # durations of which the median is taken
# Fewer say nothing: the first ones may be time-outs, after which requests would be filled with 500
# numbers that become unsure as well, until the circuit opens.
MIN_DURATION_SAMPLES: Final = 4
MAX_CLAIM_SLOTS: Final = 4  # request slots filled by one claim: 2,000 messages

# Time that a busy loop waits for several free slots. A claim costs a transaction, however few
# messages it returns; a request takes longer than this at a real provider.
GATHER_SECONDS: Final = 0.02


class RequestSlots:
    """*total* request slots, of which *reserved* are for urgent messages only.

    A slot is acquired before a claim and released when the request has ended, so nothing is
    claimed that could not be sent at once: after a crash only what was in a slot is unsure.
    """

    def __init__(self, total: int, *, reserved: int) -> None:
        self._total = total
        self._free = total
        self._reserved = min(reserved, total - 1)
        self._changed = asyncio.Condition()
        self._durations: deque[float] = deque(maxlen=DURATION_SAMPLES)

    async def acquire(self, *, urgent: bool, limit: int, patience: float = 0.0) -> int:
        """Wait for a free slot, acquire up to *limit* of the free ones, and return how many.

        Once one is free, wait up to *patience* seconds more for *limit* of them.
        """
        reserved = 0 if urgent else self._reserved
        limit = min(limit, self._total - reserved)
        async with self._changed:
            while True:
                await self._changed.wait_for(lambda: self._free > reserved)
                if patience:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience):
                            await self._changed.wait_for(lambda: self._free - reserved >= limit)
                acquired = min(self._free - reserved, limit)
                if acquired > 0:  # an urgent claim may have been quicker
                    self._free -= acquired
                    return acquired

    async def release(self, slots: int = 1) -> None:
        """Release *slots*."""
        if slots:
            async with self._changed:
                self._free += slots
                self._changed.notify_all()

    @property
    def median_duration(self) -> float:
        """Seconds that a slot is in use: the median of the last ones, 0 if there are few.

        A single slow request does not change a median much.
        """
        if len(self._durations) < MIN_DURATION_SAMPLES:
            return 0.0
        return sorted(self._durations)[len(self._durations) // 2]

    def record_duration(self, seconds: float) -> None:
        """Note for how long one slot was in use."""
        self._durations.append(seconds)


class ClaimLoop:
    """One claiming coroutine of one app."""

    def __init__(
        self,
        wanted: ClaimRequest,
        *,
        urgent: bool,
        slots: RequestSlots,
        claimer: Claimer,
        sender: Sender,
        results: ResultQueue,
        stop: asyncio.Event,
        poll_interval: float,
    ) -> None:
        """Claim what *wanted* says; look into an empty queue every *poll_interval* seconds."""
        self.wake = asyncio.Event()  # set to claim at once
        self._wanted = wanted
        self._urgent = urgent
        self._slots = slots
        self._claimer = claimer
        self._sender = sender
        self._results = results
        self._stop = stop
        self._poll_interval = poll_interval

    async def run(self) -> None:
        """Claim and send until asked to stop; return when the last request has ended.

        An error of a claim or of a request sets the event to stop, and cuts off no request.
        """
        per_request = MAX_NUMBERS
        busy = False  # there is more to claim than free slots
        async with StoppingTaskGroup(self._stop) as requests:
            while not self._stop.is_set():
                await self._results.wait_for_capacity(self._wanted.app)
                free = await self._slots.acquire(
                    urgent=self._urgent,
                    limit=MAX_CLAIM_SLOTS,
                    patience=GATHER_SECONDS if busy else 0.0,
                )
                if self._stop.is_set():
                    await self._slots.release(free)
                    return
                self.wake.clear()
                claimed = await self._claimer.claim(
                    self._wanted, free, per_request, self._slots.median_duration
                )
                batches = claimed.batches if claimed else []
                if claimed and claimed.probe:
                    requests.create_task(self._probe(claimed.probe))
                for batch in batches:  # before anything is waited for: a stop would lose them
                    requests.create_task(self._deliver(batch))
                await self._slots.release(free - len(batches))
                if claimed and claimed.more and batches and not claimed.postponed:
                    per_request = _numbers_per_request(per_request, claimed)
                at_once = claimed is not None and claimed.more and claimed.wait is None
                busy = at_once and not self._urgent
                if not at_once:
                    wait = claimed.wait if claimed else None
                    await wait_for_event(self.wake, self._poll_interval if wait is None else wait)

    async def _probe(self, probed_at: datetime) -> None:
        await self._sender.probe(self._wanted.app, probed_at)
        self.wake.set()

    async def _deliver(self, batch: Batch) -> None:
        began = monotonic()
        try:
            await self._sender.deliver(batch)
        finally:
            self._slots.record_duration(monotonic() - began)
            await self._slots.release()


def _numbers_per_request(per_request: int, claimed: Claimed) -> int:
    """Return how many messages to claim for one slot, from how many the last claim fitted.

    Long texts fill 64 KB with far less than 500. A message that does not fit has to return to the
    queue, so the guess falls at once, but to a little over what fitted: only where something is
    left over is the last request known to be full. It rises by a quarter. Several senders share
    a claim, so it has to be the larger for each of them to fill a request.
    """
    fitted = max(len(batch.messages) for batch in claimed.batches) * claimed.senders * 21 // 20 + 1
    if claimed.requests <= len(claimed.batches):
        fitted = max(fitted, per_request * 5 // 4 + 1)
    return min(MAX_NUMBERS, fitted)
