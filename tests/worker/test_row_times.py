"""Times of the database: the pace of an app, and messages whose time is over."""

import asyncio

import asyncpg
import pytest
from support.messages import insert, of_each, states
from support.provider import app_at
from support.waiting import until

from dispatcher.db import workers as run_time
from dispatcher.db.database import connect


async def paced(database, rate: float = 500.0) -> None:
    await run_time.register_app(
        database, "default", numbers_per_second=rate, on_unsure="hold", resend_after=1.0
    )


async def test_a_time_far_ahead_does_not_silence_an_app(db, sim, workers):
    # The clock was eight hours ahead, and was set right.
    worker = await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await db.execute("UPDATE dispatcher.app SET next_at = now() + interval '8 hours'")
    await insert(db, 40)
    await until(lambda: accepted(db, 40), deadline=20, what="all are accepted")
    assert worker.code is None
    ahead = await db.fetchval("SELECT next_at < now() + interval '1 minute' FROM dispatcher.app")
    assert ahead


async def accepted(db, count: int) -> bool:
    return (await states(db)).get("accepted") == count


@pytest.mark.parametrize("rate", [0.001, 0.2, 500.0])
async def test_a_grant_that_is_due_later_keeps_its_time(db, database, rate):
    await paced(database, rate)
    held = await db.fetchval(
        "SELECT dispatcher.next_grant_at(t, $1::float8) = t"
        " FROM (SELECT clock_timestamp() + make_interval(secs => 4 / $1::float8)) AS u (t)",
        rate,
    )
    assert held


async def test_resume_and_start_reset_the_next_grant(db, database):
    await paced(database)
    far = "UPDATE dispatcher.app SET next_at = now() + interval '8 hours'"
    near = "SELECT next_at <= clock_timestamp() FROM dispatcher.app"
    await db.execute(far)
    await paced(database)
    assert await db.fetchval(near)
    await db.execute(far)
    await db.execute("SELECT dispatcher.resume('default', 'Ana')")
    assert await db.fetchval(near)


async def test_what_waits_expires_under_a_pause_and_without_a_worker(db, database):
    await db.execute("SELECT dispatcher.pause('default', 'lunch', 'Ana')")
    over = await insert(db, 3, lifetime=0.05)
    elsewhere = await insert(db, 2, app="of-no-worker", lifetime=0.05)
    later = await insert(db, 4, lifetime=60.0)
    await db.execute("SELECT pg_sleep(0.1)")
    assert await run_time.expire(database) == (5, None)
    assert await run_time.expire(database) == (0, None)
    rows = await of_each(db, over + elsewhere)
    assert {(row["state"], row["code"]) for row in rows.values()} == {("expired", "expired")}
    rows = await of_each(db, later)
    assert {row["state"] for row in rows.values()} == {"queued"}
    told = await db.fetch("SELECT app, message_ids FROM dispatcher.event WHERE event = 'expired'")
    assert {row["app"]: sorted(row["message_ids"]) for row in told} == {
        "default": over,
        "of-no-worker": elsewhere,
    }


async def test_many_that_expire_at_one_time_all_expire(db, database):
    await db.execute("SELECT dispatcher.pause('default', 'lunch', 'Ana')")
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, send_at, expires_at)"
        " SELECT '+86131' || lpad(n::text, 8, '0'), 't', now() - interval '1 h', now()"
        " FROM generate_series(1, 40001) AS n"
    )
    expired, cursor = await run_time.expire(database)
    assert expired == 20_000
    expired, cursor = await run_time.expire(database, cursor)
    assert expired == 20_000
    assert await run_time.expire(database, cursor) == (1, None)
    assert await states(db) == {"expired": 40_001}


async def test_who_finds_another_worker_at_it_goes_on_where_it_was(db, dsn, database):
    after = run_time.ExpiryCursor(await db.fetchval("SELECT now()"), 7)
    other = await connect(dsn)
    async with other.transaction():
        await other.execute("SELECT dispatcher.expire()")
        assert await run_time.expire(database, after) == (0, after)
        assert await run_time.expire(database) == (0, None)
    await other.close()


async def test_what_was_requeued_expires_no_more(db, database):
    [one] = await insert(db, 1, lifetime=0.05)
    await db.execute("SELECT pg_sleep(0.1)")
    assert await run_time.expire(database) == (1, None)
    assert await db.fetchval("SELECT dispatcher.requeue(ARRAY[$1::bigint], 'Ana')", one) == 1
    assert await run_time.expire(database) == (0, None)
    assert await states(db) == {"queued": 1}


async def test_a_message_that_returns_during_cancel_is_cancelled(db, dsn):
    [one] = await insert(db, 1)
    claim = await connect(dsn)
    async with claim.transaction():
        await claim.execute("DELETE FROM dispatcher.queue WHERE id = $1", one)
        cancelling = asyncio.create_task(
            db.fetchval("SELECT dispatcher.cancel(ARRAY[$1::bigint])", one)
        )
        other = await connect(dsn)
        await until(
            lambda: other.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND query LIKE '%dispatcher.cancel%' AND pid <> pg_backend_pid())"
            ),
            what="the cancel waits",
        )
        await claim.execute(
            "INSERT INTO dispatcher.queue (id, app, priority, due_at)"
            " VALUES ($1, 'default', 5, now())",
            one,
        )
    assert await cancelling == 1
    assert await states(db) == {"cancelled": 1}
    await claim.close()
    await other.close()


async def test_crosswise_idempotency_keys_end_in_no_deadlock(dsn):
    sessions = [await connect(dsn) for _ in range(2)]
    keys = [f"key-{n}" for n in range(2000)]
    statement = (
        "INSERT INTO dispatcher.message (recipient, template_id, idempotency_key)"
        " SELECT '13112345678', 't', k || '-' || $2 FROM unnest($1::text[]) AS k"
    )
    for attempt in range(5):
        ended = await asyncio.gather(
            sessions[0].execute(statement, keys, str(attempt)),
            sessions[1].execute(statement, keys[::-1], str(attempt)),
            return_exceptions=True,
        )
        refused = [type(each) for each in ended if isinstance(each, Exception)]
        assert refused == [asyncpg.UniqueViolationError]
    for session in sessions:
        await session.close()
