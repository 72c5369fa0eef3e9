"""Every write is safe to repeat: a failed call may have committed, and kept answers come twice."""

import pytest
from support.messages import of_each

from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Deferred, Rejected, Resolved, UnknownResult
from dispatcher.core.packing import halve
from dispatcher.db.split import split


async def test_an_answer_that_lacks_numbers_returns_messages_once(hands):
    """Else a message would wait again that is on its way a second time, and be sent twice."""
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    first, second = batch.messages
    answer = Resolved([Deferred(first, "E200015", 0.0, counted=True)], unsure=[second])
    assert await hands.record(batch, answer)
    [again] = await hands.claim()
    assert again.messages[0].id == first.id
    assert not await hands.record(batch, answer)
    assert await hands.queue() == []
    assert await hands.batches() == [("unsure", "000000"), ("open", None)]


async def test_an_answer_that_lacks_numbers_respects_a_requeue(hands):
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    first, second = batch.messages
    answer = Resolved([Rejected(first, "E200028", "no")], unsure=[second])
    assert await hands.record(batch, answer)
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [first.id]) == 1
    assert not await hands.record(batch, answer)
    assert await hands.queue() == [first.id]
    assert await hands.db.fetchval("SELECT count(*) FROM dispatcher.outcome") == 0


async def test_an_answer_in_time_leaves_alone_what_has_an_outcome(hands):
    """As of a finished message that was loaded into the queue again."""
    await hands.begin()
    one, two = await hands.insert(2)
    [batch] = await hands.claim()
    await hands.db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'expired', 1)",
        one,
    )
    answer = Resolved([Accepted(message, f"p{message.id}", 1) for message in batch.messages])
    assert await hands.record(batch, answer)
    rows = await of_each(hands.db, [one, two])
    assert {number: row["state"] for number, row in rows.items()} == {
        one: "expired",
        two: "accepted",
    }


@pytest.mark.parametrize("unsure_before", [False, True], ids=["in time", "late"])
async def test_an_answer_is_written_once(hands, unsure_before):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    if unsure_before:
        assert await hands.record(batch, UnknownResult("timeout", "no answer"))
        assert not await hands.record(batch, UnknownResult("timeout", "no answer"))
    one, two, three = batch.messages
    answer = Resolved(
        [
            Accepted(one, "p1", 1),
            Rejected(two, "E200028", "no"),
            Deferred(three, "E200015", 0.0, counted=True),
        ]
    )
    assert await hands.record(batch, answer)
    await hands.claim()
    assert not await hands.record(batch, answer)
    assert await hands.queue() == []
    counted = await hands.db.fetchval(
        "SELECT sum(count) FROM dispatcher.event_count WHERE event = 'accepted'"
    )
    assert counted == 1


@pytest.mark.parametrize("state", ["unsure", "closed"])
async def test_a_batch_that_was_taken_over_is_not_divided(hands, state):
    await hands.begin()
    await hands.insert(4)
    [batch] = await hands.claim()
    await hands.db.execute("UPDATE dispatcher.batch SET state = $1", state)
    assert await divide(hands, batch) == []
    assert [state for state, _ in await hands.batches()] == [state]


async def test_a_batch_is_divided_once(hands):
    await hands.begin()
    await hands.insert(4)
    [batch] = await hands.claim()
    assert len(await divide(hands, batch)) == 2
    assert await divide(hands, batch) == []
    assert [state for state, _ in await hands.batches()] == ["closed", "open", "open"]


async def divide(hands, batch: Batch) -> list[Batch]:
    halves = halve(batch.packed)
    assert halves is not None
    return await split(
        hands.database,
        hands.id,
        batch,
        list(halves),
        code="E000503",
        description="",
        http_status=400,
        tries=1,
        token=hands.flight.new_token,
    )
