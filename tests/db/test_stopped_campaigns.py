"""Health: messages of campaigns that are stopped wait, and hide no stall of others."""

import re

import pytest

from dispatcher.core.health import Level, diagnose
from dispatcher.core.status import StoppedCampaign
from dispatcher.db.database import connect
from dispatcher.db.queries import sql
from dispatcher.db.status import now, snapshot

WAITING = 30_000  # rows of a paused campaign in each table, more than are searched from either end
APPS = """
INSERT INTO dispatcher.app (name) VALUES ('default'), ('other');
INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)
VALUES ('h', 1, '1', '{default,other}', interval '1 day', clock_timestamp());
INSERT INTO dispatcher.campaign (name, state, reason, first_id) VALUES
    ('may', 'paused', 'wrong text', 1), ('june', 'moving', '', 1), ('july', 'cancelled', '', 1),
    ('august', 'running', '', 1)
"""
BACKLOG = f"""
INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
SELECT n, 'default', 5, now() - interval '1 hour' + make_interval(secs => n / 100.0), 'may'
FROM generate_series(1, {WAITING}) AS n;
INSERT INTO dispatcher.queue (id, app, priority, due_at)
SELECT {WAITING} + n, 'default', 6, now() + interval '1 day'
FROM generate_series(1, {WAITING}) AS n;
INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)
SELECT n, int8multirange(int8range(n, n + 1)), 1, 'default', 5, now() - interval '1 hour', 'may'
FROM generate_series(1000001, 1000000 + {WAITING}) AS n
"""


@pytest.fixture
async def waits(db):
    """Let one message wait in a table: its app, for how long it has been due, its campaign."""
    await db.execute(APPS)

    async def add(table: str, message: int, app: str, age: str, campaign: str | None) -> None:
        what = (message, app, age, campaign)
        if table == "queue":
            await db.execute(
                "INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)"
                " VALUES ($1, $2, 5, now() - $3::text::interval, $4)",
                *what,
            )
        else:
            await db.execute(
                "INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at, campaign)"
                " VALUES ($1::bigint, int8multirange(int8range($1, $1 + 20)), 20, $2, 5,"
                " now() - $3::text::interval, $4)",
                *what,
            )

    return add


@pytest.mark.parametrize("table", ["queue", "bulk"])
async def test_a_paused_campaign_is_named_and_is_no_stall(database, waits, table):
    await waits(table, 1000, "default", "1 hour", "may")
    seen = await now(database)
    default, other = seen.apps
    assert default.stopped_campaigns == [StoppedCampaign("may", "paused", "wrong text")]
    assert (default.oldest_due_at, other.stopped_campaigns) == (None, [])
    (finding,) = diagnose(seen).findings
    assert (finding.level, finding.app, finding.cause) == (Level.NOTE, "default", "wrong text")
    assert "dispatcher campaign resume may" in finding.step


@pytest.mark.parametrize("table", ["queue", "bulk"])
@pytest.mark.parametrize("campaign", ["august", None])
async def test_a_stall_behind_a_paused_campaign_is_found(database, waits, table, campaign):
    for message, name in enumerate(("may", "june", "july"), start=1):
        await waits("bulk", 1000 * message, "default", f"{message} hours", name)
        await waits("queue", message, "default", f"{message} hours", name)
    await waits(table, 9000, "default", "10 minutes", campaign)
    await waits(table, 10_000, "other", "10 seconds", campaign)
    seen = await now(database)
    default, other = seen.apps
    assert 600 <= (seen.at - default.oldest_due_at).total_seconds() < 700
    assert 10 <= (seen.at - other.oldest_due_at).total_seconds() < 110
    assert [each.name for each in default.stopped_campaigns] == ["july"]  # the first of both
    found = diagnose(seen)
    assert [each.app for each in found.findings if each.level is Level.STOPPED] == ["default"]


async def test_a_stall_behind_a_large_campaign_is_found(database, db, waits):
    await db.execute(BACKLOG)
    await waits("queue", 900_000, "default", "10 minutes", None)
    default, _ = (seen := await now(database)).apps
    assert 600 <= (seen.at - default.oldest_due_at).total_seconds() < 700


async def test_a_reader_sees_stopped_campaigns(dsn, waits):
    await waits("queue", 1, "default", "1 hour", "may")
    reader = await connect(f"{dsn}&role=dispatcher_reader")
    default, _ = (await snapshot(reader)).apps
    await reader.close()
    assert [each.name for each in default.stopped_campaigns] == ["may"]


@pytest.mark.usefixtures("waits")
async def test_status_reads_little_behind_a_large_campaign(db):
    await db.execute("ANALYZE")
    await db.execute(BACKLOG)
    for analyzed in (False, True):  # with the statistics of empty tables, and with true ones
        if analyzed:
            await db.execute("ANALYZE")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            for name, given, call, most in (
                ("status_apps", "", "", 1_400),
                ("stopped_in_front", "(text[])", "('{default}')", 200),
                ("oldest_due_beside", "(text[])", "('{default}')", 1_000),
            ):
                await db.execute(f"PREPARE planned {given} AS {sql(name)}")
                rows = await db.fetch(f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE planned {call}")
                await db.execute("DEALLOCATE planned")
                plan = "\n".join(row[0] for row in rows).partition("Planning:")[0]
                counts = re.findall(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
                pages = max(sum(int(each or 0) for each in found) for found in counts)
                assert pages <= most, f"{name}, {mode}, analyzed {analyzed}: {pages}\n{plan}"


async def test_a_look_at_failures_reads_each_table_once(db):
    """It looked up each message in message_status: minutes for a million, and was cut off."""
    await db.execute("""
        INSERT INTO dispatcher.message (recipient, template_id, campaign)
        SELECT '+86131' || lpad(n::text, 8, '0'), 't', 'may' FROM generate_series(1, 20001) AS n;
        WITH gone AS (DELETE FROM dispatcher.bulk RETURNING first_id)
        INSERT INTO dispatcher.queue (id, app, priority, due_at, campaign)
        SELECT max(first_id) + 10000, 'default', 5, now(), 'may' FROM gone;
        INSERT INTO dispatcher.outcome (message_id, state, attempts, provider_id)
        SELECT id, 'accepted', 1, 'p' || id FROM dispatcher.message ORDER BY id LIMIT 20000;
        INSERT INTO dispatcher.report (provider_id, status, state)
        SELECT provider_id, 'X',
            CASE WHEN message_id % 20 = 0 THEN 'undelivered' ELSE 'delivered' END
        FROM dispatcher.outcome;
        UPDATE dispatcher.campaign SET stop_at = 0.06;
        ANALYZE;
    """)
    look = "EXPLAIN (ANALYZE, BUFFERS) SELECT dispatcher.stop_campaigns()"
    plan = "\n".join(row[0] for row in await db.fetch(look))
    assert sum(int(each) for each in re.findall(r"(?:hit|read)=(\d+)", plan)) < 10_000, plan
    await db.execute("UPDATE dispatcher.campaign SET stop_at = 0.05")
    assert await db.fetchval("SELECT dispatcher.stop_campaigns()") == 1
    assert "1000 of 20000" in await db.fetchval("SELECT reason FROM dispatcher.campaign")
