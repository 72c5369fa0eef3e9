"""A row, an answer or a report that ends whatever reads it harms only itself."""

import random
from time import monotonic

import asyncpg
import pytest
from support.claims import arrange
from support.fast_forward import let_pass
from support.messages import TEMPLATE, finished, insert, of_each, states
from support.provider import app_at
from support.slow import slow_after
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Resolved, UnknownResult
from dispatcher.core.packing import halve
from dispatcher.core.result import BatchResult
from dispatcher.db.claim import set_aside
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.loop import FailingParts
from dispatcher.db.record import record
from dispatcher.db.report_matching import match
from dispatcher.db.workers import register_app, resend_unsure
from dispatcher.simulator.faults import BadEntry
from dispatcher.telemetry import Metrics
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import Lease

LONG = random.Random(1).randbytes(10_000).hex()  # it is stored out of line

LONG_NUMBER = "1" * 21


async def damage(db: asyncpg.Connection, ids: list[int]) -> None:
    """Delete the values of the partition of *ids* that are stored out of line: a damaged disk."""
    await db.execute("SET allow_system_table_mods = on")
    part = await db.fetchval(
        "SELECT tableoid::regclass::text FROM dispatcher.message WHERE id = $1", ids[0]
    )
    toast = await db.fetchrow(
        "SELECT reltoastrelid AS oid, reltoastrelid::regclass::text AS name FROM pg_class"
        " WHERE oid = $1::text::regclass",
        part,
    )
    # An ordinary table may be written to: so for a moment it is one.
    kind = "UPDATE pg_class SET relkind = $2 WHERE oid = $1"
    async with db.transaction():
        await db.execute(kind, toast["oid"], b"r")
        await db.execute(f"DELETE FROM {toast['name']}")
        await db.execute(kind, toast["oid"], b"t")


@pytest.mark.parametrize(("priority", "count"), slow_after(1, [(5, 3), (5, 25), (0, 3)]))
async def test_damaged_rows_are_rejected_and_the_others_sent(db, workers, sim, priority, count):
    before = await insert(db, 700, priority=priority)
    damaged = await insert(db, count, first=1000, params=[LONG], priority=priority)
    after = await insert(db, 700, first=2000, priority=priority)
    elsewhere = await insert(db, 50, first=3000, app="other")
    await damage(db, damaged)
    apps = {"default": app_at(sim.url), "other": app_at(sim.url)}
    worker = await workers.start(apps)
    await until(lambda: finished(db), deadline=30, what="everything is finished")
    seen = await of_each(db, damaged)
    assert {(row["state"], row["code"]) for row in seen.values()} == {("rejected", "set-aside")}
    assert "DataCorruptedError XX001" in seen[damaged[0]]["reason"]
    assert await states(db) == {"accepted": len(before + after + elsewhere), "rejected": count}
    assert sim.ledger.numbers == 1450
    assert worker.code is None
    counted = await db.fetchval(
        "SELECT sum(count) FROM dispatcher.event_count"
        " WHERE event = 'rejected' AND code = 'set-aside'"
    )
    assert counted == count


async def test_a_message_that_has_its_outcome_is_not_set_aside_twice(db, workers, sim):
    [ended] = await insert(db, 1, lifetime=0.001)
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'cancelled', 0)",
        ended,
    )
    others = await insert(db, 10, first=10)
    await workers.start(sim.url)
    await until(lambda: finished(db), deadline=30, what="everything is finished")
    assert await states(db) == {"cancelled": 1, "accepted": len(others)}


async def test_values_that_cannot_be_stored_are_left_out(hands):
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    first, second, third = batch.messages
    outcomes = [
        Accepted(first, "a\0b", 1),
        Accepted(second, "good", 100_000),
        Accepted(third, "c", 2),
    ]
    assert await hands.record(batch, Resolved(outcomes))
    rows = await of_each(hands.db, [first.id, second.id, third.id])
    found = [
        (row["state"], row["provider_id"], row["segments"]) for row in map(rows.get, sorted(rows))
    ]
    assert found == [("accepted", "ab", 1), ("accepted", "good", None), ("accepted", "c", 2)]


async def test_a_result_that_is_refused_leaves_the_others_alone(hands):
    await hands.begin()
    results = []
    for first in range(0, 12, 3):
        await hands.insert(3, first=first)
        [batch] = await hands.claim()
        outcomes = [Accepted(message, f"id-{message.id}", 1) for message in batch.messages]
        results.append(
            BatchResult(batch, Resolved(outcomes), 200, "000000", "", tries=1, seconds=0.1)
        )
    refused = results[2].batch
    await hands.db.execute(
        "ALTER TABLE dispatcher.outcome ADD CONSTRAINT odd"
        f" CHECK (message_id <> {refused.messages[1].id})"
    )
    recorded = await record(hands.database, hands.id, results)
    assert len(recorded.written) == 4
    assert await states(hands.db) == {"accepted": 9, "unsure": 3}
    states_and_codes = await hands.batches()
    assert states_and_codes.count(("unsure", "not-recorded")) == 1


async def reported(db, *, odd: str) -> None:
    """Store a report of each accepted message; the one to *odd* is blocked."""
    rows = await db.fetch(
        "SELECT o.provider_id, b.token, m.recipient FROM dispatcher.outcome o"
        " JOIN dispatcher.batch b ON b.id = o.batch_id"
        " JOIN dispatcher.message m ON m.id = o.message_id ORDER BY m.id"
    )
    await db.execute(
        "INSERT INTO dispatcher.report_inbox (provider_ids, segments, totals, states, statuses,"
        " tokens, recipients, fresh)"
        " SELECT array_agg(p), array_agg(1), array_agg(1), array_agg('delivered'::text),"
        " array_agg(CASE r WHEN $4 THEN 'BLACK' ELSE 'DELIVRD' END), array_agg(t), array_agg(r),"
        " array_agg(true)"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS u (p, t, r)",
        [row["provider_id"] for row in rows],
        [row["token"] for row in rows],
        [row["recipient"] for row in rows],
        odd,
    )


@pytest.fixture
async def accepted(hands):
    """Forty accepted messages, one of them to a number that is far too long for a phone."""
    await hands.begin()
    await hands.db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, $2)",
        LONG_NUMBER,
        TEMPLATE,
    )
    await hands.insert(39)
    [batch] = await hands.claim()
    outcomes = [Accepted(message, f"id-{message.id}", 1) for message in batch.messages]
    await hands.record(batch, Resolved(outcomes))
    return hands


async def delivered(db) -> int:
    return await db.fetchval(
        "SELECT coalesce(sum(message_count), 0) FROM dispatcher.event"
        " WHERE event IN ('delivered', 'undelivered')"
    )


async def test_a_long_number_on_a_block_list_stops_no_report(accepted):
    await reported(accepted.db, odd=LONG_NUMBER)
    step = await match(accepted.database, suppress_blocked=True)
    assert (step.reports, step.unmatched) == (40, 0)
    assert await delivered(accepted.db) == 40
    assert await accepted.db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 0


async def test_a_report_that_cannot_be_matched_is_set_aside(accepted):
    await reported(accepted.db, odd=LONG_NUMBER)
    await accepted.db.execute(
        "ALTER TABLE dispatcher.event ADD CONSTRAINT odd CHECK (code <> 'BLACK')"
    )
    step = await match(accepted.database, suppress_blocked=True)
    assert (step.reports, step.unmatched) == (40, 1)
    assert await delivered(accepted.db) == 39
    rows = await accepted.db.fetch("SELECT reason, due_at FROM dispatcher.unmatched_report")
    assert [tuple(row) for row in rows] == [("set-aside", None)]
    assert await accepted.db.fetchval("SELECT count(*) FROM dispatcher.report_inbox") == 0


NO_WRITES = """
CREATE FUNCTION public.no_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'database is not accepting commands' USING ERRCODE = '54000';
END $$;
CREATE TRIGGER no_writes BEFORE INSERT OR UPDATE ON dispatcher.batch
    EXECUTE FUNCTION public.no_writes();
CREATE TRIGGER no_writes BEFORE INSERT ON dispatcher.outcome EXECUTE FUNCTION public.no_writes();
CREATE TRIGGER no_writes BEFORE INSERT ON dispatcher.unmatched_report
    EXECUTE FUNCTION public.no_writes();
"""
WRITES_AGAIN = "DROP FUNCTION public.no_writes() CASCADE"


async def test_answers_wait_for_a_database_that_takes_no_writes(hands):
    """As PostgreSQL refuses writes before its transaction ids run out, until a VACUUM."""
    await hands.begin()
    await hands.insert(6)
    [batch] = await hands.claim()
    verdict = Resolved([Accepted(message, f"id-{message.id}", 1) for message in batch.messages])
    await hands.db.execute(NO_WRITES)
    with pytest.raises(DatabaseUnavailable, match="54000"):
        await hands.record(batch, verdict)
    assert await states(hands.db) == {"sending": 6}
    await hands.db.execute(WRITES_AGAIN)
    assert await hands.record(batch, verdict)
    assert await states(hands.db) == {"accepted": 6}


async def test_a_worker_waits_for_a_database_that_takes_no_writes(db, workers, sim):
    await db.execute(NO_WRITES)
    await insert(db, 600)
    worker = await workers.start(sim.url)
    await until(lambda: "no claim" in worker.text(), what="a claim is refused")
    assert await states(db) == {"queued": 600}
    await db.execute(WRITES_AGAIN)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 600}
    assert worker.code is None


LATER = "SELECT count(*) = 3 FROM dispatcher.queue WHERE due_at > now() + interval '30 s'"
SHORT_LEASE = "13s"  # the shortest with this time-out: a heartbeat comes each two seconds
FAILING = "SELECT failing_parts FROM dispatcher.worker"


async def test_limits_that_cannot_be_read_stop_their_app_only(db, workers, sim):
    """Nothing of it is sent without its rules, and no message is at fault."""
    await db.execute(
        "ALTER TABLE dispatcher.app_limit DROP CONSTRAINT quiet_hours_are_before_24_00_write_00_00;"
        "SELECT dispatcher.set_limits('other', quiet_from => '22:00', quiet_until => '24:00')"
    )
    ids = await insert(db, 600)
    held = await insert(db, 3, first=1000, app="other")
    apps = dict.fromkeys(("default", "other"), app_at(sim.url, timeout="3s"))
    worker = await workers.start(apps, lease=SHORT_LEASE)
    await until(lambda: states_are(db, ids, "accepted"), what="the other app is sent")
    await until(lambda: db.fetchval(FAILING), what="a heartbeat names the rule")
    line = "They cannot be read, and nothing of other is sent: set or remove them"
    assert f"limits of other: {line}" in (await db.fetchval(FAILING))[0]
    assert worker.text().count(line) == 1
    assert await states_are(db, held, "queued")
    await db.execute("SELECT dispatcher.set_limits('other')")
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 603}
    await until(lambda: no_part_fails(db), what="a heartbeat names no rule")
    assert worker.code is None


async def test_a_template_that_cannot_be_read_holds_back_its_messages(db, workers, sim):
    await db.execute(
        "ALTER TABLE dispatcher.template"
        " DROP CONSTRAINT kinds_are_a_flat_list_of_the_kinds_of_variables;"
        "INSERT INTO dispatcher.template (template_id, kinds) VALUES ('odd', '{NUM_6,NULL}')"
    )
    ids = await insert(db, 40)
    held = await insert(db, 3, first=1000)
    await db.execute(
        "UPDATE dispatcher.message SET template_id = 'odd' WHERE id = ANY ($1::bigint[])", held
    )
    app = {"default": app_at(sim.url, timeout="3s")}
    worker = await workers.start(app, lease=SHORT_LEASE)
    await until(lambda: states_are(db, ids, "accepted"), what="the others are sent")
    await until(lambda: db.fetchval(FAILING), what="a heartbeat names the rule")
    assert "template odd: It cannot be read" in (await db.fetchval(FAILING))[0]
    await until(lambda: db.fetchval(LATER), what="each is deferred")
    assert await states_are(db, held, "queued")
    await db.execute("DELETE FROM dispatcher.template")
    await until(lambda: no_part_fails(db), what="a heartbeat names no rule")
    await let_pass(db, 61)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 43}
    assert worker.code is None


async def test_rules_of_all_apps_that_cannot_be_read_stop_all(db, workers, sim):
    await db.execute(
        "ALTER TABLE dispatcher.app_limit RENAME TO kept_limit;"
        "CREATE VIEW dispatcher.app_limit AS SELECT app, 1 / (per_minute - 9) AS per_minute,"
        " per_day, same_per_minute, same_per_hour, daily_limit, quiet_from, quiet_until"
        " FROM dispatcher.kept_limit;"
        "GRANT SELECT ON dispatcher.app_limit TO PUBLIC;"
        "INSERT INTO dispatcher.kept_limit (app, per_minute) VALUES ('other', 9)"
    )
    await insert(db, 6)
    app = {"default": app_at(sim.url, timeout="3s")}
    worker = await workers.start(app, lease=SHORT_LEASE)
    line = "They cannot be read, and nothing is sent: DivisionByZeroError 22012."
    await until(lambda: line in worker.text(), what="a claim is refused")
    await until(lambda: db.fetchval(FAILING), what="a heartbeat names the rules")
    assert await db.fetchval(FAILING) == [f"rules of every app: {line}"]
    assert await states(db) == {"queued": 6}
    await db.execute("DELETE FROM dispatcher.kept_limit")
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 6}
    assert worker.code is None


async def states_are(db: asyncpg.Connection, ids: list[int], state: str) -> bool:
    return {row["state"] for row in (await of_each(db, ids)).values()} == {state}


async def no_part_fails(db: asyncpg.Connection) -> bool:
    return await db.fetchval(FAILING) == []


REFUSE_PART = (
    "CREATE FUNCTION public.refuse_part() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN IF NEW.parent IS NOT NULL AND {id} = ANY (NEW.message_ids)"
    " THEN RAISE EXCEPTION 'no'{more}; END IF; RETURN NEW; END $$;"
    "CREATE {kind} TRIGGER refuse AFTER INSERT ON dispatcher.batch {when}"
    " FOR EACH ROW EXECUTE FUNCTION public.refuse_part()"
)


@pytest.mark.parametrize(
    "kind",
    [("", "", ""), ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED", " USING ERRCODE = '23514'")],
    ids=["raised", "deferred"],
)
async def test_a_part_that_a_trigger_refuses_rejects_one_message(db, workers, sim, kind):
    """The request was refused for another message, and its parts are written to be sent."""
    await sim.faults.arm([BadEntry(numbers=["+8613800000003"], code="E000503")])
    ids = await insert(db, 40)
    of_kind = dict(zip(("kind", "when", "more"), kind, strict=True))
    await db.execute(REFUSE_PART.format(id=ids[20], **of_kind))
    worker = await workers.start(sim.url)
    await until(lambda: finished(db), deadline=20, what="everything is finished")
    assert await states(db) == {"accepted": 38, "rejected": 2}
    seen = await of_each(db, ids)
    assert (seen[ids[3]]["code"], seen[ids[20]]["code"]) == ("E000503", "set-aside")
    assert seen[ids[20]]["reason"].endswith(" 23514" if kind[0] else "RaiseError P0001")
    assert sim.ledger.numbers == 38
    assert not await db.fetchval("SELECT count(*) FROM dispatcher.batch WHERE state <> 'closed'")
    assert worker.code is None


@pytest.mark.parametrize("count", [40, 10], ids=["in a bulk row", "in the queue"])
async def test_a_message_whose_batch_is_refused_lets_others_pass(db, workers, sim, count):
    """A trigger of an application refuses it at the claim; it may be mended, so it waits."""
    ids = await insert(db, count)
    condition = f"{ids[5]} = ANY (NEW.message_ids)"
    await db.execute(
        "CREATE FUNCTION public.refuse_batch() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON dispatcher.batch FOR EACH ROW"
        f" WHEN ({condition}) EXECUTE FUNCTION public.refuse_batch()"
    )
    worker = await workers.start(sim.url)
    await until(lambda: sim.ledger.numbers == count - 1, what="the others are sent")
    seen = (await of_each(db, ids))[ids[5]]
    assert (seen["state"], seen["code"], seen["attempts"]) == ("queued", "write-refused", 0)
    await db.execute("DROP TRIGGER refuse ON dispatcher.batch")
    await let_pass(db, 600.0)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": count}
    assert worker.code is None


async def test_a_request_whose_parts_are_all_refused_waits(db, workers, sim):
    """A constraint on parts is no fault of a message: none is rejected, none sent at once again."""
    await sim.faults.arm([BadEntry(numbers=["+8613800000000"], code="E000503")])
    ids = await insert(db, 4)
    elsewhere = await insert(db, 3, first=100, app="other")
    await db.execute("ALTER TABLE dispatcher.batch ADD CONSTRAINT odd CHECK (parent IS NULL)")
    apps = {"default": app_at(sim.url), "other": app_at(sim.url)}
    worker = await workers.start(apps)
    await until(lambda: states_are(db, elsewhere, "accepted"), what="the other app is sent")
    await until(lambda: db.fetchval(WAITING_LONG), what="the messages wait")
    seen = await of_each(db, ids)
    assert {(row["state"], row["code"], row["attempts"]) for row in seen.values()} == {
        ("queued", "write-refused", 0)
    }
    assert worker.text().count("not divided") == 1
    await db.execute("ALTER TABLE dispatcher.batch DROP CONSTRAINT odd")
    await let_pass(db, 600.0)
    await until(lambda: finished(db), what="everything is finished")
    assert await states(db) == {"accepted": 3 + len(elsewhere), "rejected": 1}
    assert worker.code is None


WAITING_LONG = "SELECT count(*) = 4 FROM dispatcher.queue WHERE due_at > now() + interval '300 s'"


async def test_a_refused_part_leaves_no_token_in_flight(hands):
    """Tokens that stay make the recorder wait for results that never come."""
    await hands.begin()
    ids = await hands.insert(8)
    [batch] = await hands.claim()
    await hands.db.execute(REFUSE_PART.format(id=ids[5], kind="", when="", more=""))
    claimer = Claimer(
        hands.database,
        worker=hands.id,
        in_flight=hands.flight,
        lease=Lease(60.0, monotonic),
        callback=None,
        token_length=10,
        metrics=Metrics(),
        breakers={},
        allowed={},
        failing=FailingParts(),
    )
    children = await claimer.split(
        batch, list(halve(batch.packed)), code="E1", description="", http_status=200, tries=1
    )
    assert sorted(m.id for child in children for m in child.messages) == sorted({*ids} - {ids[5]})
    assert hands.flight.tokens == {child.token for child in children}


ODD_BATCHES = [
    ("attempts[1] < 2", 1),  # the claim counts an attempt
    ("bytes > 0 AND NOT {id} = ANY (message_ids)", 0),
    ("cardinality(requeued_ids) = 0", 0),
    ("NOT {id} = ANY (message_ids)", 32_767),  # no number of attempts is higher
]


@pytest.mark.parametrize(
    ("check", "spent"), ODD_BATCHES, ids=["attempt", "size", "requeued", "most"]
)
async def test_the_batch_that_is_tried_is_that_of_the_claim(hands, check, spent):
    """A rehearsal of another batch would pass, and the claim fail for ever."""
    await hands.begin()
    [first, *_] = await hands.insert(3)
    await hands.db.execute(
        "UPDATE dispatcher.queue SET attempt = $2, requeued = $3,"
        " due_at = due_at - interval '1 minute' WHERE id = $1",
        first,
        spent,
        "requeued" in check,
    )
    await hands.db.execute(
        f"ALTER TABLE dispatcher.batch ADD CONSTRAINT odd CHECK ({check.format(id=first)})"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await hands.claim()
    wanted = ClaimRequest("default", sender="csms100000001")
    assert await set_aside(hands.database, hands.id, wanted, arrange=arrange) == first
    row = await hands.db.fetchrow("SELECT * FROM dispatcher.queue WHERE id = $1", first)
    assert (row["code"], row["attempt"]) == ("write-refused", spent)
    [batch] = await hands.claim()
    assert first not in {message.id for message in batch.messages}


async def is_set_aside(db, message: int) -> bool:
    return (await of_each(db, [message]))[message]["code"] == "write-refused"


async def test_an_outcome_that_is_refused_lets_others_pass(db, workers, sim):
    """A trigger refuses that a message expires: the others of its app are sent."""
    ids = await insert(db, 5, lifetime=0.001)
    others = await insert(db, 10, first=10)
    await db.execute(
        f"ALTER TABLE dispatcher.outcome ADD CONSTRAINT odd CHECK (message_id <> {ids[2]})"
    )
    worker = await workers.start(sim.url)
    await until(lambda: states_are(db, others, "accepted"), what="the others are sent")
    await until(lambda: is_set_aside(db, ids[2]), what="the refused one is set aside")
    await db.execute("ALTER TABLE dispatcher.outcome DROP CONSTRAINT odd")
    await let_pass(db, 600.0)
    await until(lambda: finished(db), what="everything is finished")
    assert await states(db) == {"accepted": 10, "expired": 5}
    assert worker.code is None


async def test_a_refused_answer_is_not_sent_again_by_policy(hands):
    """The provider answered, and may have accepted all of it."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.db.execute("ALTER TABLE dispatcher.outcome ADD CONSTRAINT odd CHECK (false)")
    verdict = Resolved([Accepted(message, f"id-{message.id}", 1) for message in batch.messages])
    assert await hands.record(batch, verdict)
    assert await hands.batches() == [("unsure", "not-recorded")]
    await hands.db.execute("ALTER TABLE dispatcher.outcome DROP CONSTRAINT odd")
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    assert await states(hands.db) == {"unsure": 3}


REFUSE_CLOSING = (
    "CREATE FUNCTION public.refuse_closing() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
    "CREATE TRIGGER refuse BEFORE UPDATE ON dispatcher.batch FOR EACH ROW"
    " WHEN (NEW.app = 'default') EXECUTE FUNCTION public.refuse_closing()"
)


async def test_a_result_refused_in_every_form_is_returned(hands):
    await hands.begin()
    results = []
    for app in ("default", "other"):
        [batch] = await batches_of(hands, app)
        outcomes = [Accepted(message, f"id-{message.id}", 1) for message in batch.messages]
        results.append(
            BatchResult(batch, Resolved(outcomes), 200, "000000", "", tries=1, seconds=0.1)
        )
    await hands.db.execute(REFUSE_CLOSING)
    recorded = await record(hands.database, hands.id, results)
    refused, written = (result.batch for result in results)
    assert (recorded.written, recorded.refused) == ({written.token}, {refused.id})


async def test_a_refused_answer_to_an_unsure_request_is_kept(hands):
    """It was unsure before, so nothing is left to write: only the answer can settle it."""
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute("ALTER TABLE dispatcher.outcome ADD CONSTRAINT odd CHECK (false)")
    outcomes = [Accepted(message, f"id-{message.id}", 1) for message in batch.messages]
    late = BatchResult(batch, Resolved(outcomes), 200, "000000", "", tries=1, seconds=0.1)
    recorded = await record(hands.database, hands.id, [late])
    assert (recorded.written, recorded.refused) == (set(), {batch.id})


async def test_a_late_answer_is_kept_if_its_row_takes_no_change(hands):
    """Not even the mark that it was answered can be written."""
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute(REFUSE_CLOSING)
    outcomes = [Accepted(message, f"id-{message.id}", 1) for message in batch.messages]
    late = BatchResult(batch, Resolved(outcomes), 200, "000000", "", tries=1, seconds=0.1)
    recorded = await record(hands.database, hands.id, [late])
    assert (recorded.written, recorded.refused) == (set(), {batch.id})
    await hands.db.execute("DROP TRIGGER refuse ON dispatcher.batch")
    assert (await record(hands.database, hands.id, [late])).written == {batch.token}
    assert await states(hands.db) == {"accepted": 3}


async def test_a_refused_late_answer_keeps_the_policy_away(hands):
    """Its request was unsure, as one of a lost worker; the provider may have accepted all of it."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(3)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute("ALTER TABLE dispatcher.outcome ADD CONSTRAINT odd CHECK (false)")
    answer = Resolved([Accepted(message, f"id-{message.id}", 1) for message in batch.messages])
    assert not await hands.record(batch, answer)
    assert await hands.batches() == [("unsure", "not-recorded")]
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    await hands.db.execute("ALTER TABLE dispatcher.outcome DROP CONSTRAINT odd")
    assert await hands.record(batch, answer)
    assert await states(hands.db) == {"accepted": 3}


async def batches_of(hands, app: str) -> list[Batch]:
    await register_app(
        hands.database, app, numbers_per_second=None, on_unsure="hold", resend_after=3600.0
    )
    await hands.insert(2, app=app)
    return await hands.claim(app=app)


async def all_accepted(db: asyncpg.Connection, count: int) -> bool:
    return await states(db) == {"accepted": count}


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True], ids=["runs on", "is restarted"])
async def test_an_answer_refused_in_every_form_is_kept(db, workers, sim, stops):
    """A trigger refuses that its request is closed at all: it waits, and no other does."""
    await db.execute(REFUSE_CLOSING)
    await insert(db, 6)
    elsewhere = await insert(db, 3, first=100, app="other")
    apps = {"default": app_at(sim.url), "other": app_at(sim.url)}
    worker = await workers.start(apps)
    await until(lambda: states_are(db, elsewhere, "accepted"), what="the other app is sent")
    await until(lambda: "the database refuses them" in worker.text(), what="an answer is refused")
    assert await states(db) == {"accepted": 3, "sending": 6}
    if stops:
        worker.terminate()
        assert await worker.ended() == 0
        assert "answers kept on disk" in worker.text()
        worker = await workers.start(apps)
        await until(lambda: "the database refuses them" in worker.text(), what="it is read")
    await db.execute("DROP TRIGGER refuse ON dispatcher.batch")
    await until(lambda: all_accepted(db, 9), what="all answers are written")
    assert sim.ledger.numbers == 9
    assert worker.code is None


@pytest.mark.slow
async def test_results_that_are_all_refused_open_the_circuit(db, workers, sim):
    """A trigger of the application refuses every outcome: few messages become unsure."""
    await db.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON dispatcher.outcome FOR EACH ROW"
        " EXECUTE FUNCTION public.refuse()"
    )
    await insert(db, 1500)
    worker = await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await until(
        lambda: db.fetchval("SELECT pause_code = 'unknown-results' FROM dispatcher.app"),
        what="the circuit opens",
    )
    await db.execute("DROP TRIGGER refuse ON dispatcher.outcome")
    await until(lambda: all_out(db), deadline=60, what="the others are sent")
    ended = await states(db)
    assert ended.keys() == {"accepted", "unsure"}
    assert ended["unsure"] <= 800  # of 1,500
    assert worker.code is None


async def all_out(db) -> bool:
    """Let ten seconds pass, and tell whether all is done."""
    await let_pass(db, 10.0)
    return await finished(db)
