"""Claims: how long a slot is taken decides how many numbers go out at once; a stop between."""

import asyncio

import pytest

from dispatcher.core.message import Batch, RequestDraft
from dispatcher.db.claim import Claimed
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.worker.claim_loop import ClaimLoop, RequestSlots
from dispatcher.worker.in_flight import InFlight
from dispatcher.worker.result_queue import ResultQueue


def test_one_slow_request_is_not_how_long_a_slot_is_taken():
    slots = RequestSlots(8, reserved=1)
    for _ in range(8):
        slots.record_duration(0.1)
    for seconds in [30.0] + [0.1] * 6:
        slots.record_duration(seconds)
        assert slots.median_duration == 0.1


def test_when_requests_have_become_slow_it_is_known_soon():
    slots = RequestSlots(8, reserved=1)
    for seconds in [0.1] * 100 + [3.0] * 8:
        slots.record_duration(seconds)
    assert slots.median_duration == 3.0


def test_before_the_first_request_nobody_knows():
    assert RequestSlots(8, reserved=1).median_duration == 0.0


class Sent:
    """Claims one request, with the slots locked from then on; notes what is given to be sent."""

    def __init__(self, slots: RequestSlots) -> None:
        self.slots = slots
        self.claimed = asyncio.Event()
        self.delivered: list[Batch] = []

    async def claim(self, *_) -> Claimed:
        await self.slots._changed.acquire()
        self.claimed.set()
        batch = Batch(1, "default", "t1", RequestDraft(None, [], 0), 0.0)
        return Claimed(batches=[batch], more=False)

    async def deliver(self, batch: Batch) -> None:
        self.delivered.append(batch)


async def test_a_stop_while_slots_are_locked_loses_no_claimed_batch():
    """It would become unsure, though it was never sent."""
    slots = RequestSlots(4, reserved=1)
    sent = Sent(slots)
    loop = ClaimLoop(
        ClaimRequest("default", slots=4, sender="csms100000001"),
        urgent=False,
        slots=slots,
        claimer=sent,
        sender=sent,
        results=ResultQueue(InFlight(str)),
        stop=asyncio.Event(),
        poll_interval=10.0,
    )
    task = asyncio.create_task(loop.run())
    await sent.claimed.wait()
    await asyncio.sleep(0)
    task.cancel()
    slots._changed.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(sent.delivered) == 1
