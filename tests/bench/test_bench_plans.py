"""Plans of claim, record and status queries, with statistics of empty tables."""

import json

import pytest

from bench.queries import research_query
from dispatcher.bench.statements import query
from dispatcher.core.claim_cursor import BEGINNING, PRIORITY_COUNT, ClaimCursor
from dispatcher.db.queries import sql

DUE, TOMORROW, FINISHED = 20_000, 20_000, 20_000
BULK_DUE, BULK_TOMORROW = 3_000_000, 1_000_000
CLAIM = 500
NO_BULK = [BEGINNING] * PRIORITY_COUNT
STATE = ("default", 0, 9, NO_BULK, 0, None, None)


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
    await open_all(db)
    return db


@pytest.fixture
async def bulk_backlog(backlog):
    """The same, and four million messages in bulk rows, of which those due first exist."""
    await backlog.execute("DELETE FROM dispatcher.queue WHERE due_at < now()")
    await backlog.execute(query("load_messages"), DUE, True, 5, 0.0)
    await backlog.execute(
        "INSERT INTO dispatcher.bulk (first_id, ids, size, app, priority, due_at)"
        " SELECT id, int8multirange(int8range(id, id + 500)), 500, 'default', 5,"
        " clock_timestamp() + CASE WHEN id >= $1 THEN interval '1 day' ELSE '0' END"
        " FROM generate_series(1000001::bigint, $1::bigint + $2::bigint - 1, 500) AS id",
        1_000_001 + BULK_DUE,
        BULK_TOMORROW,
    )
    return backlog


async def open_all(connection):
    """Let every message wait in a row of the queue."""
    await connection.execute("DELETE FROM dispatcher.bulk")
    await connection.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at)"
        " SELECT id, app, priority, greatest(send_at, clock_timestamp())"
        " FROM dispatcher.message WHERE id > $1",
        FINISHED,
    )


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
    await connection.fetchrow(sql("app_state"), *STATE)
    await connection.execute(
        "PREPARE claim(text, int, int, int, text, float8[], bool, float8, bool) AS " + sql("claim")
    )
    try:
        return await explained(
            connection,
            f"EXECUTE claim('default', {CLAIM}, 0, 9, NULL, {since(floor)}, false, NULL, false)",
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


async def test_a_claim_of_an_old_message_and_new_ones_reads_no_history_between(backlog):
    await backlog.execute("DELETE FROM dispatcher.outcome WHERE message_id = 1")
    await backlog.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at) VALUES (1, 'default', 0, now())"
    )
    async with backlog.transaction():
        plan, found = await claimed(backlog)
    assert plan["Actual Rows"] == CLAIM
    read = {
        table: sum(
            node["Actual Rows"] * node["Actual Loops"]
            for node in found
            if node.get("Relation Name", "").startswith(f"{table}_")
        )
        for table in ("outcome", "message")
    }
    assert read == {"outcome": 0, "message": CLAIM}


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
                state = await backlog.fetchrow(sql("app_state"), *STATE)
                rows = await backlog.fetch(
                    sql("claim"),
                    "default",
                    CLAIM,
                    0,
                    9,
                    None,
                    floor.start_scan(),
                    False,
                    None,
                    False,
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


async def run_bulk_claim(connection, since=BEGINNING):
    """Return the plans of the statements of one claim, pinned and made once."""
    positions = f"'{{{','.join([str(since)] * PRIORITY_COUNT)}}}'"
    await connection.execute(
        "PREPARE state(text, int, int, float8[], bigint, float8, float8) AS " + sql("app_state")
    )
    await connection.execute("PREPARE hold(text, int, int, float8[]) AS " + sql("lock_bulk"))
    await connection.execute(
        "PREPARE take(text, int, int, float8, text, bool) AS " + sql("claim_bulk")
    )
    try:
        state = await explained(
            connection, f"EXECUTE state('default', 0, 9, {positions}, 0, NULL, NULL)"
        )
        hold = await explained(connection, f"EXECUTE hold('default', 0, 9, {positions})")
        head = await connection.fetchrow(
            sql("lock_bulk"), "default", 0, 9, [since] * PRIORITY_COUNT
        )
        take = await explained(
            connection,
            f"EXECUTE take('default', {CLAIM}, 5, {head['due_at']}, NULL, false)",
        )
        return state, hold, take
    finally:
        await connection.execute("DEALLOCATE state; DEALLOCATE hold; DEALLOCATE take")


def blocks(plan):
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


@pytest.mark.parametrize("analyzed", [False, True], ids=["statistics of nothing", "of all"])
async def test_a_claim_reads_only_the_bulk_rows_it_claims(bulk_backlog, analyzed):
    if analyzed:
        await bulk_backlog.execute("ANALYZE")
    async with bulk_backlog.transaction():
        state, hold, take = await run_bulk_claim(bulk_backlog)
    assert take[0]["Actual Rows"] == CLAIM + 1  # the last one says how many there must be
    for plan, found in (state, hold, take):
        scans = [node for node in found if node.get("Relation Name") in ("bulk", "queue")]
        assert "Seq Scan" not in {node["Node Type"] for node in scans}
        for node in scans:
            assert node["Actual Rows"] * node["Actual Loops"] <= 3
        assert blocks(plan) < 600
    assert not [n for n in take[1] if n["Node Type"] == "Seq Scan" and "Relation Name" in n]
    assert sum(node.get("Rows Removed by Join Filter", 0) for node in take[1]) <= 2
    # Ranges of ids are sorted, not the messages.
    assert all(node["Actual Rows"] <= 3 for node in take[1] if node["Node Type"] == "Sort")


@pytest.mark.parametrize("analyzed", [False, True], ids=["statistics of nothing", "of all"])
async def test_missing_messages_are_looked_up_one_by_one(backlog, analyzed):
    """In the claim that finds them: history is not read."""
    if analyzed:
        await backlog.execute("ANALYZE")
    ids = range(FINISHED + 1, FINISHED + 501)
    await backlog.execute("DELETE FROM dispatcher.message WHERE id = ANY ($1)", [*ids[:200]])
    await backlog.execute("DELETE FROM dispatcher.outcome WHERE message_id = ANY ($1)", [*ids])
    async with backlog.transaction():
        await backlog.fetchrow(sql("app_state"), *STATE)
        await backlog.execute("PREPARE missing(text[]) AS " + sql("missing_messages"))
        plan, found = await explained(
            backlog, f"EXECUTE missing(ARRAY['[{ids.start},{ids.stop})'])"
        )
        await backlog.execute("DEALLOCATE missing")
    assert plan["Actual Rows"] == 200
    read = [n["Actual Rows"] * n["Actual Loops"] for n in found if "Relation Name" in n]
    assert sum(read) <= len(ids)
    assert blocks(plan) < 10 * len(ids)


async def test_a_claim_skips_claimed_bulk_rows_of_a_held_snapshot(bulk_backlog, database):
    async with database.pool.acquire() as reader, reader.transaction(isolation="repeatable_read"):
        await reader.fetchval("SELECT count(*) FROM dispatcher.bulk")
        await bulk_backlog.execute(
            "DELETE FROM dispatcher.bulk WHERE first_id > 1000000 AND due_at < now();"
            " UPDATE dispatcher.bulk SET due_at = now() WHERE first_id < 1000000"
        )
        now = await bulk_backlog.fetchval(
            "SELECT date_part('epoch', min(due_at)) FROM dispatcher.bulk"
        )
        reads = []
        for since in (now, BEGINNING):
            transaction = bulk_backlog.transaction()
            await transaction.start()
            state, hold, _ = await run_bulk_claim(bulk_backlog, since)
            await transaction.rollback()
            reads.append([blocks(state[0]), blocks(hold[0])])
    assert reads[0][0] * 3 < reads[1][0]
    assert reads[0][1] * 3 < reads[1][1]


async def test_a_cancel_and_a_status_find_bulk_rows_by_index(bulk_backlog):
    await bulk_backlog.execute("SET plan_cache_mode = force_generic_plan")
    first = await bulk_backlog.fetchval("SELECT min(first_id) FROM dispatcher.bulk")
    for statement, most in (
        (f"SELECT * FROM dispatcher.message_status WHERE id = {first + 7}", 100),
        ("SELECT dispatcher.has_open_messages(900000, 1000000)", 100),
        (f"SELECT dispatcher.cancel('{{{first + 7}}}')", 12_000),
    ):
        plan, _ = await explained(bulk_backlog, statement)
        assert blocks(plan) < most, statement


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
