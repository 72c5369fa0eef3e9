"""A write-back is fenced by id and token: in another database the id is another request."""

import asyncio
import itertools

import pytest
from msgspec.structs import replace
from support.messages import of_each, states
from support.waiting import until

from dispatcher.core.delays import Pause
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Deferred, Resolved, ReturnAll, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.db import workers as run_time
from dispatcher.db.database import connect
from dispatcher.db.record import record
from dispatcher.db.report_matching import match
from dispatcher.db.split import split
from dispatcher.db.spool import size
from dispatcher.worker import recorder as recorder_module
from dispatcher.worker.recorder import SPOOL_KIND


def all_accepted(batch: Batch) -> Resolved:
    return Resolved([Accepted(message, f"p{message.id}", 1) for message in batch.messages])


def elsewhere(batch: Batch) -> Batch:
    """Return a request of another database that has the same id."""
    return replace(batch, token="f" * 32)


async def test_an_answer_of_another_database_changes_nothing(hands):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    other = elsewhere(batch)
    for verdict in (
        all_accepted(other),
        UnknownResult("timeout", "no answer"),
        ReturnAll(Pause("unreachable", "gone", 1.0, 1.0)),
        Resolved([Deferred(message, "E200015", 0.0, True) for message in other.messages]),
    ):
        assert not await hands.record(other, verdict)
        assert await hands.batches() == [("open", None)]
    assert await hands.record(batch, all_accepted(batch))
    assert await states(hands.db) == {"accepted": 3}


@pytest.mark.parametrize("first", [True, False])
async def test_a_foreign_answer_beside_the_own_one_is_not_written(hands, first):
    """A promoted standby gave the id out again while the old request was in flight."""
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    other = elsewhere(batch)
    back = Resolved([Deferred(message, "E200015", 0.0, True) for message in other.messages])
    both = [
        BatchResult(other, back, 200, "000000", "", tries=1, seconds=0.1),
        BatchResult(batch, all_accepted(batch), 200, "000000", "", tries=1, seconds=0.1),
    ]
    recorded = await record(hands.database, hands.id, both if first else both[::-1])
    assert recorded.written == {batch.token}
    assert await hands.queue() == []
    assert await states(hands.db) == {"accepted": 2}
    counted = await hands.db.fetch("SELECT event, count FROM dispatcher.event_count")
    assert [tuple(row) for row in counted] == [("accepted", 2)]


async def test_a_request_of_another_database_is_not_split(hands):
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    parts = await split(
        hands.database,
        hands.id,
        elsewhere(batch),
        [batch.packed],
        code="E000027",
        description="",
        http_status=400,
        tries=1,
        token=hands.flight.new_token,
    )
    assert parts == []
    assert await hands.batches() == [("open", None)]


async def test_an_answer_of_another_database_takes_nothing_back(hands):
    batch = await given_up(hands)
    await hands.record(elsewhere(batch), all_accepted(batch))
    assert await hands.queue() == [message.id for message in batch.messages]


async def test_a_late_answer_corrects_what_was_cancelled_since(hands):
    batch = await given_up(hands)
    ids = [message.id for message in batch.messages]
    assert await hands.db.fetchval("SELECT dispatcher.cancel($1)", ids[:2]) == 2
    await hands.record(elsewhere(batch), all_accepted(batch))
    assert await states(hands.db) == {"cancelled": 2, "queued": 1}
    await hands.record(batch, all_accepted(batch))
    assert await states(hands.db) == {"accepted": 3}
    assert await hands.queue() == []


async def given_up(hands) -> Batch:
    """Three messages that may have been sent, and that an operator resends."""
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
    return batch


async def test_what_was_touched_since_is_taken_back_all_the_same(hands):
    first = await given_up(hands)
    [again] = await hands.claim()
    await hands.record(again, ReturnAll(Pause("HTTP 503", "gone", 0.0, 0.0)))
    await hands.db.execute("SELECT dispatcher.resume('default', 'Ana')")
    [once_more] = await hands.claim()
    back = [Deferred(message, "quiet-hours", 60.0, False) for message in once_more.messages]
    await hands.record(once_more, Resolved(back))
    await hands.db.execute("UPDATE dispatcher.queue SET last_batch = NULL, code = NULL")
    await hands.record(first, all_accepted(first))
    assert await hands.queue() == []
    assert await states(hands.db) == {"accepted": 3}


async def test_what_was_requeued_stays_so_when_it_is_resent(hands):
    await hands.begin(on_unsure="resend", resend_after=0.0)
    [one] = await hands.insert(1, lifetime=0.01)
    await until(lambda: gone(hands))
    await hands.db.execute("SELECT dispatcher.requeue(ARRAY[$1::bigint], 'Ana')", one)
    for how in ("settle", "policy", "abandon"):
        [batch] = await hands.claim()
        if how == "abandon":
            hands.flight.mark_unconfirmed(batch.token)
            await run_time.release_unsent(
                hands.database, hands.id, hands.flight.tokens, hands.flight.unconfirmed
            )
        else:
            await hands.record(batch, UnknownResult("timeout", "no answer"))
        if how == "settle":
            await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)
        if how == "policy":
            assert await run_time.resend_unsure(hands.database, hands.id) == (1, 1)
        assert await hands.db.fetchval("SELECT requeued FROM dispatcher.queue"), how


async def gone(hands) -> bool:
    """Tell whether the one message has expired."""
    await hands.claim()
    return await states(hands.db) == {"expired": 1}


async def test_the_policy_resend_ends_with_the_attempts(hands):
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.db.execute("UPDATE dispatcher.app SET max_attempts = 3")
    await hands.insert(2)
    for attempt in (1, 2, 3):
        [batch] = await hands.claim()
        assert {message.attempt for message in batch.messages} == {attempt}
        await hands.record(batch, UnknownResult("timeout", "no answer"))
        resent = await run_time.resend_unsure(hands.database, hands.id)
        assert resent == ((1, 2) if attempt < 3 else (0, 0))
    assert await states(hands.db) == {"unsure": 2}


async def kept(hands, folder, batch: Batch) -> None:
    """Keep the answer of *batch* on disk, as a worker does that cannot wait for the database."""
    result = BatchResult(
        batch,
        all_accepted(batch),
        http_status=200,
        code="000000",
        description="",
        tries=1,
        seconds=0.1,
    )
    one = hands.recorder(folder)
    await one.replay_spool()
    one._keep([result])


async def test_answers_kept_for_another_database_wait_for_it(hands, tmp_path):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await kept(hands, tmp_path, batch)
    identity = await hands.db.fetchval("SELECT id FROM dispatcher.installation")
    await hands.db.execute("UPDATE dispatcher.installation SET id = gen_random_uuid()")
    await hands.recorder(tmp_path).replay_spool()
    assert await states(hands.db) == {"sending": 3}
    assert size(tmp_path, SPOOL_KIND)[0] == 1
    await hands.db.execute("UPDATE dispatcher.installation SET id = $1", identity)
    await hands.recorder(tmp_path).replay_spool()
    assert await states(hands.db) == {"accepted": 3}
    assert size(tmp_path, SPOOL_KIND)[0] == 0


async def test_a_database_that_is_lost_in_a_replay_is_waited_for(hands, tmp_path, monkeypatch):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await kept(hands, tmp_path, batch)
    transaction, calls = hands.database.transaction, itertools.count(1)

    def lost_in_every_other(**more: float):
        if next(calls) % 2:
            raise DatabaseUnavailable("no connection")
        return transaction(**more)

    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(hands.database, "transaction", lost_in_every_other)
    await hands.recorder(tmp_path).replay_spool()
    assert next(calls) == 7  # its identity, the answers, and which requests there are not
    assert await states(hands.db) == {"accepted": 3}
    assert not list(tmp_path.iterdir())


async def test_answers_to_requests_that_were_lost_are_set_aside(hands, tmp_path):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await kept(hands, tmp_path, elsewhere(batch))
    await hands.recorder(tmp_path).replay_spool()
    assert await states(hands.db) == {"sending": 3}
    assert [path.suffix for path in tmp_path.iterdir()] == [".damaged"]


async def lose(hands) -> tuple[Batch, list[int]]:
    """Return three messages that a fail-over has lost: their batch is closed, without outcomes."""
    await hands.begin()
    ids = await hands.insert(3)
    [batch] = await hands.claim()
    await hands.db.execute("UPDATE dispatcher.batch SET state = 'closed', closed_at = now()")
    assert await states(hands.db) == {"lost": 3}
    return batch, ids


async def test_an_operator_requeues_what_a_fail_over_lost(hands):
    _, ids = await lose(hands)
    requeue = "SELECT dispatcher.requeue($1::bigint[], 'Ana')"
    assert await hands.db.fetchval(requeue, ids) == 3
    assert await hands.db.fetchval(requeue, ids) == 0
    assert await states(hands.db) == {"queued": 3}


async def test_an_operator_settles_as_sent_what_a_fail_over_lost(hands):
    _, ids = await lose(hands)
    settle = "SELECT dispatcher.settle_lost($1::bigint[], 'sent', 'Ana')"
    others = await hands.insert(1, first=10)
    assert await hands.db.fetchval(settle, [*ids, *others]) == 3
    assert await hands.db.fetchval(settle, ids) == 0
    assert await states(hands.db) == {"accepted": 3, "queued": 1}
    rows = await of_each(hands.db, ids)
    assert {row["code"] for row in rows.values()} == {"settled-by-operator"}
    [event] = await hands.db.fetch("SELECT event, code, message_count FROM dispatcher.event")
    assert tuple(event) == ("accepted", "settled-by-operator", 3)
    audit = await hands.db.fetchrow("SELECT actor, action, result FROM dispatcher.audit")
    assert tuple(audit) == ("Ana", "settle", "3 of 4 settled as sent")


async def test_settled_to_be_sent_again_what_is_lost_waits(hands):
    _, ids = await lose(hands)
    assert await hands.db.fetchval("SELECT dispatcher.settle_lost($1, 'resend')", ids[:2]) == 2
    assert await states(hands.db) == {"queued": 2, "lost": 1}


async def test_two_at_once_settle_what_is_lost_once(hands, dsn):
    _, ids = await lose(hands)
    operators = [await connect(dsn) for _ in range(8)]
    done = await asyncio.gather(
        *(
            each.fetchval(f"SELECT dispatcher.settle_lost($1, '{('sent', 'resend')[n % 2]}')", ids)
            for n, each in enumerate(operators)
        )
    )
    assert sorted(done) == [0] * 7 + [3]
    for each in operators:
        await each.close()


async def report(hands, batch: Batch, *, but: int) -> None:
    """Store a report of each message of a request but one."""
    await hands.db.execute(
        "INSERT INTO dispatcher.report_inbox (provider_ids, segments, totals, states, statuses,"
        " tokens, recipients, fresh) SELECT array_agg('p' || id), array_agg(1), array_agg(1),"
        " array_agg('delivered'::text), array_agg('DELIVRD'::text), array_agg($1::text),"
        " array_agg(recipient), array_agg(true) FROM dispatcher.message WHERE id <> $2",
        batch.token,
        but,
    )


async def test_reports_of_what_was_settled_as_sent_name_it(hands):
    """Its outcome has no request, for the database has lost which one was answered."""
    batch, ids = await lose(hands)
    await hands.db.execute("SELECT dispatcher.settle_lost($1, 'sent')", ids)
    await report(hands, batch, but=ids[0])
    step = await match(hands.database)
    assert (step.reports, step.unmatched) == (2, 0)
    rows = await of_each(hands.db, ids)
    assert [rows[each]["provider_id"] for each in ids] == [None, *(f"p{n}" for n in ids[1:])]
    told = await hands.db.fetch(
        "SELECT message_ids FROM dispatcher.event WHERE event = 'delivered'"
    )
    assert sorted(each for row in told for each in row["message_ids"]) == ids[1:]


async def test_a_report_settles_what_a_fail_over_lost(hands):
    batch, ids = await lose(hands)
    await report(hands, batch, but=ids[0])
    step = await match(hands.database)
    assert (step.reports, step.settled, step.unmatched) == (2, 2, 0)
    rows = await of_each(hands.db, ids)
    assert [rows[each]["code"] for each in ids[1:]] == ["settled-by-report"] * 2
    assert rows[ids[0]]["state"] == "lost"
