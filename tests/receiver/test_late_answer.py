"""A late answer, for a batch that reports have partly settled."""

import pytest

from dispatcher.core.message import Batch, Entry, Message, RequestDraft
from dispatcher.core.outcome import Accepted, Resolved
from dispatcher.core.result import BatchResult
from dispatcher.db.record import record

NUMBERS = ["+8613100000001", "+8613100000002", "+8613100000003"]


@pytest.fixture
async def half(world, told):
    """Three unsure messages, the first of them settled by its report; and their batch."""
    ids = await world.batch(NUMBERS)
    await world.store(told("p1", NUMBERS[0]))
    await world.match()
    messages = [
        Message(id=one, recipient=number, template_id="t", params=[])
        for one, number in zip(ids, NUMBERS, strict=True)
    ]
    batch_id = await world.db.fetchval("SELECT id FROM dispatcher.batch")
    packed = RequestDraft(None, [Entry(b"", messages)], 100)
    return Batch(batch_id, "default", "t1", packed, 0.0)


def _closing(batch: Batch, verdict: Resolved) -> BatchResult:
    return BatchResult(
        batch, verdict, http_status=200, code="000000", description="", tries=1, seconds=0.1
    )


async def test_it_settles_the_rest_and_counts_nothing_twice(world, half):
    answer = Resolved([Accepted(m, f"p{m.recipient[-1]}", 1) for m in half.messages])
    recorded = await record(world.database, 7, [_closing(half, answer)])
    assert recorded.written == {half.token}
    assert [state[1] for state in (await world.states()).values()] == ["p1", "p2", "p3"]
    assert await world.batch_state() == ("closed", "late answer")
    tally = await world.tally()
    accepted = {code: n for (_, event, code), n in tally.items() if event == "accepted"}
    assert accepted == {"settled-by-report": 1, "": 2}
    events = await world.events()
    assert [event for _, event, _ in events].count("accepted") == 3


async def test_reports_settle_what_a_late_answer_lacks(world, half):
    first, *rest = half.messages
    answer = Resolved([Accepted(m, f"p{m.recipient[-1]}", 1) for m in rest], unsure=[first])
    await record(world.database, 7, [_closing(half, answer)])
    assert await world.batch_state() == ("closed", "reports")


async def test_no_event_calls_unsure_what_a_report_settled(world, half):
    """The feed would end on it for a message that is delivered."""
    first, *rest = half.messages
    answer = Resolved([Accepted(m, f"p{m.recipient[-1]}", 1) for m in rest], unsure=[first])
    await record(world.database, 7, [_closing(half, answer)])
    told = [event for message, event, _ in await world.events() if message == first.id]
    assert told[-1] == "delivered"
    assert "unsure" not in {event for _, event, _ in await world.tally()}


async def test_what_it_lacks_stays_unsure_until_its_report(world, half, told):
    first, second, third = half.messages
    answer = Resolved([Accepted(second, "p2", 1)], unsure=[first, third])
    await record(world.database, 7, [_closing(half, answer)])
    assert [state for state, _ in (await world.states()).values()] == [
        "delivered",
        "accepted",
        "unsure",
    ]
    await world.store(told("p3", NUMBERS[2]))
    await world.match()
    assert await world.batch_state() == ("closed", "reports")


async def test_a_report_that_found_no_message_is_told_after_it(world, told):
    """It has no token, and came while nothing had its id."""
    (message,) = await world.batch(NUMBERS[:1])
    await world.store(told("p1", NUMBERS[0], token=None, status="UNDELIV"))
    for _ in range(3):
        await world.match()
        await world.hurry()
    assert await world.why() == {"p1": ("no-token", False)}
    sent = Message(id=message, recipient=NUMBERS[0], template_id="t", params=[])
    batch_id = await world.db.fetchval("SELECT id FROM dispatcher.batch")
    batch = Batch(batch_id, "default", "t1", RequestDraft(None, [Entry(b"", [sent])], 100), 0.0)
    await record(world.database, 7, [_closing(batch, Resolved([Accepted(sent, "p1", 1)]))])
    await world.match()
    assert await world.why() == {}
    assert [event for _, event, _ in await world.events()] == ["accepted", "undelivered"]
