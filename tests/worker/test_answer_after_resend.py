"""An answer that comes when its batch was given up: what still waits is not sent a second time."""

import asyncio
from time import monotonic

import pytest
from support.messages import states
from support.waiting import until

from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Deferred, Rejected, Resolved, UnknownResult
from dispatcher.core.report import Report
from dispatcher.core.report_status import report_status
from dispatcher.core.result import BatchResult
from dispatcher.db.database import connect
from dispatcher.db.maintenance import prune
from dispatcher.db.queries import sql
from dispatcher.db.record import record
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


@pytest.mark.parametrize("given_up", ["operator"], indirect=True)
async def test_what_waits_beyond_the_retention_is_taken_back(hands, given_up):
    """Its app or campaign was paused for that long."""
    await hands.db.execute(
        "UPDATE dispatcher.batch SET opened_at = opened_at - interval '40 days',"
        " closed_at = closed_at - interval '40 days'"
    )
    await prune(hands.database, 86_400.0)
    await hands.record(given_up, Resolved([Accepted(each, "p", 1) for each in given_up.messages]))
    assert await states(hands.db) == {"accepted": 3}


HOLDS = {
    "claim": "SELECT FROM dispatcher.queue FOR UPDATE",
    "cancel": "SELECT dispatcher.cancel(ARRAY(SELECT id FROM dispatcher.queue))",
}


@pytest.mark.parametrize("given_up", ["policy", "operator"], indirect=True)
@pytest.mark.parametrize("by", HOLDS)
async def test_what_another_session_holds_is_taken_back_later(hands, given_up, by):
    """Else it would be sent again, though it is known to be accepted."""
    late = answered(given_up)
    async with hands.database.transaction() as other:
        await other.execute(HOLDS[by])
        recorded = await record(hands.database, hands.id, [late])
        assert recorded.held == {given_up.id}
    recorded = await record(hands.database, hands.id, [late])
    assert not recorded.held
    assert await hands.queue() == []
    assert await states(hands.db) == {"accepted": 3}
    accepted = await hands.db.fetchval(
        "SELECT sum(count) FROM dispatcher.event_count WHERE event = 'accepted'"
    )
    assert accepted == 3


LETS_GO = {
    "nothing": "SELECT FROM dispatcher.queue FOR UPDATE",
    "cancel": HOLDS["cancel"],
    "requeue": "SELECT dispatcher.requeue(ARRAY(SELECT message_id FROM dispatcher.outcome))",
    "later request": "SELECT FROM dispatcher.batch WHERE state = 'unsure' FOR UPDATE",
}


@pytest.mark.parametrize("given_up", ["policy"], indirect=True)
@pytest.mark.parametrize("by", LETS_GO)
async def test_a_late_answer_is_next_to_hold_what_it_settles(hands, given_up, by, dsn, tmp_path):
    """A claim would send again what is known to be accepted, and the policy what is unsure."""
    if by == "requeue":
        await hands.db.execute(
            "WITH gone AS (DELETE FROM dispatcher.queue RETURNING *)"
            " INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id)"
            " SELECT id, 'expired', attempt, last_batch FROM gone"
        )
    elif by == "later request":
        [again] = await hands.claim()
        await hands.record(again, UnknownResult("timeout", "no answer"))
    recorder = hands.recorder(tmp_path, "default")
    recorder._unwritten = [answered(given_up)]
    recalls = asyncio.create_task(recorder.run_recalls())
    person = await connect(dsn)
    try:
        await person.execute("BEGIN")
        await person.execute(LETS_GO[by])
        await recorder._record(monotonic())
        assert len(recorder._unwritten) == 1
        await until(lambda: one_waits(hands.db), what="the answer waits")
        await person.execute("COMMIT")
        await until(lambda: not recorder._unwritten, what="the answer is written")
        assert await states(hands.db) == {"accepted": 3}
    finally:
        await person.close()
        recalls.cancel()


@pytest.mark.parametrize("given_up", ["policy"], indirect=True)
async def test_other_answers_pass_one_that_waits_for_a_person(hands, given_up, dsn, tmp_path):
    recorder = hands.recorder(tmp_path, "default")
    tasks = [asyncio.create_task(part) for part in (recorder.run(), recorder.run_recalls())]
    person = await connect(dsn)
    try:
        await person.execute("BEGIN")
        await person.execute(HOLDS["claim"])
        recorder.results.put(answered(given_up))
        await until(lambda: one_waits(hands.db), what="the answer waits")
        await hands.insert(2, first=50)
        [other] = await hands.claim()
        recorder.results.put(answered(other))
        await until(lambda: is_accepted(hands.db, 2), what="the other answer is written")
        await person.execute("ROLLBACK")
        await until(lambda: not recorder._unwritten, what="the answer is written")
        assert await states(hands.db) == {"accepted": 5}
    finally:
        await person.close()
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("given_up", ["policy"], indirect=True)
async def test_a_kept_answer_is_next_to_hold_what_it_settles(hands, given_up, dsn, tmp_path):
    recorder = hands.recorder(tmp_path, "default")
    await recorder.replay_spool()
    recorder._keep([answered(given_up)])
    recalls = asyncio.create_task(recorder.run_recalls())
    person = await connect(dsn)
    try:
        await person.execute("BEGIN")
        await person.execute(HOLDS["claim"])
        await recorder._replay()
        await until(lambda: one_waits(hands.db), what="the answer waits")
        await person.execute("ROLLBACK")
        await until(lambda: is_accepted(hands.db, 3), what="the answer is written")
        await recorder._replay()
        assert not list(tmp_path.iterdir())
    finally:
        await person.close()
        recalls.cancel()


async def is_accepted(db, count: int) -> bool:
    return (await states(db)).get("accepted") == count


async def one_waits(db) -> bool:
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )


@pytest.mark.parametrize("given_up", ["policy"], indirect=True)
async def test_what_is_unsure_again_and_held_is_settled_later(hands, given_up):
    [again] = await hands.claim()
    await hands.record(again, UnknownResult("timeout", "no answer"))
    late = answered(given_up)
    async with hands.database.transaction() as other:
        await other.execute("SELECT FROM dispatcher.batch WHERE state = 'unsure' FOR UPDATE")
        recorded = await record(hands.database, hands.id, [late])
        assert recorded.held == {given_up.id}
    assert not (await record(hands.database, hands.id, [late])).held
    assert await states(hands.db) == {"accepted": 3}


@pytest.mark.parametrize("given_up", ["policy"], indirect=True)
async def test_a_short_hold_of_what_is_taken_back_is_waited_out(hands, given_up, monkeypatch):
    """As that of a claim which puts it back."""
    monkeypatch.setattr("dispatcher.db.record.HELD_TRIES", 1000)  # its COMMIT may take long
    async with hands.database.transaction() as other:
        await other.execute(HOLDS["claim"])
        late = asyncio.create_task(record(hands.database, hands.id, [answered(given_up)]))
        await asyncio.sleep(0.01)
    assert not (await late).held
    assert await states(hands.db) == {"accepted": 3}


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
    await report(hands, refusal(one, batch))
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
    assert await hands.queue() == [one.id, two.id]
    await hands.record(batch, Resolved([Accepted(one, "p1", 1), Accepted(two, "p2", 1)]))
    assert await hands.queue() == [one.id]
    assert await states(hands.db) == {"accepted": 1, "queued": 1}


async def test_no_late_answer_takes_back_what_was_requeued(hands):
    """It was given up before the report came that the platform refused it."""
    batch = await given_up_by_hand(hands)
    one, two = batch.messages
    await report(hands, refusal(one, batch))
    assert await hands.queue() == [two.id]
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    await hands.record(batch, Resolved([Accepted(one, "p1", 1), Accepted(two, "p2", 1)]))
    assert await hands.queue() == [one.id]


async def test_a_late_answer_wakes_no_report_of_what_was_requeued(hands):
    batch = await given_up_by_hand(hands)
    one, two = batch.messages
    told = refusal(one, batch)
    await report(hands, told)
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    accepted = [Accepted(one, told.provider_id, 1), Accepted(two, "p2", 1)]
    await hands.record(batch, Resolved(accepted))
    await match(hands.database)
    rows = await hands.db.fetch("SELECT reason, due_at FROM dispatcher.unmatched_report")
    assert [tuple(row) for row in rows] == [("requeued", None)]


async def test_no_report_of_a_segment_takes_back_what_was_requeued(hands):
    batch = await given_up_by_hand(hands)
    one, two = batch.messages
    await report(hands, refusal(one, batch, segment=1, total=2))
    await store(hands.database, [(refusal(one, batch, segment=2, total=2), 0.0)])
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    await match(hands.database)
    assert await hands.queue() == [one.id, two.id]


async def test_a_late_answer_takes_back_a_requeued_expired_message(hands):
    """Nothing says that the platform refused it: sent again it would come twice."""
    batch = await given_up_by_hand(hands)
    one, two = batch.messages
    await hands.db.execute(
        "WITH gone AS (DELETE FROM dispatcher.queue WHERE id = $1 RETURNING *)"
        " INSERT INTO dispatcher.outcome (message_id, state, attempts, batch_id)"
        " SELECT id, 'expired', attempt, last_batch FROM gone",
        one.id,
    )
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    await hands.record(batch, Resolved([Accepted(one, "p1", 1), Accepted(two, "p2", 1)]))
    assert await states(hands.db) == {"accepted": 2}


@pytest.mark.parametrize("lacks", [0, 1, 2])
async def test_a_late_answer_settles_the_others_of_a_requeued_message(hands, lacks):
    """The requeued one waits on; else the others would be sent twice when they are given up."""
    await hands.begin()
    await hands.insert(4)
    [batch] = await hands.claim()
    one, two, three, four = batch.messages
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await report(hands, refusal(one, batch))
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    lacking = [[], [one], [one, four]][lacks]
    given = [each for each in (one, two, three, four) if each not in lacking]
    answer = Resolved([Accepted(each, f"p{each.id}", 1) for each in given], unsure=lacking)
    assert await hands.record(batch, answer)
    assert not await hands.record(batch, answer)
    assert await hands.queue() == [one.id]
    left = {"unsure": 1} if four in lacking else {}
    assert await states(hands.db) == {"accepted": 3 - len(left), "queued": 1, **left}
    closed = "unsure" if left else "closed"
    assert await hands.batches() == [(closed, "000000")]
    counted = await hands.db.fetchval(
        "SELECT coalesce(sum(count), 0) FROM dispatcher.event_count"
        " WHERE event = 'unsure' AND code = '000000'"
    )
    assert counted == len(left)


async def test_a_requeue_of_what_was_rejected_waits_for_no_request(hands):
    """Those of accepted messages alone change, and are locked in their order before."""
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    one, two = batch.messages
    await hands.record(batch, Resolved([Rejected(one, "E200028", "no")], unsure=[two]))
    async with hands.database.transaction() as other:
        await other.execute("SELECT FROM dispatcher.batch FOR UPDATE")
        await hands.db.execute("SET lock_timeout = '1s'")
        assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1


async def test_a_late_answer_settles_what_is_unsure_again(hands):
    """By its policy it would be sent a third time, though it is known to be accepted."""
    first = await unsure_twice(hands)
    one, two, three = first.messages
    answer = Resolved([Accepted(one, "p1", 1), Rejected(two, "E200028", "no")], unsure=[three])
    for _ in range(2):  # safe to repeat
        await hands.record(first, answer)
        assert await states(hands.db) == {"accepted": 1, "unsure": 2}
    assert await resend_unsure(hands.database, hands.id) == (1, 2)
    assert await hands.queue() == [two.id, three.id]


async def test_a_report_settles_what_is_unsure_again(hands):
    first = await unsure_twice(hands)
    one, two, three = first.messages
    await report(hands, delivery(one, first))
    assert await states(hands.db) == {"delivered": 1, "unsure": 2}
    assert await resend_unsure(hands.database, hands.id) == (1, 2)
    assert await hands.queue() == [two.id, three.id]


@pytest.mark.parametrize("by", ["answer", "reports"])
async def test_the_later_batch_closes_when_all_of_it_is_settled(hands, by):
    first = await unsure_twice(hands)
    if by == "answer":
        await hands.record(first, Resolved([Accepted(m, f"p{m.id}", 1) for m in first.messages]))
    else:
        for each in first.messages:
            await report(hands, delivery(each, first))
    assert await states(hands.db) == {"accepted" if by == "answer" else "delivered": 3}
    assert [state for state, _ in await hands.batches()] == ["closed", "closed"]
    assert await resend_unsure(hands.database, hands.id) == (0, 0)


async def test_a_report_waits_while_its_message_is_on_its_way_again(hands):
    first = await given_up_by_hand(hands)
    one, two = first.messages
    [again] = await hands.claim()
    await report(hands, delivery(one, first))
    assert await states(hands.db) == {"sending": 2}
    await hands.record(again, UnknownResult("timeout", "no answer"))
    await hands.db.execute("UPDATE dispatcher.unmatched_report SET due_at = clock_timestamp()")
    await match(hands.database)
    assert await states(hands.db) == {"delivered": 1, "unsure": 1}
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", again.token)
    assert await hands.queue() == [two.id]


async def test_no_report_takes_what_another_session_is_cancelling(hands):
    """It does not wait for that session either: all reports would."""
    batch = await given_up_by_hand(hands)
    one, two = batch.messages
    async with hands.database.transaction() as other:
        await other.execute("SELECT dispatcher.cancel($1)", [one.id])
        await report(hands, delivery(one, batch))
        assert await hands.queue() == [one.id, two.id]
    assert await states(hands.db) == {"cancelled": 1, "queued": 1}


async def test_no_look_from_before_a_requeue_takes_it_back(hands):
    batch = await given_up_by_hand(hands)
    one, _ = batch.messages
    await report(hands, refusal(one, batch))
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [one.id]) == 1
    assert await hands.db.fetch(sql("recall"), [one.id], [batch.id], [batch.token]) == []


def answered(batch: Batch) -> BatchResult:
    """Return an answer that accepts all of *batch*."""
    verdict = Resolved([Accepted(message, f"p{message.id}", 1) for message in batch.messages])
    return BatchResult(batch, verdict, 200, "000000", "", tries=1, seconds=0.1)


async def unsure_twice(hands) -> Batch:
    """Three messages that were given up, and are unsure again; the first of their batches."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(3)
    [first] = await hands.claim()
    await hands.record(first, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (1, 3)
    [second] = await hands.claim()
    await hands.record(second, UnknownResult("timeout", "no answer"))
    return first


async def given_up_by_hand(hands) -> Batch:
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
    return batch


async def report(hands, told: Report) -> None:
    await register_statuses(hands.database)
    await store(hands.database, [(told, 0.0)])
    await match(hands.database)


def refusal(message, batch, *, segment=1, total=1) -> Report:
    return status("E000629", message, batch, segment=segment, total=total)


def delivery(message, batch) -> Report:
    return status("DELIVRD", message, batch, provider_id=f"p{message.id}")


def status(word, message, batch, *, segment=1, total=1, provider_id="p1") -> Report:
    return Report(
        provider_id=provider_id,
        segment=segment,
        total=total,
        status=word,
        state=report_status(word).state,
        token=batch.token,
        recipient=message.recipient,
    )
