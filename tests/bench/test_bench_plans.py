"""Plans of claim, record and status queries, with statistics of empty tables."""

import json

import pytest

from bench.queries import research_query
from dispatcher.bench.statements import query
from dispatcher.core.claim_cursor import BEGINNING, PRIORITY_COUNT, ClaimCursor
from dispatcher.db.queries import sql

DUE, TOMORROW, FINISHED = 20_000, 20_000, 20_000
CLAIM = 500


@pytest.fixture
async def backlog(db):
    """Many messages of each kind, and statistics from when there were none."""
    await db.execute("ANALYZE")
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await db.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
    await db.execute(research_query("load_finished"), FINISHED)
    await db.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
    await db.execute(query("load_messages"), TOMORROW, True, 5, 86_400.0)
    await db.execute(query("load_messages"), DUE, True, 5, 0.0)
    return db


def since(floor=None):
    looked = floor.start_scan() if floor else [BEGINNING] * PRIORITY_COUNT
    return f"'{{{','.join(map(str, looked))}}}'"


async def explained(connection, query):
    """Return the plan of a statement that is run, and all its nodes."""
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
    [whole] = json.loads(text)
    return whole["Plan"], list(nodes(whole["Plan"]))


def nodes(plan):
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def claimed(connection, floor=None):
    """Return the plan of a claim, as the worker runs it: pinned, and made once."""
    await connection.fetchrow(sql("app_state"), "default")
    await connection.execute(
        "PREPARE claim(text, int, int, int, text, float8[], bool) AS " + sql("claim")
    )
    try:
        return await explained(
            connection, f"EXECUTE claim('default', {CLAIM}, 0, 9, NULL, {since(floor)}, false)"
        )
    finally:
        await connection.execute("DEALLOCATE claim")


async def test_a_claim_reads_only_the_rows_it_claims(backlog):
    async with backlog.transaction():
        plan, found = await claimed(backlog)
    scans = [node for node in found if node.get("Relation Name") == "queue"]
    assert plan["Actual Rows"] == CLAIM
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Tid Scan", "ModifyTable"}
    [index] = [node for node in scans if node["Node Type"] == "Index Scan"]
    assert "due_at <=" in index["Index Cond"]
    assert index["Actual Rows"] * index["Actual Loops"] <= CLAIM + PRIORITY_COUNT
    assert not [node for node in found if node.get("Rows Removed by Join Filter")]
    assert not [node for node in found if node["Node Type"] == "Seq Scan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 8 * CLAIM


async def test_a_claim_of_few_rows_does_not_read_rows_due_tomorrow(backlog):
    await backlog.execute("DELETE FROM dispatcher.queue WHERE due_at < now() + interval '1 hour'")
    await backlog.execute("VACUUM dispatcher.queue")
    await backlog.execute(query("load_messages"), 10, True, 5, 0.0)
    async with backlog.transaction():
        plan, _ = await claimed(backlog)
    assert plan["Actual Rows"] == 10
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 500


async def test_a_claim_skips_claimed_rows_while_a_snapshot_is_held(backlog, database):
    floor = ClaimCursor(clock=lambda: 1000.0)  # no complete scan but the first
    async with database.pool.acquire() as reader, reader.transaction(isolation="repeatable_read"):
        await reader.fetchval("SELECT count(*) FROM dispatcher.queue")
        for _ in range(DUE // CLAIM - 1):
            async with backlog.transaction():
                state = await backlog.fetchrow(sql("app_state"), "default")
                rows = await backlog.fetch(
                    sql("claim"), "default", CLAIM, 0, 9, None, floor.start_scan(), False
                )
                floor.finish_scan(
                    state["asked_at"], (rows[-1]["priority"], rows[-1][0]), seconds=0.0
                )
        reads = []
        for each in (floor, None):
            transaction = backlog.transaction()
            await transaction.start()
            plan, found = await claimed(backlog, each)
            await transaction.rollback()
            assert plan["Actual Rows"] == CLAIM
            [index] = [n for n in found if n.get("Index Name") == "queue_due"]
            reads.append(index["Shared Hit Blocks"] + index["Shared Read Blocks"])
    # Without the cursor the scan visits every claimed row, because the snapshot keeps them all.
    assert reads[0] * 3 < reads[1]


async def test_closing_batches_and_a_status_read_by_index(backlog):
    await backlog.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " SELECT n::text, 'default', 1, ARRAY[n], ARRAY[1], 1 FROM generate_series(1, 20000) n"
    )
    async with backlog.transaction():
        await backlog.execute(sql("pin_plans"))
        await backlog.execute(
            "PREPARE close(bigint[], text[], int2[], text[], text[], int2[], bool[], text[]) AS "
            + sql("close_batches")
        )
        _, closing = await explained(
            backlog,
            "EXECUTE close('{1,2}', '{closed,closed}', '{200,200}', '{a,a}', '{a,a}',"
            " '{1,1}', '{t,t}', '{1,2}')",
        )
        await backlog.execute("DEALLOCATE close")
    plan, _ = await explained(backlog, "SELECT * FROM dispatcher.message_status WHERE id = 30000")
    assert not [node for node in closing if node["Node Type"] == "Seq Scan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100


def test_a_full_scan_continues_where_it_ended():
    floor = ClaimCursor(clock=lambda: 1000.0)
    assert floor.start_scan() == [BEGINNING] * PRIORITY_COUNT
    floor.finish_scan(5000.0, (5, 4000.0), seconds=0.0)
    assert floor.start_scan()[5] == 4000.0
    assert floor.start_scan()[9] == BEGINNING  # the scan did not reach it


def test_a_full_scan_runs_every_second_or_less_often_if_slow():
    now = 1000.0
    floor = ClaimCursor(clock=lambda: now)
    for seconds, rest in ((0.0, 1.0), (2.0, 40.0)):
        assert floor.start_scan() == [BEGINNING] * PRIORITY_COUNT
        floor.finish_scan(5000.0, None, seconds=seconds)
        now += rest - 0.01
        assert floor.start_scan() != [BEGINNING] * PRIORITY_COUNT
        floor.finish_scan(5000.0, None, seconds=0.0)
        now += 0.02


def test_returned_rows_reset_the_claim_cursor():
    floor = ClaimCursor(clock=lambda: 1000.0)
    floor.start_scan()
    floor.finish_scan(5000.0, (5, 4000.0), returned=[(5, 3990.0)], seconds=0.0)
    assert floor.start_scan()[5] == 3990.0
