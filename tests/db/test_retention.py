"""What is old and over leaves, whole partitions at a time; what is open stays, however old."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db import maintenance, operator
from dispatcher.db.database import connect
from dispatcher.db.dsn import read_address
from dispatcher.db.reports import register_statuses
from dispatcher.db.workers import register_app, resend_unsure

DAY = 86_400.0
SIZE = 5_000_000
INSERT = "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('13100000000', 't')"


@pytest.fixture
async def old_page(db, rows) -> list[int]:
    """A full partition with three messages that are over since 40 days, and all that is theirs."""
    ids = await rows.messages(3)
    await db.execute("UPDATE dispatcher.message SET idempotency_key = 'key ' || id, params = '{1}'")
    await db.execute(
        "INSERT INTO dispatcher.idempotency SELECT app, idempotency_key, id FROM dispatcher.message"
    )
    for message in ids:
        await rows.outcome(message, "accepted", provider_id=f"p{message}", batch_id=1)
        await rows.report(f"p{message}", "DELIVRD", "delivered")
    await full(db)
    await age(db, 40)
    return ids


async def full(db) -> None:
    await db.execute(f"SELECT setval('dispatcher.message_id', {SIZE})")


async def age(db, days: int) -> None:
    for column in (
        "message.queued_at",
        "outcome.created_at",
        "batch.opened_at",
        "batch.closed_at",
        "event.created_at",
        "event_count.minute",
        "unmatched_report.first_seen_at",
        "worker.heartbeat_at",
        "worker.started_at",
        "worker.stopped_at",
    ):
        table, name = column.split(".")
        await db.execute(
            f"UPDATE dispatcher.{table} SET {name} = {name} - make_interval(days => $1)", days
        )


async def drop_all(database, retention: float) -> int:
    steps = 0
    while await maintenance.drop_old(database, retention):
        steps += 1
        assert steps < 1000
    return steps


async def count(db, table: str) -> int:
    return await db.fetchval(f"SELECT count(*) FROM dispatcher.{table}")


@pytest.mark.usefixtures("old_page")
async def test_a_full_partition_that_is_over_leaves_with_its_reports_and_keys(db, database):
    await db.execute("SELECT dispatcher.enqueue('13100000133', 't', idempotency_key => 'young')")
    assert await drop_all(database, 30 * DAY) > 1
    assert [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.message")] == [SIZE + 1]
    for table in ("outcome", "report", "maintenance_progress"):
        assert await count(db, table) == 0, table
    assert await db.fetchval("SELECT key FROM dispatcher.idempotency") == "young"
    assert await db.fetchval("SELECT to_regclass('dispatcher.message_1_to_5000001')") is None
    assert await db.fetchval("SELECT to_regclass('dispatcher.outcome_1_to_5000001')") is None
    assert await drop_all(database, 30 * DAY) == 0


@pytest.mark.usefixtures("old_page")
async def test_what_is_younger_than_the_retention_stays(db, database):
    assert await drop_all(database, 41 * DAY) == 0
    assert await count(db, "message") == 3


async def test_a_late_outcome_keeps_its_partition(db, database, old_page):
    await db.execute(
        "UPDATE dispatcher.outcome SET created_at = now() WHERE message_id = $1", old_page[0]
    )
    assert await drop_all(database, 30 * DAY) == 0


async def test_a_late_message_keeps_its_partition(db, database, old_page):
    # Not the last one: transactions commit in another order than they took their ids.
    await db.execute("UPDATE dispatcher.message SET queued_at = now() WHERE id = $1", old_page[0])
    assert await drop_all(database, 30 * DAY) == 0


@pytest.mark.usefixtures("old_page")
async def test_a_partition_that_is_still_being_filled_stays(db, database):
    await db.execute(f"SELECT setval('dispatcher.message_id', {SIZE - 1})")
    assert await drop_all(database, 30 * DAY) == 0


@pytest.mark.parametrize("how", ["queued", "open", "unsure", "without an outcome"])
async def test_whatever_is_open_keeps_its_partition(db, database, rows, how):
    ids = await rows.messages(2)
    await rows.outcome(ids[0], "accepted")
    match how:
        case "queued":
            pass
        case "without an outcome":
            await db.execute("DELETE FROM dispatcher.queue")
        case _:
            await rows.batch([ids[1]], state=how)
    await full(db)
    await age(db, 40)
    assert await drop_all(database, 30 * DAY) == 0
    assert await count(db, "message") == 2


async def test_an_open_message_of_an_older_partition_does_not_keep_a_younger_one(
    db, database, rows
):
    await rows.messages(1)
    await full(db)
    (second,) = await rows.messages(1)
    await rows.outcome(second, "accepted")
    await db.execute(f"SELECT setval('dispatcher.message_id', {2 * SIZE})")
    await age(db, 40)
    assert await drop_all(database, 30 * DAY) > 0
    assert [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.message")] == [1]


@pytest.mark.usefixtures("old_page")
async def test_a_message_that_is_sent_again_meanwhile_stops_the_dropping(db, database):
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected' WHERE message_id = 1")
    assert await maintenance.drop_old(database, 30 * DAY) == 1  # its first step
    assert await db.fetchval("SELECT dispatcher.requeue(ARRAY[1])") == 1
    assert await drop_all(database, 30 * DAY) == 0
    assert await count(db, "message") == 3


@pytest.mark.usefixtures("old_page")
async def test_so_does_one_that_is_sent_and_over_since(db, database, rows):
    """Its new outcome is kept as long as any other."""
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected' WHERE message_id = 1")
    assert await maintenance.drop_old(database, 30 * DAY) == 1
    assert await db.fetchval("SELECT dispatcher.requeue(ARRAY[1])") == 1
    await rows.outcome(1, "accepted", provider_id="p1")
    assert await drop_all(database, 30 * DAY) == 0
    assert await count(db, "message") == 3
    await age(db, 40)
    assert await drop_all(database, 30 * DAY) > 0
    assert await count(db, "message") == 0


@pytest.mark.usefixtures("old_page")
@pytest.mark.parametrize("state", ["open", "unsure"])
async def test_so_does_one_that_is_on_its_way_again(db, database, rows, state):
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected' WHERE message_id = 1")
    assert await maintenance.drop_old(database, 30 * DAY) == 1
    assert await db.fetchval("SELECT dispatcher.requeue(ARRAY[1])") == 1
    await rows.batch([1], state=state)
    assert await drop_all(database, 30 * DAY) == 0
    assert await count(db, "message") == 3


@pytest.mark.usefixtures("old_page")
async def test_a_reader_of_everything_is_not_waited_for(db, dsn, database):
    reader = await connect(dsn)
    async with reader.transaction():
        await reader.execute("SELECT FROM dispatcher.message")
        async with asyncio.timeout(60):
            await drop_all(database, 30 * DAY)
        assert await count(db, "message") == 3
        assert await db.execute("SELECT dispatcher.enqueue('13100000133', 't')")
    assert await drop_all(database, 30 * DAY) > 0
    assert await count(db, "message") == 1
    await reader.close()


@pytest.mark.usefixtures("old_page")
async def test_two_keepers_do_not_get_into_each_others_way(dsn, database):
    rival = await connect(dsn)
    async with rival.transaction():
        await rival.execute("SELECT dispatcher.try_maintenance_lock()")
        assert await drop_all(database, 30 * DAY) == 0
        assert await maintenance.prune(database, 30 * DAY) == 0
        assert await maintenance.wipe_params(database, DAY) == 0
        assert await maintenance.start_partition_early(database, 30 * DAY) == 0
    await rival.close()
    assert await drop_all(database, 30 * DAY) > 0


async def test_what_lies_in_no_partition_leaves_by_rows(db, database, rows):
    await db.execute("SELECT setval('dispatcher.message_id', 100000000)")
    ids = await rows.messages(4)
    for message in ids[:2]:
        await rows.outcome(message, "accepted", provider_id=f"p{message}")
        await rows.report(f"p{message}", "DELIVRD", "delivered")
    await rows.batch([ids[2]], state="unsure", token="unsure")
    await rows.batch([ids[0]], state="closed", token="closed")
    await db.execute("UPDATE dispatcher.batch SET closed_at = now() WHERE state = 'closed'")
    await db.execute("SELECT dispatcher.append_event('accepted', '', '{default}', '{1}')")
    await db.execute("UPDATE dispatcher.event SET last_position = 1")
    await db.execute("SELECT dispatcher.count_event('accepted', '', '{default}')")
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at, stopped_at)"
        " VALUES ('h', 1, '1', '{}', '1 min', now() - interval '2 min', NULL),"
        " ('h', 2, '1', '{}', '1 min', now(), now())"
    )
    await rows.report("nobody", "DELIVRD", "delivered")
    await db.execute(
        "INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason)"
        " VALUES ('nobody', 1, 'x')"
    )
    await age(db, 40)
    while await maintenance.prune(database, 30 * DAY):
        pass
    left = [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.message ORDER BY id")]
    assert left == ids[2:]  # what is open stays, however old
    assert [row["state"] for row in await db.fetch("SELECT state FROM dispatcher.batch")] == [
        "unsure"
    ]
    for table in ("outcome", "report", "unmatched_report", "event", "event_count", "worker"):
        assert await count(db, table) == 0, table


async def prune_all(database, retention: float = 30 * DAY) -> None:
    while await maintenance.prune(database, retention):
        pass


async def test_a_jump_of_the_clock_deletes_no_worker_that_lives(db, database):
    """Each looks as old as the jump is long, until its next heartbeat."""
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, started_at, heartbeat_at)"
        " VALUES ('died', 1, '1', '{}', '1 min', now() - interval '9 d', now() - interval '2 h'),"
        " ('lives', 1, '1', '{}', '1 min', now() - interval '8 days', now()),"
        " ('lives', 2, '1', '{}', '1 min', now() - interval '1 h', now())"
    )
    await age(db, 40)
    await prune_all(database)
    left = await db.fetch("SELECT host, pid FROM dispatcher.worker ORDER BY pid")
    assert [tuple(row) for row in left] == [("lives", 1), ("lives", 2)]


@pytest.mark.parametrize("by", ["policy: resend", "operator: resend"])
@pytest.mark.parametrize("place", ["queue", "open", "unsure"])
async def test_a_given_up_request_stays_while_its_messages_wait(db, database, rows, by, place):
    """By it a late answer or report takes them back: else they are sent a second time."""
    ids = await rows.messages(3)
    await rows.batch(ids, state="closed", token="given up")
    await db.execute("UPDATE dispatcher.batch SET settled_by = $1, closed_at = now()", by)
    await age(db, 40)
    if place == "queue":
        await db.execute(
            "INSERT INTO dispatcher.queue (id, app, priority, due_at)"
            " VALUES ($1, 'default', 5, now())",
            ids[2],
        )
    else:
        await rows.batch([ids[2]], state=place, token="again")
    given_up = "SELECT count(*) FROM dispatcher.batch WHERE token = 'given up'"
    await prune_all(database)
    assert await db.fetchval(given_up) == 1
    await rows.outcome(ids[2], "accepted")
    await db.execute(
        "UPDATE dispatcher.batch SET state = 'closed', closed_at = now() WHERE token = 'again'"
    )
    await prune_all(database)
    assert await db.fetchval(given_up) == 0


async def test_a_given_up_request_stays_as_long_as_reports_come(db, database, rows):
    """They come for 72 hours, whatever the retention is."""
    ids = await rows.messages(3)
    hours = {
        "given up": (79, "policy: resend"),
        "long ago": (81, "policy: resend"),
        "other": (79, None),
    }
    for message, (token, (ago, by)) in zip(ids, hours.items(), strict=True):
        await rows.batch([message], state="closed", token=token)
        await db.execute(
            "UPDATE dispatcher.batch SET opened_at = now() - make_interval(hours => $2),"
            " closed_at = now() - make_interval(hours => $2), settled_by = $3 WHERE token = $1",
            token,
            ago,
            by,
        )
    await prune_all(database, DAY)
    assert await db.fetchval("SELECT token FROM dispatcher.batch") == "given up"


@pytest.mark.parametrize("requeued", [True, False])
async def test_a_report_of_an_unsure_request_stays(db, database, rows, requeued):
    """It alone keeps the policy `resend` from sending the other message again."""
    await register_app(
        database, "default", numbers_per_second=None, on_unsure="resend", resend_after=0.0
    )
    await register_statuses(database)
    await db.execute("SELECT setval('dispatcher.message_id', 100000000)")
    ids = await rows.messages(2)
    batch = await rows.batch(ids, state="unsure", token="unsure")
    await rows.outcome(ids[0], "accepted", provider_id="p1", batch_id=batch)
    await rows.report("p1", "E000629", "undelivered")
    await db.execute("UPDATE dispatcher.report SET token = 'unsure'")
    if requeued:
        assert await db.fetchval("SELECT dispatcher.requeue($1)", ids[:1]) == 1
    await age(db, 40)
    await prune_all(database)
    await db.execute("UPDATE dispatcher.batch SET unsure_at = now() - interval '1 day'")
    assert await resend_unsure(database, 1) == (0, 0)
    await db.execute("SELECT dispatcher.settle('unsure', 'sent')")
    await prune_all(database)
    for table in ("report", "unmatched_report"):
        assert await count(db, table) == 0, table


async def test_an_unreadable_push_of_an_unsure_request_stays(db, database, rows):
    """It alone keeps the policy `resend` from sending the message again; `forget` empties it."""
    await register_app(
        database, "default", numbers_per_second=None, on_unsure="resend", resend_after=0.0
    )
    await db.execute("SELECT setval('dispatcher.message_id', 100000000)")
    await rows.batch(await rows.messages(1), state="unsure", token="unsure")
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push"
        " (digest, body, content_type, reason, tokens, last_at)"
        " SELECT d, 'to=13112345678', '', '', ARRAY[t], now() - interval '40 days'"
        " FROM (VALUES ('a'::bytea, 'unsure'), ('b', 'other')) AS v (d, t)"
    )
    await prune_all(database)
    assert await db.fetchval("SELECT array_agg(digest) FROM dispatcher.unreadable_push") == [b"a"]
    await operator.forget(db, "me", "+8613112345678")
    kept = await db.fetch(
        "SELECT body, tokens, read_at IS NULL AS listed FROM dispatcher.unreadable_push"
    )
    assert [tuple(row) for row in kept] == [(b"", ["unsure"], False)]
    await db.execute("UPDATE dispatcher.batch SET unsure_at = now() - interval '1 day'")
    assert await resend_unsure(database, 1) == (0, 0)
    await db.execute("SELECT dispatcher.settle('unsure', 'sent')")
    await prune_all(database)
    assert await count(db, "unreadable_push") == 0


async def old_rest(db, rows, count: int) -> list[int]:
    """Write rejected messages that lie in no partition and are over since 40 days."""
    await db.execute("SELECT setval('dispatcher.message_id', 100000000)")
    ids = await rows.messages(count)
    for message in ids:
        await rows.outcome(message, "rejected", code="E200028")
    await age(db, 40)
    return ids


async def test_a_message_that_is_being_requeued_is_not_pruned(db, dsn, database, rows):
    """It would wait without its row, and the next claim would drop it."""
    ids = await old_rest(db, rows, 2)
    operator = await connect(dsn)
    requeue = operator.transaction()
    await requeue.start()
    assert await operator.fetchval("SELECT dispatcher.requeue($1)", ids[1:]) == 1
    pruning = asyncio.create_task(prune_all(database))
    await asyncio.wait({pruning}, timeout=1)  # it waits for nobody
    await requeue.commit()
    await pruning
    await operator.close()
    assert [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.message")] == ids[1:]
    assert [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.queue")] == ids[1:]


async def test_a_requeue_during_a_prune_finds_nothing(db, dsn, database, rows):
    ids = await old_rest(db, rows, 2)
    await db.execute("ALTER FUNCTION dispatcher.prune SET lock_timeout = '1min'")
    await db.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN OLD; END';"
        "CREATE TRIGGER hold BEFORE DELETE ON dispatcher.message_rest"
        " FOR EACH ROW EXECUTE FUNCTION hold()"
    )
    operator = await connect(dsn)
    await db.execute("SELECT pg_advisory_lock(7)")
    pruning = asyncio.create_task(prune_all(database))
    await wait_for_lock(db, "prune")
    requeue = asyncio.create_task(operator.fetchval("SELECT dispatcher.requeue($1)", ids[1:]))
    await asyncio.wait({requeue}, timeout=0.5)
    await db.execute("SELECT pg_advisory_unlock(7)")
    await pruning
    assert await requeue == 0
    await operator.close()
    assert (await count(db, "message"), await count(db, "queue")) == (0, 0)


async def test_a_batch_stays_as_long_as_an_event_names_it(db, database, rows):
    ids = await rows.messages(1)
    await rows.batch(ids, state="closed")
    await db.execute("UPDATE dispatcher.batch SET closed_at = now()")
    await db.execute(
        "INSERT INTO dispatcher.event (app, event, batch_id, message_count)"
        " SELECT 'default', 'accepted', id, 1 FROM dispatcher.batch"
    )
    await age(db, 40)
    assert (
        await maintenance.prune(database, 30 * DAY) == 0
    )  # it has no place yet, so nobody has read it
    assert await count(db, "batch") == 1


async def test_young_rows_stay(db, database, rows):
    ids = await rows.messages(2)
    await rows.batch([ids[0]], state="closed")
    await rows.outcome(ids[1], "accepted")
    await db.execute("SELECT dispatcher.count_event('accepted', '', '{default}')")
    assert await maintenance.prune(database, 3600) == 0


async def test_a_partition_is_ended_before_it_is_full_where_little_is_sent(db, database, rows):
    await rows.messages(1)
    assert await maintenance.start_partition_early(database, 40 * DAY) == 0
    await age(db, 6)
    assert await maintenance.start_partition_early(database, 40 * DAY) == 1
    assert await maintenance.start_partition_early(database, 40 * DAY) == 0
    (second,) = await rows.messages(1)
    assert second == SIZE + 1
    assert await count(db, "message_rest") == 0


async def test_no_partition_is_begun_while_an_insert_is_open(db, dsn, database, rows):
    """An id that it takes after the look at the sequence would be given a second time."""
    await rows.messages(1)
    await age(db, 6)
    application = await connect(dsn)
    async with application.transaction():
        await application.execute(INSERT)
        assert await maintenance.start_partition_early(database, 40 * DAY) == 0
    assert await maintenance.start_partition_early(database, 40 * DAY) == 1
    await application.close()


async def test_no_id_is_taken_while_a_partition_is_begun(db, dsn, rows):
    await rows.messages(1)
    await age(db, 6)
    application = await connect(dsn)
    async with db.transaction():
        assert await db.fetchval("SELECT dispatcher.start_partition_early('5 days')")
        await application.execute("SET lock_timeout = '100ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await application.execute(INSERT)
    assert await application.fetchval(f"{INSERT} RETURNING id") == SIZE + 1
    await application.close()


@pytest.mark.parametrize("seconds", [0, 3599])
async def test_no_mistake_in_a_setting_empties_the_tables(database, seconds):
    for act in (maintenance.drop_old, maintenance.prune):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await act(database, seconds)
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await maintenance.wipe_params(database, 59)


async def test_variables_are_wiped_of_what_is_over_and_long_enough(db, database, rows):
    ids = await rows.messages(4)
    await db.execute("UPDATE dispatcher.message SET params = '{062569}'")
    await rows.outcome(ids[0], "accepted")
    await rows.outcome(ids[1], "rejected", code="E200028")
    await age(db, 1)
    await rows.outcome(ids[2], "accepted")  # queued long ago, over since now
    while await maintenance.wipe_params(database, 3600):
        pass
    params = "SELECT params FROM dispatcher.message ORDER BY id"
    assert [row["params"] for row in await db.fetch(params)] == [[], [], ["062569"], ["062569"]]

    await age(db, 1)
    await rows.outcome(ids[3], "accepted")
    while await maintenance.wipe_params(database, 3600):
        pass
    assert [row["params"] for row in await db.fetch(params)] == [[], [], [], ["062569"]]
    assert [row[0] for row in await db.fetch("SELECT * FROM dispatcher.pending_wipe")] == [ids[3]]


async def test_what_a_long_transaction_brought_late_is_wiped_a_day_later(db, database, rows):
    ids = await rows.messages(3)
    await db.execute("UPDATE dispatcher.message SET params = '{062569}'")
    for message in ids:
        await rows.outcome(message, "accepted")
    await age(db, 1)
    while await maintenance.wipe_params(database, 3600):
        pass
    await db.execute("UPDATE dispatcher.message SET params = '{late}' WHERE id = $1", ids[1])
    assert await maintenance.wipe_params(database, 3600) == 0
    await age(db, 1)
    while await maintenance.wipe_params(database, 3600):
        pass
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message WHERE params <> '{}'") == 0


async def test_a_wiped_message_is_never_sent_again(db, database, rows):
    ids = await rows.messages(2)
    await db.execute("UPDATE dispatcher.message SET params = '{062569}' WHERE id = $1", ids[0])
    for message in ids:
        await rows.outcome(message, "rejected", code="E200028")
    await age(db, 1)
    while await maintenance.wipe_params(database, 3600):
        pass
    # The second had no variables that it could miss.
    assert await db.fetchval("SELECT dispatcher.requeue($1)", ids) == 1
    assert [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.queue")] == [ids[1]]


async def test_a_message_that_was_claimed_again_keeps_its_variables(db, rows):
    """It is neither in the queue nor finished, and may return to the queue."""
    ids = await rows.messages(2)
    await rows.outcome(ids[0], "accepted")
    await rows.batch([ids[1]], state="open")
    with pytest.raises(asyncpg.SerializationError):
        await db.execute("SELECT dispatcher.wipe($1)", ids)
    await db.execute("SELECT dispatcher.wipe($1)", ids[:1])


async def test_a_message_that_was_claimed_again_is_not_erased(db, rows):
    (message,) = await rows.messages(1)
    await rows.outcome(message, "rejected", code="E200028")
    number = await db.fetchval("SELECT recipient FROM dispatcher.message")
    await db.execute(
        "CREATE FUNCTION requeue_and_claim() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN DELETE FROM dispatcher.outcome; RETURN NEW; END';"
        "CREATE TRIGGER at_this_moment BEFORE UPDATE ON dispatcher.message"
        " FOR EACH ROW EXECUTE FUNCTION requeue_and_claim()"
    )
    with pytest.raises(asyncpg.SerializationError):
        await operator.forget(db, "Ana", number)
    assert await db.fetchval("SELECT recipient FROM dispatcher.message") == number


async def test_a_message_sent_again_at_this_moment_keeps_its_variables(db, dsn, database, rows):
    ids = await rows.messages(1)
    await db.execute("ALTER FUNCTION dispatcher.wipe_params SET lock_timeout = '1min'")
    await db.execute("UPDATE dispatcher.message SET params = '{062569}'")
    await rows.outcome(ids[0], "rejected", code="E200028")
    await age(db, 1)
    operator = await connect(dsn)
    transaction = operator.transaction()
    await transaction.start()
    assert await operator.fetchval("SELECT dispatcher.requeue($1)", ids) == 1
    wiping = asyncio.create_task(maintenance.wipe_params(database, 3600))
    async with asyncio.timeout(60):
        while not await db.fetchval(  # noqa: ASYNC110 - PostgreSQL has no event for it
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
    await transaction.commit()
    assert await wiping == 0
    assert await db.fetchval("SELECT params FROM dispatcher.message") == ["062569"]
    await operator.close()


async def test_a_person_is_exported_and_erased_and_that_is_written_down(db, database, rows):
    await register_statuses(database)
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params, reference) VALUES"
        " ('+8613112345678', 't', '{1}', 'a'), ('13112345678', 't', '{2}', 'b'),"
        " ('+8613112345678', 't', '{3}', 'c'), ('+8613100000000', 't', '{4}', 'd')"
    )
    await rows.outcome(1, "accepted", provider_id="p1")
    await rows.report("p1", "DELIVRD", "delivered")
    await db.execute("UPDATE dispatcher.report SET recipient = '13112345678', raw = '{\"a\": 1}'")
    await rows.batch([3], state="unsure")

    kept = await operator.export(db, "+8613112345678")
    assert len(kept) == 3
    assert "DELIVRD" in kept[0]

    done = await operator.forget(db, "me", "13112345678")
    assert (done.erased, done.left) == ([1, 2], [3])
    seen = await db.fetch("SELECT recipient, params, reference FROM dispatcher.message ORDER BY id")
    assert [tuple(row) for row in seen] == [
        ("0", [], None),
        ("0", [], None),
        ("+8613112345678", ["3"], "c"),
        ("+8613100000000", ["4"], "d"),
    ]
    assert await db.fetchval("SELECT recipient IS NULL AND raw IS NULL FROM dispatcher.report")
    assert (
        await db.fetchval("SELECT state FROM dispatcher.message_status WHERE id = 2") == "cancelled"
    )
    (entry,) = await db.fetch("SELECT * FROM dispatcher.audit")
    assert (entry["actor"], entry["action"], entry["detail"]) == ("me", "forget", "1 2")
    assert "1311234" not in str(entry)


WRITTEN = {
    "+8613112345678": (
        "+8613112345678",
        "13112345678",
        "8613112345678",
        "008613112345678",
        "+86 131-1234-5678",
        " 8613112345678",
        "+86 (0)131 1234 5678",
        "013112345678",
        "\uff0b86\uff11\uff13112345678",
    ),
    "+447700900123": ("+447700900123", "447700900123", "00447700900123", "+44 (0)7700 900123"),
    "+13122345678": ("+13122345678", "0013122345678", "+1 (312) 234-5678"),
}
OF_OTHERS = ("+13112345678", "13122345678", "+861311234567", "+86131123456780", "131****5678", "")


@pytest.mark.parametrize("number", WRITTEN)
async def test_a_person_is_erased_in_whatever_form_the_provider_wrote_the_number(db, number):
    for name in (*WRITTEN[number], *OF_OTHERS):
        await db.execute(
            "INSERT INTO dispatcher.report (provider_id, status, state, recipient, raw)"
            " VALUES ($1, 'DELIVRD', 'delivered', $1, '{}')",
            name,
        )
    await db.execute(
        "INSERT INTO dispatcher.report (provider_id, status, state, raw)"
        " VALUES ('no number', 'DELIVRD', 'delivered', '{}')"
    )
    await operator.forget(db, "me", number)
    kept = await db.fetch(
        "SELECT provider_id, recipient FROM dispatcher.report WHERE raw IS NOT NULL"
    )
    assert {row["provider_id"] for row in kept} == {*OF_OTHERS, "no number"}
    assert {row["recipient"] for row in kept} == {*OF_OTHERS, None}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b"to=%2B8613112345678", 0),
        (b"to=131+1234+5678&status", 0),
        (b'{"to": "131-1234\xc2\xa05678"', 0),
        ('{"to": "13112345678"'.encode("utf-16-le"), 0),
        (b"to=%2B86131%201234%205678", 0),
        (b"to=1311234567", 1),
        (b"from=131&to=12345678", 1),
    ],
)
async def test_an_unreadable_push_that_names_a_person_is_erased(db, body, left):
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, body, content_type, reason)"
        " VALUES ('d', $1, '', '')",
        body,
    )
    await operator.forget(db, "me", "+8613112345678")
    assert await count(db, "unreadable_push") == left


async def test_a_reply_whose_number_lacked_its_plus_is_erased(db):
    numbers = ["+447700900123", "+86447700900123", "+8613112345678"]
    await db.execute(
        "INSERT INTO dispatcher.reply (digest, app, number, text, unsubscribed, raw)"
        " SELECT convert_to(n, 'UTF8'), '', n, '', false, '{}' FROM unnest($1::text[]) AS n",
        numbers,
    )
    await operator.forget(db, "me", numbers[0])
    kept = await db.fetch("SELECT number FROM dispatcher.reply")
    assert [row["number"] for row in kept] == numbers[2:]


@pytest.mark.usefixtures("old_page")
async def test_ids_that_nobody_had_cost_no_step(database):
    assert await drop_all(database, 30 * DAY) == 4  # two to begin, all of it at once, the partition


@pytest.mark.usefixtures("old_page")
async def test_a_foreign_key_keeps_its_partition_and_is_named(db, database):
    await db.execute(
        "CREATE TABLE public.orders (message_id bigint REFERENCES dispatcher.message (id))"
    )
    await db.execute("INSERT INTO public.orders SELECT id FROM dispatcher.message")
    for _ in range(2):
        with pytest.raises(StatementRefused, match=r"orders_message_id_fkey of table .*orders"):
            await maintenance.drop_old(database, 30 * DAY)
    assert await count(db, "message") == 3
    assert await count(db, "report") == 3
    await db.execute("ALTER TABLE public.orders DROP CONSTRAINT orders_message_id_fkey")
    assert await drop_all(database, 30 * DAY) > 1
    assert await count(db, "message") == 0


@pytest.mark.usefixtures("old_page")
async def test_a_view_onto_a_partition_keeps_it(db, database):
    await db.execute("CREATE VIEW public.old AS TABLE dispatcher.message_1_to_5000001")
    await drop_all(database, 30 * DAY)
    assert await count(db, "message") == 3


async def wait_for_lock(db, what: str) -> None:
    async with asyncio.timeout(60):
        while not await db.fetchval(  # noqa: ASYNC110 - PostgreSQL has no event for it
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND query LIKE $1",
            f"%{what}%",
        ):
            await asyncio.sleep(0.01)


async def rejected_page(db, old_page) -> None:
    """Let a step have removed all reports and keys of the old page, so that the drop is next."""
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected', code = 'E200028'")
    await db.execute(
        "INSERT INTO dispatcher.maintenance_progress (task, partition, position)"
        f" VALUES ('drop', 1, {SIZE + 1}) ON CONFLICT DO NOTHING"
    )
    assert old_page


async def test_a_requeue_under_way_keeps_its_partition(db, dsn, old_page, database):
    await rejected_page(db, old_page)
    # It waits 200 ms for the tables: too short to be sure to be seen.
    step = await db.fetchval("SELECT pg_get_functiondef('dispatcher.drop_step'::regproc)")
    assert "'200ms'" in step
    await db.execute(step.replace("'200ms'", "'30s'"))
    operator = await connect(dsn)
    transaction = operator.transaction()
    await transaction.start()
    assert await operator.fetchval("SELECT dispatcher.requeue($1)", old_page[:1]) == 1
    dropping = asyncio.create_task(drop_all(database, 30 * DAY))
    await wait_for_lock(db, "drop_step")
    await transaction.commit()
    with suppress(DatabaseUnavailable):  # its lock time-out
        await dropping
    await drop_all(database, 30 * DAY)
    assert await count(db, "message") == 3
    assert await db.fetchval("SELECT id FROM dispatcher.queue") == old_page[0]
    await operator.close()


async def test_a_requeue_that_saw_no_drop_begin_ends_it(db, dsn, rows, old_page, database):
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected', code = 'E200028'")
    operator = await connect(dsn)
    transaction = operator.transaction()
    await transaction.start()
    assert await operator.fetchval("SELECT dispatcher.requeue($1)", old_page[:1]) == 1
    assert await maintenance.drop_old(database, 30 * DAY) == 1  # the drop begins
    assert await maintenance.drop_old(database, 30 * DAY) == 0  # and waits for the requeue
    await transaction.commit()
    await operator.close()
    await db.execute("DELETE FROM dispatcher.queue")
    await rows.outcome(old_page[0], "accepted")
    assert await drop_all(database, 30 * DAY) == 1
    assert (await count(db, "message"), await count(db, "report")) == (3, 3)
    assert await count(db, "maintenance_progress") == 0


async def test_no_requeue_waits_while_a_drop_looks_or_deletes(db, old_page, database):
    """Reading five million messages takes seconds, and so do the first deletes."""
    await db.execute(
        "CREATE FUNCTION no_requeue_waits() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'ExclusiveLock'"
        " AND locktype = 'advisory'"
        " AND objid::bigint = hashtext('dispatcher.requeue')::bigint & 4294967295)"
        " THEN RAISE 'a requeue waits'; END IF; END $$;"
        "CREATE FUNCTION before_delete() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM public.no_requeue_waits(); RETURN OLD; END';"
        "CREATE TRIGGER looks BEFORE DELETE ON dispatcher.report"
        " FOR EACH ROW EXECUTE FUNCTION before_delete();"
        "CREATE OR REPLACE FUNCTION dispatcher.has_open_messages(first bigint, past bigint)"
        " RETURNS boolean LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM public.no_requeue_waits(); RETURN false; END'"
    )
    assert await count(db, "report") == len(old_page)
    assert await drop_all(database, 30 * DAY) == 4
    assert await count(db, "report") == 0


async def test_a_requeue_during_the_drop_finds_nothing(db, dsn, old_page, database):
    await rejected_page(db, old_page)
    operator = await connect(dsn)
    async with database.transaction() as connection:
        dropped = await connection.fetchval("SELECT dispatcher.drop_step('30 days')")
        assert dropped.startswith("dropped ")
        requeue = asyncio.create_task(
            operator.fetchval("SELECT dispatcher.requeue($1)", old_page[:1])
        )
        await wait_for_lock(db, "dispatcher.requeue")
    assert await requeue == 0
    assert (await count(db, "message"), await count(db, "queue")) == (0, 0)
    await operator.close()


async def test_a_requeue_under_another_default_isolation_is_seen(db, dsn, old_page, database):
    name = read_address(dsn).database
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    async with database.transaction() as connection:
        assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
        await connection.execute("TABLE dispatcher.queue")  # a snapshot, were it serializable
        await db.execute(
            "INSERT INTO dispatcher.queue (id, app, priority, due_at)"
            " VALUES ($1, 'default', 5, now())",
            old_page[0],
        )
        assert await connection.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_counters_of_some_days_ago_are_kept_by_the_hour(db, database):
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, code, worker, count)"
        " SELECT date_trunc('hour', now()) - make_interval(days => d, mins => m), 'shop',"
        " 'accepted', '', m % 2, 1 FROM generate_series(3, 5) AS d, generate_series(1, 90) AS m"
    )
    steps = 0
    while await maintenance.roll_up_counts(database):
        steps += 1
    assert steps == 1
    assert await count(db, "event_count") == 90
    hours = await db.fetch("SELECT count FROM dispatcher.hour_count ORDER BY hour")
    assert sum(row["count"] for row in hours) == 180
    assert len(hours) == 4
    while await maintenance.prune(database, 3600.0):
        pass  # a short retention leaves what daily limits count
    assert await count(db, "event_count") == 90
    await db.execute("UPDATE dispatcher.hour_count SET hour = hour - interval '14 months'")
    await maintenance.roll_up_counts(database)
    assert await count(db, "hour_count") == 0


async def test_uploads_and_old_actions_are_deleted(db, database):
    await db.execute(
        "INSERT INTO dispatcher.list_upload (created_by, name, options, created_at)"
        " VALUES ('a', 'old', '{}', now() - interval '25 h'), ('a', 'new', '{}', now())"
    )
    await db.execute(
        "INSERT INTO dispatcher.message_action (created_by, action, filter, address, counts,"
        " messages, targets, created_at, started_at, finished_at)"
        " SELECT 'a', 'cancel', '', '', '[]', 1, '{1}', now() - age, started, finished FROM (VALUES"
        " (interval '2 d', NULL::timestamptz, NULL::timestamptz),"
        " (interval '2 d', now() - interval '2 d', now() - interval '2 d'),"
        " (interval '40 d', now() - interval '40 d', now() - interval '40 d'),"
        " (interval '40 d', now() - interval '40 d', NULL)) AS v (age, started, finished)"
    )
    assert await maintenance.drop_uploads(database) == 2
    assert await db.fetchval("SELECT name FROM dispatcher.list_upload") == "new"
    assert await count(db, "message_action") == 3
    while await maintenance.prune(database, 30 * DAY):
        pass
    assert await count(db, "message_action") == 1
