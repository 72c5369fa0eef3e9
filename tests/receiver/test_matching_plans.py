"""The plans of reports: storing, matching and events read by index, whatever statistics say.

Statistics are stale as a rule: the tables fill within minutes. So each statement is planned with
those from when everything was empty, and with true ones; with its values, and without.
"""

import itertools
import json

import pytest

from dispatcher.bench.statements import query
from dispatcher.db.queries import sql

BATCHES, PER_BATCH = 30, 500
MANY = BATCHES * PER_BATCH  # rows of each table
NEWS = 200  # reports of one step

SEED = """
INSERT INTO dispatcher.report (provider_id, status, state, token, recipient)
SELECT md5(n::text)::uuid || '_1', 'DELIVRD', 'delivered', 'bench-' || (n - 1) / 500,
    '+86138' || lpad(n::text, 8, '0')
FROM generate_series(1, :many) AS n;
INSERT INTO dispatcher.report_summary (provider_id, state, status)
SELECT md5(n::text)::uuid || '_1', 'interim', 'ACCEPTD' FROM generate_series(1, :many) AS n;
INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason, due_at)
SELECT md5(n::text)::uuid || '_1', 1, 'unknown-token',
    CASE WHEN n <= 50 THEN now() - interval '1 s' END
FROM generate_series(1, :many) AS n;
INSERT INTO dispatcher.event (app, event, message_ids, message_count, last_position)
SELECT 'default', 'delivered', ARRAY[n], 1, n FROM generate_series(1, :many) AS n;
INSERT INTO dispatcher.event (app, event, message_ids, message_count)
SELECT 'default', 'delivered', ARRAY[n], 1 FROM generate_series(1, 20) AS n;
UPDATE dispatcher.event_position SET last_position = :many;
INSERT INTO dispatcher.report_inbox
    (provider_ids, segments, totals, states, statuses, tokens, recipients, fresh)
SELECT ARRAY['a'], '{1}', '{1}', '{delivered}', '{DELIVRD}', '{t}', '{+86131}', '{t}'
FROM generate_series(1, :many);
UPDATE dispatcher.batch SET state = 'unsure', unsure_at = now() WHERE token = 'bench-7';
"""

IDS = f"ARRAY(SELECT md5(n::text)::uuid || '_1' FROM generate_series(1, {NEWS}) n)"
NEW_IDS = f"ARRAY(SELECT 'new-' || n FROM generate_series(1, {NEWS}) n)"
ONES = f"array_fill(1, ARRAY[{NEWS}])"
TRUES = f"array_fill(true, ARRAY[{NEWS}])"
TIMES = f"array_fill(date_part('epoch', now()), ARRAY[{NEWS}])"
MESSAGES = f"ARRAY(SELECT id FROM dispatcher.message ORDER BY id LIMIT {NEWS})"
TOKENS = f"ARRAY(SELECT 'bench-' || n % {BATCHES} FROM generate_series(1, {NEWS}) n)"
NUMBERS = (
    f"ARRAY(SELECT '+86138' || lpad((n % {BATCHES} * {PER_BATCH} + 1)::text, 8, '0')"
    f" FROM generate_series(1, {NEWS}) n)"
)
UNSURE = "ARRAY(SELECT id FROM dispatcher.batch WHERE token = 'bench-7')"


def texts(value: str) -> str:
    return f"array_fill('{value}'::text, ARRAY[{NEWS}])"


def split(arguments: str) -> list[str]:
    """Return the arguments, which stand one a line."""
    return arguments.split("\n")


def each(*arguments: str) -> str:
    return "\n".join(arguments)


# A statement, its types, its arguments, and the most pages that it may look at.
PINNED = [
    ("take_reports", "int", "100", 1_000),
    ("take_unmatched", "text[], int2[], int", each(IDS, ONES, "100"), 4_000),
    ("still_unmatched", "text[], int2[]", each(IDS, ONES), 20 * NEWS),
    # every member of each request is looked at, by its key
    ("find_places", "text, text", each(TOKENS, NUMBERS), 4_000),
    ("name_accepted", "bigint[], text[]", each(MESSAGES, IDS), 20 * NEWS),
    ("lock_unsure", "bigint[]", UNSURE, 50),
    ("recall", "bigint[], bigint[], text[]", each(MESSAGES, MESSAGES, TOKENS), 40 * NEWS),
    (
        "settle_by_reports",
        "bigint[], bigint[], int2[], int2[], text[]",
        each(MESSAGES, MESSAGES, ONES, ONES, IDS),
        20 * NEWS,
    ),
    ("close_settled", "bigint[], text", each(UNSURE, "'reports'"), 8 * PER_BATCH),
    ("sum_reports", "text[], text[]", each(IDS, "ARRAY['EXPIRED']"), 20 * NEWS),
    ("find_members", "text[], int", each(TOKENS, "50000"), 8_000),
    ("erase_reports", "text[], int2[]", each(IDS, ONES), 20 * NEWS),
    (
        "keep_unmatched",
        "text[], int2[], text[], bool[], int2[], bool[]",
        each(NEW_IDS, ONES, texts("no-token"), TRUES, ONES, TRUES),
        25 * NEWS,
    ),
]
UNPINNED = [
    (
        "store_reports",
        12 * "text, " + "text[], text[], text",
        each(
            IDS, ONES, ONES, texts("DELIVRD"), texts("delivered"), TOKENS, NUMBERS, ONES, TIMES,
            ONES, texts(""), texts(""), texts("{}"), "ARRAY['EXPIRED']", "'^(UNDELIV)$'",
        ),
        20 * NEWS,
    ),
    ("place_events", "int, bool", each("1000", "false"), 400),
    ("unmatched_reports", "int", "100", 1_000),
]  # fmt: skip
SMALL = {"batch", "event_position", "message_rest", "outcome_rest"}


MODES = ("force_custom_plan", "force_generic_plan")


@pytest.fixture(params=["from when it was empty", "true"])
async def seeded(request, db):
    """Many rows of each kind, and statistics that know of them or not."""
    await db.execute("ANALYZE")
    await db.execute(query("load_accepted_batches"), BATCHES)
    await db.execute(SEED.replace(":many", str(MANY)))
    if request.param == "true":
        await db.execute("ANALYZE")
    return db


def nodes(plan):
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def explained(db, query):
    """Run a statement; return the pages it looked at, and the tables it read whole."""
    text = await db.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
    [whole] = json.loads(text)
    plan = whole["Plan"]
    read_whole = [
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] not in SMALL
    ]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], read_whole


async def tried(db, name, types, arguments, mode):
    """Return the same of one of our statements, undone afterwards."""
    # Its values are worked out before it is planned, and written into it.
    row = await db.fetchrow(f"SELECT {', '.join(f'({one})::text' for one in split(arguments))}")
    given = ", ".join(
        f"'{value}'::{type_}" for value, type_ in zip(row, types.split(", "), strict=True)
    )
    transaction = db.transaction()
    await transaction.start()
    await db.execute(
        sql("pin_plans") if mode == "pinned" else f"SET LOCAL plan_cache_mode = {mode}"
    )
    await db.execute(f"PREPARE tried({types}) AS {sql(name)}")
    found = await explained(db, f"EXECUTE tried({given})")
    await transaction.rollback()
    await db.execute("DEALLOCATE tried")
    return found


async def too_much(db, cases, mode) -> dict[str, tuple[int, list[str]]]:
    """Return which statements looked at more pages than they may, or read a table whole."""
    found = {}
    for name, types, arguments, pages in cases:
        looked_at, whole = await tried(db, name, types, arguments, mode)
        if looked_at > pages or whole:
            found[name] = (looked_at, whole)
    return found


async def test_matching_reads_by_index(seeded):
    assert await too_much(seeded, PINNED, "pinned") == {}


@pytest.mark.parametrize("mode", MODES)
async def test_storing_and_placing_read_by_index(seeded, mode):
    assert await too_much(seeded, UNPINNED, mode) == {}


async def test_the_feed_is_read_from_where_its_reader_is(seeded):
    """As any application reads it: nothing is pinned, and its driver may plan without values."""
    for mode, after in itertools.product(MODES, (0, MANY // 2, MANY - 10, MANY)):
        async with seeded.transaction():
            await seeded.execute(f"SET LOCAL plan_cache_mode = {mode}")
            await seeded.execute(
                "PREPARE follow(bigint, int) AS SELECT * FROM dispatcher.events($1, $2)"
            )
            looked_at, whole = await explained(seeded, f"EXECUTE follow({after}, 100)")
            rows = await seeded.fetch(f"EXECUTE follow({after}, 100)")
            await seeded.execute("DEALLOCATE follow")
        places = [row["position"] for row in rows]
        assert places == list(range(after + 1, min(after + 100, MANY) + 1))
        assert (whole, looked_at <= 2_000) == ([], True)


async def test_only_partitions_of_their_ids_are_looked_into(db):
    """There are hundreds, of years: a late answer would read a page of each."""
    await db.execute("SELECT dispatcher.make_partitions(100000000, 5000000)")
    await db.execute(query("load_accepted_batches"), 1)
    await db.execute(
        "UPDATE dispatcher.batch SET settled_by = 'operator: resend';"
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT n * 5000000 + 1, 'expired', 1 FROM generate_series(1, 19) AS n"
    )
    batch, token = await db.fetchrow("SELECT id, token FROM dispatcher.batch")
    cases = [
        ("have_outcome", "bigint[]", MESSAGES, 20),
        ("recall_left", "bigint[], bigint, text", each(MESSAGES, f"{batch}", f"'{token}'"), 20),
    ]
    assert await too_much(db, cases, "pinned") == {}


async def test_an_answer_of_nothing_given_up_reads_no_unsure_request(db):
    await db.execute(query("load_accepted_batches"), BATCHES)
    await db.execute("UPDATE dispatcher.batch SET state = 'unsure', unsure_at = now()")
    values = each(MESSAGES, "1", "'bench-0'")
    case = ("recall_left", "bigint[], bigint, text", values, 5)
    assert await too_much(db, [case], "pinned") == {}
