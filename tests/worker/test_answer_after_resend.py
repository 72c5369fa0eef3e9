"""An answer that comes when its batch was given up: what still waits is not sent a second time."""

import pytest
from support.messages import states

from dispatcher.core.outcome import Accepted, Deferred, Resolved, UnknownResult
from dispatcher.core.report import Report
from dispatcher.core.report_status import report_status
from dispatcher.db.report_matching import match
from dispatcher.db.reports import register_statuses, store
from dispatcher.db.workers import resend_unsure


@pytest.fixture
async def given_up(hands, request):
    """Three messages of a batch that was given up, and wait again; and that batch."""
    by_policy = request.param == "policy"
    await hands.begin(on_unsure="resend" if by_policy else "hold", resend_after=0.0)
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    if by_policy:
        assert await resend_unsure(hands.database, hands.id) == (1, 3)
    else:
        await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
    return batch


@pytest.mark.parametrize("given_up", ["policy", "operator"], indirect=True)
async def test_what_was_accepted_and_still_waits_is_taken_back(hands, given_up):
    one, two, three = given_up.messages
    answer = Resolved([Accepted(one, "p1", 1), Accepted(two, "p2", 1)], unsure=[three])
    await hands.record(given_up, answer)
    assert await hands.queue() == [three.id]
    assert await states(hands.db) == {"accepted": 2, "queued": 1}
    await hands.record(given_up, answer)  # safe to repeat
    assert await states(hands.db) == {"accepted": 2, "queued": 1}


@pytest.mark.parametrize("given_up", ["policy", "operator"], indirect=True)
async def test_what_is_on_its_way_again_stays_with_its_new_batch(hands, given_up):
    [again] = await hands.claim()
    await hands.record(given_up, Resolved([Accepted(m, "p", 1) for m in given_up.messages]))
    assert await states(hands.db) == {"sending": 3}
    answer = Resolved([Accepted(m, f"q{m.id}", 1) for m in again.messages])
    assert await hands.record(again, answer)
    assert await states(hands.db) == {"accepted": 3}


async def test_a_repeated_answer_does_not_take_back_what_it_deferred(hands):
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    one, two = batch.messages
    answer = Resolved([Accepted(one, "p1", 1), Deferred(two, "E200015", 0.0, counted=True)])
    assert await hands.record(batch, answer)
    assert not await hands.record(batch, answer)
    assert await hands.queue() == [two.id]


async def test_what_was_requeued_before_the_rest_was_given_up_waits_on(hands):
    """A report had shown that the platform refused it: it was never sent."""
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    one, two = batch.messages
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await register_statuses(hands.database)
    await store(hands.database, [(refusal(one, batch), 0.0)])
    await match(hands.database)
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
    assert await hands.queue() == [one.id, two.id]
    await hands.record(batch, Resolved([Accepted(one, "p1", 1), Accepted(two, "p2", 1)]))
    assert await hands.queue() == [one.id]
    assert await states(hands.db) == {"accepted": 1, "queued": 1}


def refusal(message, batch) -> Report:
    return Report(
        provider_id="p1",
        segment=1,
        total=1,
        status="E000629",
        state=report_status("E000629").state,
        token=batch.token,
        recipient=message.recipient,
    )
