"""Claims for free request slots: one loop for everything, one kept free for urgent messages."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

from msgspec import Struct

from dispatcher.core.message import Batch
from dispatcher.db.loop import wait_for_event

LATELY = 15  # takings that say for how long a slot is taken, lately


class RequestSlots:
    """*total* request slots, of which *kept* are for urgent messages only.

    A slot is taken before a claim and given back when the request is over, so nothing is
    claimed that could not be sent at once: after a crash only what was in a slot is unsure.
    """

    def __init__(self, total: int, *, kept: int) -> None:
        self._total = total
        self._free = total
        self._kept = min(kept, total - 1)
        self._changed = asyncio.Condition()
        self._took: deque[float] = deque(maxlen=LATELY)

    async def take(self, *, urgent: bool, most: int, patience: float = 0.0) -> int:
        """Wait for a free slot, take up to *most* of the free ones, and return how many.

        Once one is free, wait up to *patience* seconds more for *most* of them.
        """
        kept = 0 if urgent else self._kept
        most = min(most, self._total - kept)
        async with self._changed:
            while True:
                await self._changed.wait_for(lambda: self._free > kept)
                if patience:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience):
                            await self._changed.wait_for(lambda: self._free - kept >= most)
                taken = min(self._free - kept, most)
                if taken > 0:  # an urgent claim may have been quicker
                    self._free -= taken
                    return taken

    @property
    def taken(self) -> float:
        """Seconds that a slot is taken, lately: the median, which no single slow request moves."""
        return sorted(self._took)[len(self._took) // 2] if self._took else 0.0

    def note(self, seconds: float) -> None:
        """Note for how long one slot was taken."""
        self._took.append(seconds)

    async def give(self, slots: int = 1) -> None:
        """Give slots back."""
        if slots:
            async with self._changed:
                self._free += slots
                self._changed.notify_all()


MAX_PER_REQUEST = 500  # numbers; the provider's limit, and the first guess

# Seconds a busy lane waits for several free slots. A claim costs a transaction, however few
# messages it brings; a request takes longer than this at a real provider.
GATHER = 0.02


class Claim(Struct, frozen=True):
    """What a claim brought, as far as a lane must know."""

    batches: list[Batch]
    requests: int  # requests they would fill; more than the batches when slots were short
    senders: int  # among those requests
    more: bool  # there is probably more
    wait: float | None  # seconds until the app's pace allows the next claim


class Lane(Struct, frozen=True):
    """One claiming coroutine of one app."""

    app: str
    urgent: bool
    slots: RequestSlots
    # Slots, numbers per request, seconds a slot is taken lately; None: the database is away.
    claim: Callable[[int, int, float], Awaitable[Claim | None]]
    deliver: Callable[[Batch], Awaitable[None]]
    room: Callable[[], Awaitable[None]]  # waits while too much is waiting to be recorded
    wake: asyncio.Event
    stopping: Callable[[], bool]
    poll: float  # seconds between looks at an empty queue
    most_slots: int  # slots filled by one claim, at most


async def run_lane(lane: Lane) -> None:
    """Claim and send until asked to stop; return when the last request of the lane is over."""
    per_request = MAX_PER_REQUEST
    busy = False  # there is more to claim than free slots
    async with asyncio.TaskGroup() as requests:
        while not lane.stopping():
            await lane.room()
            free = await lane.slots.take(
                urgent=lane.urgent, most=lane.most_slots, patience=GATHER if busy else 0.0
            )
            if lane.stopping():
                await lane.slots.give(free)
                return
            lane.wake.clear()
            claimed = await lane.claim(free, per_request, lane.slots.taken)
            batches = claimed.batches if claimed else []
            await lane.slots.give(free - len(batches))
            for batch in batches:
                requests.create_task(_deliver(lane, batch))
            if claimed and claimed.more and batches:
                per_request = _fitting(per_request, claimed)
            at_once = claimed is not None and claimed.more and claimed.wait is None
            busy = at_once and not lane.urgent
            if not at_once:
                await _pause(lane, claimed)


async def _deliver(lane: Lane, batch: Batch) -> None:
    began = monotonic()
    try:
        await lane.deliver(batch)
    finally:
        lane.slots.note(monotonic() - began)
        await lane.slots.give()


async def _pause(lane: Lane, claimed: Claim | None) -> None:
    wait = lane.poll if claimed is None or claimed.wait is None else claimed.wait
    await wait_for_event(lane.wake, wait)


def _fitting(per_request: int, claimed: Claim) -> int:
    """Return how many messages to claim for one slot, from how many the last claim fitted.

    Long texts fill 64 KB with far less than 500. What does not fit costs a way back into the
    queue, so the guess falls at once, but to a little over what fitted: only where something is
    left over is the last request known to be full. It rises by a quarter. Several senders share
    a claim, so it has to be the larger for each of them to fill a request.
    """
    fitted = max(len(batch.messages) for batch in claimed.batches) * claimed.senders * 21 // 20 + 1
    if claimed.requests <= len(claimed.batches):
        fitted = max(fitted, per_request * 5 // 4 + 1)
    return min(MAX_PER_REQUEST, fitted)
