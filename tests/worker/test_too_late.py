"""What is late must not go out together with what is on time: it asks for a time of its own."""

import asyncio
from time import monotonic

import pytest
from support.messages import SENDER, TEMPLATE

from dispatcher.core.message import Batch, Message, NoReply, NumberResult, Reply
from dispatcher.core.outcome import Accepted, Resolved
from dispatcher.core.packing import pack
from dispatcher.provider.client import RequestResult
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.result_queue import ResultQueue
from dispatcher.worker.sender import MAX_RESCHEDULES, Sender

TOKEN = "t" * 32


async def delivered(late: float, *, again: float = -0.05) -> tuple[int, float]:
    """Deliver a batch *late* seconds after its time, with other times *again* seconds before.

    Return for how many other times it asked, and seconds from the last of them to the request.
    """
    [packed], _ = pack(
        [Message(1, "+8613800000001", TEMPLATE, ["1"], SENDER)],
        callback=None,
        token_length=len(TOKEN),
    )
    times = [monotonic() - late]
    left = []

    class FakeClaimer:
        async def reschedule(self, _: Batch, late: float) -> float:  # noqa: ARG002 - as the claimer
            times.append(monotonic() - again)
            return times[-1]

    class FakeClient:
        async def post(self, _: bytes, **_more: object) -> RequestResult:
            left.append(monotonic())
            return RequestResult(NoReply("no answer", sent=True), 1, 0.0)

    sender = Sender(
        client=FakeClient(),
        claimer=FakeClaimer(),
        results=ResultQueue(),
        breaker=CircuitBreaker("default"),
        lease=Lease(60.0, monotonic),
        stop=asyncio.Event(),
        callback=None,
        max_attempts=5,
    )
    batch = Batch(1, "default", TOKEN, packed, monotonic(), send_at=times[0])
    await sender.deliver(batch)
    [moment] = left
    return len(times) - 1, moment - times[-1]


async def test_what_is_too_late_waits_for_another_time():
    asked, waited = await delivered(0.02)
    assert asked >= 1
    assert waited >= -0.001 or asked == MAX_RESCHEDULES  # so busy that it missed each time


@pytest.mark.parametrize("late", [-0.05, 0.0])
async def test_what_is_on_time_does_not_leave_before_it(late):
    asked, waited = await delivered(late)
    assert waited >= -0.001 or asked == MAX_RESCHEDULES


async def test_where_each_time_is_missed_it_leaves_all_the_same():
    asked, _ = await delivered(1.0, again=1.0)
    assert asked == MAX_RESCHEDULES


@pytest.mark.parametrize(
    ("answer", "charged"),
    [
        (Reply(429, "HTTP 429", "", None), 2),
        (Reply(200, "000000", "", [NumberResult("+8613800000001", "000000", "p1")]), 2),
        (NoReply("refused", sent=False), 0),  # nothing arrived that the provider counts
    ],
)
async def test_each_try_that_arrived_is_charged_to_the_rate(answer, charged):
    [packed], _ = pack(
        [Message(1, "+8613800000001", TEMPLATE, ["1"], SENDER)],
        callback=None,
        token_length=len(TOKEN),
    )
    charges = []

    class FakeClaimer:
        async def charge_again(self, batch: Batch) -> None:
            charges.append(batch.id)

    class FakeClient:
        async def post(self, _: bytes, **_more: object) -> RequestResult:
            return RequestResult(answer, 3, 0.0)

    sender = Sender(
        client=FakeClient(),
        claimer=FakeClaimer(),
        results=ResultQueue(),
        breaker=CircuitBreaker("default"),
        lease=Lease(60.0, monotonic),
        stop=asyncio.Event(),
        callback=None,
        max_attempts=5,
    )
    await sender.deliver(Batch(1, "default", TOKEN, packed, monotonic(), send_at=monotonic()))
    assert len(charges) == charged


async def test_a_stop_while_a_try_is_charged_loses_no_answer():
    """The database may be away, and the stop does not wait for it."""
    [packed], _ = pack(
        [Message(1, "+8613800000001", TEMPLATE, ["1"], SENDER)],
        callback=None,
        token_length=len(TOKEN),
    )
    charging = asyncio.Event()

    class FakeClaimer:
        async def charge_again(self, _: Batch) -> None:
            charging.set()
            await asyncio.Event().wait()

    class FakeClient:
        async def post(self, _: bytes, **_more: object) -> RequestResult:
            accepted = [NumberResult("+8613800000001", "000000", "p1")]
            return RequestResult(Reply(200, "000000", "", accepted), 2, 0.0)

    results = ResultQueue()
    sender = Sender(
        client=FakeClient(),
        claimer=FakeClaimer(),
        results=results,
        breaker=CircuitBreaker("default"),
        lease=Lease(60.0, monotonic),
        stop=asyncio.Event(),
        callback=None,
        max_attempts=5,
    )
    batch = Batch(1, "default", TOKEN, packed, monotonic(), send_at=monotonic())
    task = asyncio.create_task(sender.deliver(batch))
    await charging.wait()
    task.cancel()
    await asyncio.wait([task])
    [result] = results.drain()
    assert result.verdict == Resolved([Accepted(batch.messages[0], "p1", None)])
