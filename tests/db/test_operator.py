"""What an operator does in SQL: cancel, requeue, settle, pause, resume."""

import asyncio

import asyncpg
import pytest

from dispatcher.core.errors import StatementRefused
from dispatcher.db import maintenance, operator
from dispatcher.db.database import Database, connect
from dispatcher.db.queries import sql

CANCEL = "SELECT dispatcher.cancel($1)"
REQUEUE = "SELECT dispatcher.requeue($1)"
SETTLE = "SELECT dispatcher.settle($1, $2)"


async def states(db) -> list[str]:
    return [
        row["state"]
        for row in await db.fetch("SELECT state FROM dispatcher.message_status ORDER BY id")
    ]


async def test_cancel_takes_only_what_waits_and_counts_it(db, rows):
    ids = await rows.messages(5)
    await rows.batch([ids[1]])
    await rows.batch([ids[2]], state="unsure", token="token2")
    await rows.outcome(ids[3], "accepted", provider_id="p")
    assert await db.fetchval(CANCEL, [*ids, 999]) == 2
    assert await states(db) == ["cancelled", "sending", "unsure", "accepted", "cancelled"]
    assert await rows.tally() == {("default", "cancelled", ""): 2}


@pytest.mark.parametrize(("table", "count"), [("queue", 1), ("bulk", 30)])
async def test_a_cancel_says_which_rows_a_trigger_keeps(db, rows, table, count):
    """It looked for them without end: a claim may have left them anew."""
    ids = await rows.messages(count)
    await db.execute(f"""
        CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RETURN NEW; END $$;
        CREATE TRIGGER audit BEFORE DELETE ON dispatcher.{table}
            FOR EACH ROW EXECUTE FUNCTION public.audit();
        SET statement_timeout = '60s';
    """)
    with pytest.raises(asyncpg.RaiseError, match=f"rows of dispatcher.{table} cannot be deleted"):
        await db.fetchval(CANCEL, ids)
    assert await states(db) == ["queued"] * count


async def test_cancel_twice_counts_once(db, rows):
    ids = await rows.messages(2)
    assert await db.fetchval(CANCEL, ids) == 2
    assert await db.fetchval(CANCEL, ids) == 0
    assert await db.fetchval(CANCEL, []) == 0
    assert (await rows.tally())["default", "cancelled", ""] == 2


async def test_a_message_that_is_being_claimed_is_too_late_to_cancel(db, dsn, rows, until_it_waits):
    ids = await rows.messages()
    canceller = await connect(dsn)
    async with db.transaction():
        await rows.batch(ids)
        cancelled = asyncio.create_task(canceller.fetchval(CANCEL, ids))
        await until_it_waits(db, canceller.get_server_pid())
    assert await asyncio.wait_for(cancelled, 60) == 0
    assert await states(db) == ["sending"]
    await canceller.close()


async def test_requeue_takes_back_what_was_rejected_or_expired_and_nothing_else(db, rows):
    ids = await rows.messages(6)
    for message, state in zip(
        ids[:4], ["rejected", "expired", "cancelled", "accepted"], strict=True
    ):
        await rows.outcome(message, state, code="E000001")
    await rows.batch([ids[4]])
    assert await db.fetchval(REQUEUE, ids) == 2
    assert await states(db) == [
        "queued",
        "queued",
        "cancelled",
        "accepted",
        "sending",
        "queued",
    ]
    requeued = await db.fetch("SELECT id, attempt FROM dispatcher.queue WHERE requeued")
    assert [(row["id"], row["attempt"]) for row in requeued] == [(ids[0], 0), (ids[1], 0)]
    assert await rows.tally() == {("default", "requeued", ""): 2}
    assert await db.fetchval(REQUEUE, ids) == 0


async def test_settled_as_sent_a_batch_is_accepted_where_nothing_is_known_yet(db, rows):
    ids = await rows.messages(3)
    await rows.batch(ids, state="unsure")
    await rows.outcome(ids[0], "accepted", provider_id="known")
    assert await db.fetchval(SETTLE, "token1", "sent") == 2
    assert await states(db) == ["accepted"] * 3
    known = await db.fetchval("SELECT provider_id FROM dispatcher.outcome WHERE message_id = 1")
    assert known == "known"
    assert await rows.tally() == {("default", "settled", "sent"): 2}


async def test_settled_to_be_sent_again_only_what_has_no_outcome_returns_to_the_queue(db, rows):
    ids = await rows.messages(3)
    await rows.batch(ids, state="unsure")
    await rows.outcome(ids[0], "accepted", provider_id="known")
    assert await db.fetchval(SETTLE, "token1", "resend") == 2
    assert await states(db) == ["accepted", "queued", "queued"]
    waiting = await db.fetch("SELECT attempt, last_batch, code FROM dispatcher.queue")
    assert {tuple(row) for row in waiting} == {(1, 1, "settled-by-operator")}
    closed = await db.fetchrow("SELECT state, settled_by FROM dispatcher.batch")
    assert tuple(closed) == ("closed", "operator: resend")


async def test_what_returns_after_its_time_expires_although_no_claim_sees_it(db, rows):
    """Under a paused app or campaign it stayed queued, without an event."""
    ids = await rows.messages(3)
    await rows.batch(ids, state="unsure")
    await db.execute(
        "UPDATE dispatcher.message SET send_at = now() - interval '2 hours',"
        " expires_at = now() - interval '1 hour' WHERE id <> $1",
        ids[0],
    )
    expire = "SELECT expired FROM dispatcher.expire()"
    assert await db.fetchval(expire) == 0
    await db.execute(SETTLE, "token1", "resend")
    await db.execute("UPDATE dispatcher.queue SET requeued = true WHERE id = $1", ids[1])
    assert await db.fetchval(expire) == 1
    assert await states(db) == ["queued", "queued", "expired"]
    assert (await rows.tally())["default", "expired", "expired"] == 1


@pytest.mark.parametrize("state", ["open", "closed"])
async def test_only_an_unsure_batch_can_be_settled(db, rows, state):
    await rows.batch(await rows.messages(), state=state)
    with pytest.raises(asyncpg.NoDataFoundError, match="no unsure batch has the token 'token1'"):
        await db.fetchval(SETTLE, "token1", "sent")


async def test_a_batch_is_settled_once(db, rows):
    await rows.batch(await rows.messages(), state="unsure")
    await db.fetchval(SETTLE, "token1", "resend")
    with pytest.raises(asyncpg.NoDataFoundError):
        await db.fetchval(SETTLE, "token1", "sent")
    assert await states(db) == ["queued"]


@pytest.mark.parametrize("how", ["Sent", "", None])
async def test_settle_knows_two_words(db, rows, how):
    await rows.batch(await rows.messages(), state="unsure")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="settle takes 'sent' or 'resend'"):
        await db.fetchval(SETTLE, "token1", how)
    assert await states(db) == ["unsure"]


async def test_a_pause_keeps_its_first_time_and_its_last_reason(db):
    await db.execute("SELECT dispatcher.pause('shop', 'one')")
    since = await db.fetchval("SELECT paused_at FROM dispatcher.app")
    await db.execute("SELECT dispatcher.pause('shop', 'two')")
    user = await db.fetchval("SELECT session_user")
    row = await db.fetchrow("SELECT name, paused_at, pause_reason, paused_by FROM dispatcher.app")
    assert tuple(row) == ("shop", since, f"two ({user})", "operator")


async def test_an_operators_pause_ends_the_probes_of_a_pause_by_itself(db):
    await db.execute(
        "INSERT INTO dispatcher.app (name, paused_at, pause_code, probe_at, probe_wait) "
        "VALUES ('shop', now(), 'E000101', now(), '1 minute')"
    )
    await db.execute("SELECT dispatcher.pause('shop', 'by hand')")
    row = await db.fetchrow("SELECT pause_code, probe_at, probe_wait FROM dispatcher.app")
    assert tuple(row) == (None, None, None)


async def test_resume_ends_every_pause_of_that_app_alone(db):
    for app in ("shop", "bank"):
        await db.execute("SELECT dispatcher.pause($1, 'because')", app)
        await db.execute(
            "INSERT INTO dispatcher.country_pause VALUES ($1, '86', now(), 'E000630')", app
        )
    await db.execute("SELECT dispatcher.resume('shop')")
    paused = "SELECT name FROM dispatcher.app WHERE paused_at IS NOT NULL"
    assert [row["name"] for row in await db.fetch(paused)] == ["bank"]
    assert [row["app"] for row in await db.fetch("SELECT app FROM dispatcher.country_pause")] == [
        "bank"
    ]
    assert (await db.fetchrow("SELECT * FROM dispatcher.app WHERE name = 'shop'"))[
        "pause_reason"
    ] is None


async def test_resume_makes_all_that_was_refused_due(db):
    await operator.pause(db, "ana", "shop", "because")
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, code, waits_since)"
        " SELECT n, 'shop', 5, now() + interval '1 hour', 'E000510', now()"
        " FROM generate_series(1, 10001) AS n"
    )
    await operator.resume(db, "ana", "shop")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue WHERE due_at > now()") == 0
    await db.execute(
        "UPDATE dispatcher.queue SET due_at = now() + interval '1 hour', waits_since = now()"
        " WHERE id = 1"
    )
    assert await db.fetchval(sql("end_refusal_waits"), "shop") == 0  # refused since


async def test_to_resume_what_is_not_paused_does_nothing(db):
    await db.execute("SELECT dispatcher.resume('shop')")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.app") == 0


async def test_what_becomes_unsure_while_many_are_settled_is_left(db, rows):
    """It may be one that was resent at the begin, and may be on its way again."""
    now, later = await rows.messages(2)
    await rows.batch([now], state="unsure")
    await rows.batch([later], state="unsure", token="token2")
    await db.execute(
        "UPDATE dispatcher.batch SET unsure_at = clock_timestamp() + interval '1 minute'"
        " WHERE message_ids = ARRAY[$1::bigint]",
        later,
    )
    done = await operator.settle_batches(db, "Ana", operator.UnsureBatches(), "resend")
    assert done.count == 1
    assert await states(db) == ["queued", "unsure"]


async def test_an_action_whose_console_ended_is_finished(db, database, rows):
    ids = await rows.messages(3)
    add = (
        "INSERT INTO dispatcher.message_action (created_by, action, filter, address, counts,"
        " messages, targets) VALUES ('Ana', 'cancel', '', '', '[]', 3, $1) RETURNING id"
    )
    action = await db.fetchval(add, ids)
    assert await maintenance.continue_actions(database) == 0  # it is not confirmed
    await db.execute("SELECT dispatcher.start_message_action($1)", action)
    assert await maintenance.continue_actions(database) == 0  # the console does it
    await db.execute("UPDATE dispatcher.message_action SET started_at = now() - interval '2 min'")
    assert await maintenance.continue_actions(database) == 1
    assert await maintenance.continue_actions(database) == 0
    assert await states(db) == ["cancelled"] * 3
    (changed,) = await db.fetch("SELECT changed, finished_at FROM dispatcher.message_action")
    assert changed["changed"] == 3
    assert changed["finished_at"] is not None


async def started(db, targets, *, action="cancel", ago="2 min") -> int:
    """Add an action that was started some time *ago*; return its id."""
    return await db.fetchval(
        "INSERT INTO dispatcher.message_action (created_by, action, filter, address, counts,"
        " messages, targets, started_at, started_by) VALUES ('Ana', $1, '', '', '[]', 3, $2,"
        " now() - $3::text::interval, 'Ana') RETURNING id",
        action,
        targets,
        ago,
    )


async def test_an_action_of_over_an_hour_ago_waits_for_its_page(db, database, rows):
    await started(db, await rows.messages(3), ago="61 min")
    assert await maintenance.continue_actions(database) == 0
    assert await states(db) == ["queued"] * 3


async def test_an_action_that_fails_keeps_no_other_waiting(db, dsn, database, rows):
    database = Database(dsn, database.pool, retry_refusals=True)
    await db.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no suppression today'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON dispatcher.suppression
            FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    ids = await rows.messages(3)
    failing = await started(db, ids, action="suppress")
    await started(db, ids)
    assert await maintenance.continue_actions(database) == 1
    assert await states(db) == ["cancelled"] * 3
    with pytest.raises(StatementRefused, match="no suppression today"):
        await maintenance.continue_actions(database)
    unfinished = "SELECT id FROM dispatcher.message_action WHERE finished_at IS NULL"
    assert [row["id"] for row in await db.fetch(unfinished)] == [failing]


async def test_an_action_that_the_console_does_now_is_passed_over(db, database, rows):
    action = await started(db, await rows.messages(3))
    async with db.transaction():
        await db.execute("SELECT FROM dispatcher.message_action WHERE id = $1 FOR UPDATE", action)
        assert await maintenance.continue_actions(database) == 0
    assert await maintenance.continue_actions(database) == 1
