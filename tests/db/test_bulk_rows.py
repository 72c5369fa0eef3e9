"""Messages that were inserted together wait together, and are claimed in their place."""

import asyncio
import math
from time import monotonic

import asyncpg
import pytest
from structlog.testing import capture_logs
from support.waiting import until

from dispatcher.core.claim_cursor import BEGINNING, PRIORITY_COUNT, ClaimCursor
from dispatcher.db.claim import claim, set_aside
from dispatcher.db.database import connect
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.queries import sql
from dispatcher.db.status import now

FEW, MANY, BLOCK = 19, 20, 500
INSERT = (
    "INSERT INTO dispatcher.message (recipient, template_id, app, priority, send_at)"
    " SELECT '+86131' || lpad(n::text, 8, '0'), 't', $2, $3, now() + $4::text::interval"
    " FROM generate_series(1, $1::int) AS n RETURNING id"
)


@pytest.fixture(autouse=True)
async def app(db):
    """An app that a worker has named."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")


@pytest.fixture
def insert(db):
    """Insert so many messages in one statement; return their ids."""

    async def insert(count, *, app="default", priority=5, due="0") -> list[int]:
        return [row["id"] for row in await db.fetch(INSERT, count, app, priority, due)]

    return insert


@pytest.fixture
def take(database):
    """Claim at most so many messages; return their ids, in order."""
    number = 0
    cursor = ClaimCursor(monotonic)

    async def take(limit=10_000, **wanted) -> list[int]:
        nonlocal number
        seen = []

        def arrange(messages, *_):
            seen.extend(messages)
            return Arranged(messages)

        def token() -> str:
            nonlocal number
            number += 1
            return f"token-{number}"

        claimed = await claim(
            database,
            1,
            ClaimRequest(
                "default", slots=max(1, limit // 500), per_request=min(limit, 500), **wanted
            ),
            arrange=arrange,
            token=token,
            cursor=cursor,
        )
        assert claimed.messages == len(seen)
        return [message.id for message in seen]

    return take


class Arranged:
    """All messages in one request, whatever their number."""

    outcomes = ()

    def __init__(self, messages) -> None:
        self.packed = [Packed(messages)] if messages else []


class Packed:
    """One request."""

    sender, size = "s", 50_000

    def __init__(self, messages) -> None:
        self.messages = messages


async def bulk(db) -> list[tuple[int, int]]:
    """Return the first id and the size of each bulk row."""
    rows = await db.fetch("SELECT first_id, size FROM dispatcher.bulk ORDER BY first_id")
    return [(row["first_id"], row["size"]) for row in rows]


async def queue(db) -> list[int]:
    """Return the messages that wait alone."""
    return [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.queue ORDER BY id")]


async def states(db) -> list[str]:
    """Return the states that messages are in."""
    rows = await db.fetch("SELECT DISTINCT state FROM dispatcher.message_status ORDER BY 1")
    return [row["state"] for row in rows]


async def test_many_messages_of_one_insert_wait_in_one_row(db, insert):
    await insert(MANY)
    assert (await bulk(db), await queue(db)) == ([(1, MANY)], [])


async def test_few_messages_of_one_insert_wait_alone(db, insert):
    ids = await insert(FEW)
    assert (await bulk(db), await queue(db)) == ([], ids)


async def test_a_row_holds_ids_of_one_block_of_500(db, insert):
    await insert(2 * BLOCK + FEW)
    assert await bulk(db) == [(1, BLOCK), (BLOCK + 1, BLOCK)]
    assert await queue(db) == list(range(2 * BLOCK + 1, 2 * BLOCK + FEW + 1))


async def test_messages_that_differ_wait_apart(db):
    await db.execute(
        "INSERT INTO dispatcher.message"
        " (recipient, template_id, app, priority, send_at, campaign)"
        " SELECT '13112345678', 't', 'a' || n % 2, n / 2 % 2, timestamptz '2999-01-01'"
        " + n / 4 % 2 * interval '1 s', nullif(n / 8 % 2, 0)"
        " FROM generate_series(0, 16 * 20 - 1) AS n"
    )
    found = await db.fetch("SELECT app, priority, due_at, campaign, size FROM dispatcher.bulk")
    assert len({tuple(row) for row in found}) == 16
    assert {row["size"] for row in found} == {20}


async def test_a_row_names_exactly_the_messages_that_agree(db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, app)"
        " SELECT '13112345678', 't', CASE WHEN n % 7 = 0 THEN 'rare' ELSE 'a' || n % 3 END"
        " FROM generate_series(1, 700) AS n"
    )
    assert not await db.fetch(
        "SELECT id, app FROM dispatcher.message EXCEPT ("
        " SELECT id, app FROM dispatcher.queue UNION ALL"
        " SELECT generate_series(lower(r), upper(r) - 1), app"
        " FROM (SELECT app, unnest(ids) AS r FROM dispatcher.bulk) AS b)"
    )
    assert (
        await db.fetchval(
            "SELECT (SELECT count(*) FROM dispatcher.queue)"
            " + (SELECT sum(size) FROM dispatcher.bulk)"
        )
        == 700
    )


async def test_a_message_of_a_bulk_row_is_queued(db, insert):
    await insert(MANY, due="1 hour")
    rows = await db.fetch(
        "SELECT state, attempts, due_at, batch_token FROM dispatcher.message_status"
    )
    assert {(row["state"], row["attempts"], row["batch_token"]) for row in rows} == {
        ("queued", 0, None)
    }
    assert {row["due_at"] for row in rows} == {
        await db.fetchval("SELECT due_at FROM dispatcher.bulk")
    }


async def test_bulk_rows_are_claimed_in_order(db, insert, take):
    ids = await insert(3 * BLOCK)
    assert await take(2 * BLOCK) == ids[: 2 * BLOCK]
    assert await take() == ids[2 * BLOCK :]
    assert await take() == []
    assert await states(db) == ["sending"]


async def test_messages_of_several_rows_come_by_due_time_and_id(db):
    # With gaps, in two partitions, and the rows of the least ids are not due first.
    await db.execute(
        "INSERT INTO dispatcher.message (id, recipient, template_id, send_at)"
        " SELECT 4999800 + 2 * n, '+86131' || lpad(n::text, 8, '0'), 't',"
        " now() + make_interval(mins => n % 3)"
        " FROM generate_series(1, 240) AS n ORDER BY md5(n::text)"
    )
    await db.execute("UPDATE dispatcher.bulk SET due_at = due_at - interval '1 hour'")
    since = [BEGINNING] * PRIORITY_COUNT
    head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, since)
    arguments = ("default", 1000, 5, head["due_at"], None, False)
    *taken, expected = await db.fetch(sql("claim_bulk"), *arguments)
    assert expected[1] == 240
    places = [(row[0], row["id"]) for row in taken]
    assert (len(places), len({due for due, _ in places})) == (240, 3)
    assert places == sorted(places)


async def test_a_claim_for_fewer_leaves_the_rest_in_a_row(db, insert, take):
    ids = await insert(BLOCK)
    assert await take(30) == ids[:30]
    assert (await bulk(db), await queue(db)) == ([(31, BLOCK - 30)], [])
    assert await take(1) == ids[30:31]
    assert await take() == ids[31:]


async def test_a_claim_for_fewer_takes_a_row_with_gaps_apart(db, take):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, app) SELECT '13112345678', 't',"
        " CASE n % 3 WHEN 0 THEN 'default' ELSE 'other' END FROM generate_series(1, 90) AS n"
    )
    ids = list(range(3, 91, 3))
    assert [part for _ in range(4) for part in await take(8)] == ids
    assert await db.fetchval("SELECT count(*) FROM dispatcher.bulk WHERE app = 'default'") == 0


async def test_a_claim_fills_itself_from_rows_of_few_messages(db, insert, take):
    ids = await insert(4 * BLOCK)
    left = [each for each in ids if each % 40 == 7]
    gone = [each for each in ids if each % 40 != 7]
    assert await db.fetchval("SELECT dispatcher.cancel($1)", gone[: 3 * BLOCK]) == 3 * BLOCK
    expected = sorted(left + gone[3 * BLOCK :])
    taken = []
    for limit in (3, 40, 100, 7, BLOCK):
        part = await take(limit)
        assert len(part) == min(limit, len(expected) - len(taken))
        taken += part
    assert taken == expected


async def test_a_better_priority_goes_first_wherever_it_waits(insert, take):
    last = await insert(MANY, priority=7)
    alone = await insert(1, priority=5)
    first = await insert(MANY, priority=3)
    urgent = await insert(1, priority=0)
    assert await take() == urgent + first + alone + last


async def test_what_is_due_first_goes_first_wherever_it_waits(insert, take):
    expected = []
    for count in (MANY, 1, 1, MANY, BLOCK, 2, MANY, 1):
        expected += await insert(count)
    taken = []
    for limit in (7, 13, 1, 1, 25, 400, 10_000):
        taken += await take(limit)
    assert taken == expected


async def test_what_is_not_due_yet_is_not_claimed(insert, take):
    await insert(MANY, due="1 hour")
    now = await insert(MANY)
    await insert(1, due="1 hour")
    assert await take() == now


KEEPS = """
    CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RETURN NEW; END $$;
    CREATE TRIGGER audit BEFORE DELETE ON dispatcher.bulk FOR EACH ROW
    WHEN (OLD.first_id < {}) EXECUTE FUNCTION public.audit();
"""


async def test_bulk_rows_that_a_trigger_keeps_are_not_claimed(db, insert, take):
    """Each claim would send them once more: NEW is null in a DELETE, the usual mistake."""
    kept = await insert(MANY)
    alone = await insert(1)
    await db.execute(KEEPS.format("1000"))
    with capture_logs() as logs:
        assert await take() == alone
    assert {"rows of dispatcher.bulk cannot be deleted" in line["event"] for line in logs} == {True}
    assert await bulk(db) == [(1, MANY)]
    await db.execute("DROP TRIGGER audit ON dispatcher.bulk")
    assert await until(take) == kept  # a scan from the beginning comes each second


async def test_bulk_rows_beside_one_that_a_trigger_keeps_are_claimed(db, insert, take):
    await insert(MANY)
    others = await insert(MANY)
    await db.execute(KEEPS.format(others[0]))
    assert await take(MANY + 10) == others[:10]
    assert await bulk(db) == [(1, MANY), (others[10], MANY - 10)]


async def test_a_claim_takes_only_its_priorities(insert, take):
    await insert(MANY, priority=5)
    urgent = await insert(MANY, priority=1)
    assert await take(last_priority=1) == urgent
    assert await take(last_priority=1) == []


async def test_a_paused_app_keeps_its_bulk_rows(db, insert, take):
    await insert(MANY)
    await db.execute("SELECT dispatcher.pause('default', 'a test')")
    assert await take() == []
    assert await bulk(db) == [(1, MANY)]


async def test_a_pause_within_a_claim_stops_bulk_rows_too(db, insert):
    await insert(MANY)
    await db.execute("SELECT dispatcher.pause('default', 'a test')")
    since = [BEGINNING] * PRIORITY_COUNT
    head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, since)
    arguments = ("default", 500, 5, head["due_at"], None)
    assert await db.fetch(sql("claim_bulk"), *arguments, False) == []
    assert len(await db.fetch(sql("claim_bulk"), *arguments, True)) == MANY + 1


async def test_a_probe_takes_one_message_of_a_bulk_row(db, insert, take):
    ids = await insert(MANY)
    await db.execute(
        "UPDATE dispatcher.app SET paused_at = now(), paused_by = 'worker', probe_at = now()"
    )
    assert await take() == ids[:1]
    assert await bulk(db) == [(2, MANY - 1)]
    assert await take() == []  # not before the next probe is due


async def test_a_claim_rolled_back_leaves_the_rows_as_they_were(db, insert):
    await insert(BLOCK)
    transaction = db.transaction()
    await transaction.start()
    since = [BEGINNING] * PRIORITY_COUNT
    head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, since)
    taken = await db.fetch(sql("claim_bulk"), "default", 30, 5, head["due_at"], None, False)
    assert (len(taken) - 1, await bulk(db)) == (30, [(31, BLOCK - 30)])
    await transaction.rollback()
    assert await bulk(db) == [(1, BLOCK)]


async def test_a_row_that_another_claim_holds_is_passed(dsn, insert, take):
    ids = await insert(2 * BLOCK)
    single = await insert(1)
    other = await connect(dsn)
    async with other.transaction():
        await other.fetchrow(sql("lock_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        assert await take() == ids[BLOCK:] + single
    await other.close()
    assert await until(take) == ids[:BLOCK]


async def test_a_cancel_leaves_the_others_of_a_row_together(db, insert, take):
    ids = await insert(3 * BLOCK)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", [ids[0], ids[BLOCK - 1]]) == 2
    assert await bulk(db) == [(2, BLOCK - 2), (BLOCK + 1, BLOCK), (2 * BLOCK + 1, BLOCK)]
    assert await queue(db) == []
    assert await take() == ids[1 : BLOCK - 1] + ids[BLOCK:]


async def test_a_cancel_of_all_takes_all(db, insert):
    ids = await insert(2 * BLOCK + FEW)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == len(ids)
    assert (await bulk(db), await queue(db), await states(db)) == ([], [], ["cancelled"])
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == 0


@pytest.mark.parametrize("odd", [[0], [-1], [None, 0], [2**63 - 1], [-(2**63)], [], None])
async def test_a_cancel_of_odd_ids_touches_no_row(db, insert, odd):
    await insert(MANY)
    assert await db.fetchval("SELECT dispatcher.cancel($1::bigint[])", odd) == 0
    assert await bulk(db) == [(1, MANY)]


@pytest.mark.parametrize("wanted", [30, BLOCK])
async def test_a_cancel_waits_for_a_claim_and_takes_what_it_left(
    db, dsn, insert, until_it_waits, wanted
):
    ids = await insert(BLOCK)
    canceller = await connect(dsn)
    async with db.transaction():
        head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        await db.fetch(sql("claim_bulk"), "default", wanted, 5, head["due_at"], None, False)
        cancel = asyncio.create_task(canceller.fetchval("SELECT dispatcher.cancel($1)", ids))
        watcher = await connect(dsn)
        await until_it_waits(watcher, canceller.get_server_pid())
    assert await cancel == BLOCK - wanted
    assert (await bulk(db), await queue(db)) == ([], [])
    for each in (canceller, watcher):
        await each.close()


async def test_a_requeue_takes_its_message_out_of_a_bulk_row(db, insert):
    """A load with the trigger on put it there; else two requests would send it."""
    ids = await insert(MANY)
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'rejected', 1)",
        ids[1],
    )
    assert await db.fetchval("SELECT dispatcher.requeue($1)", ids) == 1
    assert await queue(db) == [ids[1]]
    assert await bulk(db) == [(1, MANY - 1)]


async def test_forget_cancels_what_waits_in_a_bulk_row(db, insert):
    ids = await insert(MANY)
    row = await db.fetchrow("SELECT * FROM dispatcher.forget('{+8613100000002}')")
    assert (row["erased"], row["left_alone"]) == ([ids[1]], [])
    assert await bulk(db) == [(1, MANY - 1)]
    assert (
        await db.fetchval("SELECT recipient FROM dispatcher.message WHERE id = $1", ids[1]) == "0"
    )


async def test_a_partition_with_a_bulk_row_is_open(db, insert):
    await db.execute("SELECT setval('dispatcher.message_id', 1009)")
    await insert(MANY, due="1 hour")
    for first, past, is_open in (
        (1, 1010, False),
        (1, 1011, True),
        (1029, 1100, True),
        (1030, 1500, False),
    ):
        assert (
            await db.fetchval("SELECT dispatcher.has_open_messages($1, $2)", first, past) is is_open
        )
        assert await db.fetchval("SELECT dispatcher.is_idle($1, $2)", first, past)
    await db.execute("UPDATE dispatcher.bulk SET due_at = now()")
    assert not await db.fetchval("SELECT dispatcher.is_idle(1, 1011)")
    assert await db.fetchval("SELECT dispatcher.is_idle(1, 1010)")


async def test_status_counts_bulk_rows(database, insert):
    await insert(MANY)
    await insert(2, due="-1 hour")
    await insert(2 * BLOCK, app="unknown", due="1 hour")
    apps = {app.name: app for app in (await now(database)).apps}
    assert {name: app.waiting for name, app in apps.items()} == {
        "default": MANY + 2,
        "unknown": 2 * BLOCK,
    }
    assert apps["default"].oldest_due_at is not None
    assert apps["unknown"].oldest_due_at is None


async def test_what_is_due_is_counted_in_both_tables(db, insert):
    await insert(MANY)
    await insert(2)
    await insert(MANY, due="1 hour")
    await insert(10_000, app="other")
    await insert(FEW, app="other")
    rows = await db.fetch(sql("due_counts"), ["default", "other"])
    assert {row["name"]: row["due"] for row in rows} == {"default": MANY + 2, "other": 10_001}


async def test_status_counts_at_most_10001(database, insert):
    await insert(10_000)
    await insert(FEW)
    [app] = (await now(database)).apps
    assert app.waiting == 10_001


async def test_an_insert_with_a_used_key_leaves_no_bulk_row(db, insert):
    insert = (
        "INSERT INTO dispatcher.message (recipient, template_id, idempotency_key)"
        " SELECT '13112345678', 't', $1 || n FROM generate_series(1, 100) AS n"
    )
    await db.execute(insert, "k")
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute(insert, "k")
    assert await db.fetchval("SELECT sum(size) FROM dispatcher.bulk") == 100


async def test_a_start_after_an_outage_sees_bulk_rows(db, insert):
    await insert(MANY)
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)"
        " VALUES ('h', 1, '0', '{default}', interval '1 min', now() - interval '1 hour')"
    )
    [seen] = await db.fetch(sql("last_seen"), 60.0, 60.0, None)
    assert await db.fetch(sql("apps_of_old_queue"), seen["sent_until"], None) == []
    await db.execute("UPDATE dispatcher.message SET queued_at = now() - interval '2 hours'")
    [row] = await db.fetch(sql("apps_of_old_queue"), seen["sent_until"], None)
    assert row["app"] == "default"


async def campaign_of(db, name="June", count=BLOCK + MANY, lifetime=None) -> list[int]:
    """Insert messages of a campaign in one statement; return their ids."""
    rows = await db.fetch(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign, send_at, expires_at)"
        " SELECT '+86131' || lpad(n::text, 8, '0'), 't', $1, now() - interval '1 hour',"
        " now() + $3::text::interval"
        " FROM generate_series(1, $2::int) AS n RETURNING id",
        name,
        count,
        lifetime,
    )
    return [row["id"] for row in rows]


async def test_bulk_rows_of_a_paused_campaign_are_passed(db, insert, take):
    june = await campaign_of(db)
    others = await insert(MANY)
    await db.execute("SELECT dispatcher.pause_campaign('June')")
    rows = await bulk(db)
    assert await take() == others
    assert await bulk(db) == rows[:2]
    await db.execute("SELECT dispatcher.resume_campaign('June')")
    again = []  # a scan from the beginning comes every second
    await until(lambda: take_into(again, take))
    assert again == june


async def take_into(found, take) -> list[int]:
    found += await take()
    return found


async def test_a_pause_of_a_campaign_within_a_claim_stops_its_rows(db):
    await campaign_of(db)
    head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
    await db.execute("SELECT dispatcher.pause_campaign('June')")
    claimed = await db.fetch(sql("claim_bulk"), "default", 500, 5, head["due_at"], None, False)
    assert claimed == []


async def test_a_cancelled_campaign_leaves_the_bulk_rows_in_steps(db):
    june = await campaign_of(db, count=3 * BLOCK)
    await campaign_of(db, "May", MANY)
    await db.execute("SELECT dispatcher.cancel_campaign('June')")
    steps = [await db.fetchval("SELECT dispatcher.cancel_campaign_step(750)") for _ in range(4)]
    assert (sum(steps), steps[-1]) == (len(june), 0)
    assert max(steps) <= 750
    assert await bulk(db) == [(3 * BLOCK + 1, MANY)]
    assert await queue(db) == []
    assert await states(db) == ["cancelled", "queued"]


async def test_a_campaign_that_waits_in_bulk_rows_stops_itself(db):
    ids = await campaign_of(db, count=2 * BLOCK)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids[:BLOCK]) == BLOCK
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected'")
    await db.execute("UPDATE dispatcher.campaign SET stop_at = 0.5")
    assert await db.fetchval("SELECT dispatcher.stop_campaigns()") == 1
    assert await db.fetchval("SELECT state FROM dispatcher.campaign") == "paused"


@pytest.mark.parametrize("step", [7, 600, 10_000])
async def test_a_moved_campaign_keeps_its_bulk_rows(db, step):
    await campaign_of(db, count=3 * BLOCK)
    await campaign_of(db, count=3)
    await campaign_of(db, "May", MANY)
    await db.execute(
        "SELECT dispatcher.move_campaign('June', send_at => '2036-01-01Z', priority => 1)"
    )
    assert await moved(db, step) == 3 * BLOCK + 3
    assert await bulk(db) == [(at * BLOCK + 1, BLOCK) for at in range(3)] + [(3 * BLOCK + 4, MANY)]
    rows = await db.fetch(
        "SELECT campaign, due_at = '2036-01-01Z', priority FROM dispatcher.queue UNION"
        " SELECT campaign, due_at = '2036-01-01Z', priority FROM dispatcher.bulk ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("June", True, 1), ("May", False, 5)]
    assert (
        await db.fetchval("SELECT state FROM dispatcher.campaign WHERE name = 'June'") == "running"
    )


@pytest.mark.parametrize(
    ("send_at", "wait"),
    [("3000-01-01Z", 0), ("infinity", 0), ("2036-01-01Z", 3e7 * 2), ("2036-01-01Z", math.nan)],
)
async def test_a_campaign_moves_to_no_time_too_far_away(db, send_at, wait):
    await campaign_of(db, count=1)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="before the year 3000"):
        await db.execute(
            "SELECT dispatcher.move_campaign('June', send_at => $1::text::timestamptz, wait => $2)",
            *(send_at, wait),
        )


async def test_no_moved_message_is_due_when_no_time_can_be_read(db):
    await campaign_of(db, count=1)
    await db.execute(
        "SELECT dispatcher.move_campaign('June', send_at => '2999-12-31Z', wait => 366 * 86400)"
    )
    await db.execute("UPDATE dispatcher.campaign SET moved = 1000000")
    await moved(db, 10_000)
    last = await db.fetchval("SELECT max(due_at) FROM dispatcher.queue")
    assert last.year in range(6990, 7001)


@pytest.mark.parametrize("step", [7, 600, 10_000])
async def test_a_campaign_spread_over_time_keeps_the_order_of_ids(db, step):
    await campaign_of(db, count=2)
    await db.execute(  # rows that lie within each other
        "INSERT INTO dispatcher.message (recipient, template_id, campaign, priority)"
        " SELECT '13112345678', 't', 'June', 3 + n % 3 FROM generate_series(1, 700) AS n"
    )
    await campaign_of(db, count=2)
    await db.execute("SELECT dispatcher.move_campaign('June', send_at => '2036-01-01Z', wait => 2)")
    assert await moved(db, step) == 704
    assert await bulk(db) == []
    due = await db.fetch(
        "SELECT date_part('epoch', due_at - '2036-01-01Z') FROM dispatcher.queue ORDER BY id"
    )
    assert [row[0] for row in due] == [2 * n for n in range(704)]
    assert await db.fetchval("SELECT state FROM dispatcher.campaign") == "running"


async def moved(db, step: int) -> int:
    """Move the campaign, step by step; return how many messages have moved."""
    while await db.fetchval("SELECT dispatcher.move_campaign_step($1)", step):
        pass
    return await db.fetchval("SELECT moved FROM dispatcher.campaign WHERE name = 'June'")


@pytest.fixture
async def other(dsn):
    """A second session, which fails if it has to wait for a lock."""
    connection = await connect(dsn)
    await connection.execute("SET lock_timeout = '1s'")
    yield connection
    await connection.close()


MOVE_STEP = "SELECT dispatcher.move_campaign_step()"


async def test_a_move_takes_what_a_claim_has_left(db, other):
    await campaign_of(db, count=BLOCK)
    async with db.transaction():
        head = await db.fetchrow(sql("lock_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        await db.fetch(sql("claim_bulk"), "default", 30, 5, head["due_at"], None, False)
        await other.execute("SELECT dispatcher.move_campaign('June', priority => 1)")
        assert await other.fetchval(MOVE_STEP) == 0
    assert await moved(db, 10_000) == BLOCK - 30
    assert await db.fetchval("SELECT priority FROM dispatcher.bulk") == 1


@pytest.mark.parametrize("wait", [0, 2])
async def test_a_move_takes_what_a_claim_returns(db, other, wait):
    ids = await campaign_of(db, count=FEW)
    async with db.transaction():
        arguments = ("default", 10, 0, 9, None, [BEGINNING] * PRIORITY_COUNT, True, None, False)
        claimed = [row["id"] for row in await db.fetch(sql("claim"), *arguments)]
        await other.execute(
            "SELECT dispatcher.move_campaign('June', send_at => '2036-01-01Z', wait => $1)", wait
        )
        assert await other.fetchval(MOVE_STEP) == 0
        count = len(claimed)
        await db.execute(
            sql("return_claimed"), "default", claimed, [5] * count, [None] * count, [0.0] * count,
            [0] * count, [False] * count, [None] * count, [None] * count, [0] * count,
        )  # fmt: skip
    assert count == 10
    assert await moved(db, 10_000) == FEW
    assert await waits_in_order(db) == [wait * n for n in range(len(ids))]


async def test_a_spread_waits_for_lower_ids_that_are_not_committed(db, other):
    await campaign_of(db, count=1)
    async with other.transaction():
        await campaign_of(other, count=2)
        await campaign_of(db, count=3)
        await db.execute(
            "SELECT dispatcher.move_campaign('June', send_at => '2036-01-01Z', wait => 2)"
        )
        assert await db.fetchval(MOVE_STEP) == 0
    assert await moved(db, 2) == 6
    assert await waits_in_order(db) == [2 * n for n in range(6)]


async def waits_in_order(db) -> list[float]:
    """Return how long after the first of 2036 each message that waits alone is due."""
    rows = await db.fetch(
        "SELECT date_part('epoch', due_at - '2036-01-01Z') FROM dispatcher.queue ORDER BY id"
    )
    return [row[0] for row in rows]


async def test_a_move_waits_a_minute_for_a_claim_at_most(db, other):
    await campaign_of(db)
    await db.execute("SELECT dispatcher.move_campaign('June', priority => 1)")
    async with other.transaction():
        await campaign_of(other, "May", 1)
        assert await db.fetchval(MOVE_STEP) == 0
        await db.execute("UPDATE dispatcher.campaign SET changed_at = now() - interval '61 s'")
        assert await db.fetchval(MOVE_STEP) == BLOCK + MANY


async def test_a_move_does_not_wait_for_later_transactions(db, other):
    await campaign_of(db)
    await db.execute("SELECT dispatcher.move_campaign('June', priority => 1)")
    async with other.transaction():
        await campaign_of(other, "May", 1)
        assert await db.fetchval(MOVE_STEP) == 0
    async with other.transaction():
        await campaign_of(other, "May", 1)
        assert await db.fetchval(MOVE_STEP) == BLOCK + MANY


async def test_a_campaign_that_cannot_move_yet_delays_no_other(db, other):
    await campaign_of(db)
    await campaign_of(db, "May", 3)
    await db.execute("SELECT dispatcher.move_campaign('May', priority => 1)")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step(1)") == 1
    await db.execute("SELECT dispatcher.move_campaign('June', priority => 1)")
    async with other.transaction():
        await campaign_of(other, "July", 1)
        assert [await db.fetchval(MOVE_STEP) for _ in range(3)] == [0, 2, 0]


PAUSES = (
    "SELECT dispatcher.pause_campaign('June')",
    "SELECT dispatcher.stop_campaigns(1)",
)
MOVE = "SELECT dispatcher.move_campaign('June', send_at => '2036-01-01Z')"


@pytest.mark.parametrize("changes", [(PAUSES[0], MOVE), (MOVE, PAUSES[0]), (PAUSES[1], MOVE)])
async def test_a_campaign_that_is_resumed_moves_before_it_runs(db, take, changes):
    ids = await campaign_of(db)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids[:1]) == 1
    await db.execute("UPDATE dispatcher.outcome SET state = 'rejected'")
    await db.execute("UPDATE dispatcher.campaign SET stop_at = 0.5")
    for change in changes:
        await db.execute(change)
    state = "SELECT state FROM dispatcher.campaign"
    assert await db.fetchval(state) == "paused"
    await db.execute("SELECT dispatcher.resume_campaign('June')")
    assert (await take(), await db.fetchval(state)) == ([], "moving")
    assert await moved(db, 10_000) == len(ids) - 1
    assert (await take(), await db.fetchval(state)) == ([], "running")
    assert not await db.fetch("SELECT FROM dispatcher.bulk WHERE due_at < '2036-01-01Z'")


async def test_a_campaign_moved_while_it_is_paused_stays_paused(db, take):
    await campaign_of(db)
    await db.execute(PAUSES[0])
    await db.execute("SELECT dispatcher.move_campaign('June', priority => 1)")
    assert await moved(db, 10_000) == BLOCK + MANY
    state = "SELECT state FROM dispatcher.campaign"
    assert (await take(), await db.fetchval(state)) == ([], "paused")
    await db.execute("SELECT dispatcher.resume_campaign('June')")
    assert await db.fetchval(state) == "running"


async def test_a_step_of_a_cancel_does_not_wait_for_a_cancel(db, other):
    ids = await campaign_of(db, count=2 * BLOCK)
    step = "SELECT dispatcher.cancel_campaign_step()"
    await db.execute("SELECT dispatcher.cancel_campaign('June')")
    async with db.transaction():
        assert await db.fetchval("SELECT dispatcher.cancel($1)", ids[:1]) == 1
        assert await other.fetchval(step) == 0
        assert await db.fetchval("SELECT dispatcher.cancel($1)", ids[-1:]) == 1
    assert await other.fetchval(step) == 2 * BLOCK - 2


async def test_a_cancel_in_one_app_does_not_delay_another_app(db, other, insert):
    ids = await insert(MANY)
    others = await insert(MANY, app="other")
    async with db.transaction():
        assert await db.fetchval("SELECT dispatcher.cancel($1)", ids[:1]) == 1
        assert await other.fetchval("SELECT dispatcher.cancel($1)", others[:1]) == 1


CAMPAIGNS = [f"c{n:02}" for n in range(60)]
INSERT_CAMPAIGNS = (
    "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
    " SELECT '13112345678', 't', 'c' || lpad((n * 7 % 60)::text, 2, '0')"
    " FROM generate_series(1, 600) AS n"
)


async def test_campaigns_of_an_insert_are_made_in_order(db):
    await db.execute(INSERT_CAMPAIGNS)
    rows = await db.fetch("SELECT name FROM dispatcher.campaign ORDER BY ctid")
    assert [row["name"] for row in rows] == CAMPAIGNS


async def test_campaigns_of_an_insert_are_locked_in_order(db, dsn, other, until_it_waits):
    await db.executemany(
        "INSERT INTO dispatcher.campaign (name, first_id) VALUES ($1, 100000)",
        [(name,) for name in reversed(CAMPAIGNS)],
    )
    inserter = await connect(dsn)
    async with db.transaction():
        await db.execute("SELECT FROM dispatcher.campaign WHERE name = 'c30' FOR UPDATE")
        insert = asyncio.create_task(inserter.execute(INSERT_CAMPAIGNS))
        await until_it_waits(other, inserter.get_server_pid())
        free = await other.fetch(
            "SELECT name FROM dispatcher.campaign ORDER BY name FOR UPDATE SKIP LOCKED"
        )
    await insert
    assert [row["name"] for row in free] == CAMPAIGNS[31:]
    assert await db.fetchval("SELECT max(first_id) FROM dispatcher.campaign") <= 60
    await inserter.close()


async def test_lists_and_campaigns_count_bulk_rows(db, insert):
    await campaign_of(db)
    await insert(3, app="other")
    campaign = await db.fetchrow(sql("campaigns"), 1, "June")
    assert campaign["waiting"] == BLOCK + MANY
    assert [row["waiting"] for row in await db.fetch(sql("campaigns"), 10, None)] == [BLOCK + MANY]
    assert await db.fetchval(sql("live_counts"), None) == BLOCK + MANY + 3
    assert await db.fetchval(sql("live_counts"), "default") == BLOCK + MANY
    assert await db.fetchval(sql("live_counts"), "other") == 3


@pytest.mark.parametrize("rows", [1, 7, 500, 8000])
async def test_a_list_of_what_waits_is_whole_and_in_order(db, insert, rows):
    for count in (3, BLOCK + MANY, 1, FEW, MANY, 2):
        await insert(count)
    await db.execute(  # rows that lie within each other
        "INSERT INTO dispatcher.message (recipient, template_id, app) SELECT '13112345678', 't',"
        " 'a' || n % 3 FROM generate_series(1, 700) AS n"
    )
    expected = [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.message")]
    found, below = [], 2**62
    while below is not None:
        piece = await db.fetchrow(sql("queue_piece"), below, rows, None, None, None)
        below = piece["last_id"]
        found += piece["ids"]
    assert found == sorted(expected, reverse=True)


async def test_a_list_of_what_waits_keeps_to_its_app_and_code(db, insert):
    await insert(MANY, app="other")
    ids = await insert(MANY)
    await db.execute("UPDATE dispatcher.queue SET code = 'E200015'")
    piece = await db.fetchrow(sql("queue_piece"), 2**62, 500, "default", None, None)
    assert sorted(piece["ids"]) == ids
    piece = await db.fetchrow(sql("queue_piece"), 2**62, 500, None, "E200015", None)
    assert piece["ids"] == []


async def test_messages_of_a_bulk_row_expire_without_the_others(db):
    ids = await campaign_of(db, lifetime="1 hour")
    early = ids[10:12] + ids[-1:]
    await db.execute(
        "UPDATE dispatcher.message SET expires_at = now() - interval '1 s' WHERE id = ANY ($1)",
        early,
    )
    row = await db.fetchrow("SELECT * FROM dispatcher.expire()")
    assert (row["expired"], row["last"]) == (3, None)
    ended = await db.fetch(
        "SELECT id FROM dispatcher.message_status WHERE state = 'expired' ORDER BY id"
    )
    assert [row["id"] for row in ended] == early
    assert await bulk(db) == [(1, BLOCK - 2), (BLOCK + 1, MANY - 1)]


async def test_a_bulk_row_that_a_claim_holds_does_not_delay_expiry(db, dsn):
    await campaign_of(db, lifetime="-1 s")
    other = await connect(dsn)
    async with other.transaction():
        await other.fetchrow(sql("lock_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        assert await db.fetchval("SELECT expired FROM dispatcher.expire()") == MANY
    await other.close()
    assert await bulk(db) == [(1, BLOCK)]


async def test_a_damaged_bulk_message_is_rejected_alone(database, db, insert, take):
    def arrange(*_):
        raise ValueError

    ids = await insert(MANY)
    assert await set_aside(database, 1, ClaimRequest("default"), arrange=arrange) == ids[0]
    assert await bulk(db) == [(2, MANY - 1)]
    assert await states(db) == ["queued", "rejected"]
    assert await take() == ids[1:]


async def test_the_message_to_set_aside_is_the_first_of_both(db, insert):
    bulk_first = await insert(MANY)
    single = await insert(1)
    assert await db.fetchval(sql("lock_head"), "default", 0, 9, False) == bulk_first[0]
    await db.execute("UPDATE dispatcher.queue SET due_at = now() - interval '1 minute'")
    assert await db.fetchval(sql("lock_head"), "default", 0, 9, False) == single[0]
    better = await insert(MANY, priority=3)
    assert await db.fetchval(sql("lock_head"), "default", 0, 9, False) == better[0]


async def test_no_message_of_a_paused_campaign_is_set_aside(db, insert):
    await campaign_of(db, count=1)
    await campaign_of(db, count=MANY)
    single = await insert(1)
    await db.execute("SELECT dispatcher.pause_campaign('June')")
    assert await db.fetchval(sql("lock_head"), "default", 0, 9, False) == single[0]


async def test_messages_loaded_again_after_they_were_sent_stay_finished(db, insert, take):
    ids = await insert(2 * BLOCK)
    sent = ids[:BLOCK] + ids[BLOCK + 3 : BLOCK + 6]
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT unnest($1::bigint[]), 'accepted', 1",
        sent,
    )
    taken = []
    for limit in (BLOCK, 7, BLOCK):
        taken += await take(limit)
    assert taken == [each for each in ids if each not in sent]
    assert await bulk(db) == []


async def test_a_dump_that_is_loaded_leaves_each_message_in_one_place(db, insert, take):
    """Through the parent table, with triggers on: the table of messages comes after the others."""
    ids = await insert(2 * BLOCK)
    ids += await insert(FEW)
    taken = await take(BLOCK + 30)
    accepted, open_, unsure = taken[:10], taken[10:15], taken[15:]
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT unnest($1::bigint[]), 'accepted', 1",
        accepted,
    )
    await db.executemany(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state)"
        " VALUES ($1, 'default', 1, $2, $3, 1, $4)",
        [
            (state, each, [1] * len(each), state)
            for state, each in (("open", open_), ("unsure", unsure))
        ],
    )
    before = await db.fetch("SELECT id, state FROM dispatcher.message_status ORDER BY id")
    await db.execute("CREATE TEMP TABLE dump AS TABLE dispatcher.message")
    await db.execute("DELETE FROM dispatcher.message")
    await db.execute("INSERT INTO dispatcher.message TABLE dump")
    assert await db.fetch("SELECT id, state FROM dispatcher.message_status ORDER BY id") == before
    again = await take(3 * BLOCK)
    assert sorted(again) == sorted({*ids} - {*taken})


async def test_a_dump_without_its_queue_waits_anew(db, insert, take):
    ids = await insert(MANY)
    await db.execute("CREATE TEMP TABLE dump AS TABLE dispatcher.message")
    await db.execute("DELETE FROM dispatcher.message")
    await db.execute("DELETE FROM dispatcher.bulk")
    await db.execute("INSERT INTO dispatcher.message TABLE dump")
    assert await take(2 * MANY) == ids


async def test_a_claim_of_finished_messages_alone_asks_for_more(database, db, insert):
    ids = await insert(BLOCK)
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts)"
        " SELECT unnest($1::bigint[]), 'accepted', 1",
        ids,
    )
    claimed = await claim(
        database, 1, ClaimRequest("default"), arrange=Arranged, token=lambda: "token"
    )
    assert (claimed.more, claimed.messages) == (True, 0)


async def test_many_urgent_messages_of_one_insert_notify_once(dsn, insert):
    heard = asyncio.Queue()
    listener = await connect(dsn)
    await listener.add_listener("dispatcher_urgent", lambda *event: heard.put_nowait(event[-1]))
    await insert(MANY, priority=5)
    await insert(MANY, priority=1)
    assert await asyncio.wait_for(heard.get(), 60) == "default"
    assert heard.empty()
    await listener.close()


@pytest.mark.parametrize("count", [BLOCK, FEW], ids=["bulk", "queue"])
async def test_two_cancels_in_one_transaction_meet_a_cancelled_campaign(db, other, insert, count):
    """The first holds the counter of cancels; the campaign's step must not wait for it."""
    [alone] = await insert(1)
    june = await campaign_of(db, count=count)
    await db.execute("SELECT dispatcher.cancel_campaign('June')")
    async with db.transaction():
        assert await db.fetchval("SELECT dispatcher.cancel(ARRAY[$1::bigint])", alone) == 1
        assert await other.fetchval("SELECT dispatcher.cancel_campaign_step()") == 0
        assert await db.fetchval("SELECT dispatcher.cancel($1::bigint[])", june[:2]) == 2
    assert await other.fetchval("SELECT dispatcher.cancel_campaign_step()") == count - 2


async def test_cancels_of_two_sessions_wait_before_they_lock_a_row(db, other, insert):
    one, two, three = [(await insert(1))[0] for _ in range(3)]
    async with db.transaction():
        assert await db.fetchval("SELECT dispatcher.cancel(ARRAY[$1::bigint])", one) == 1
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.fetchval("SELECT dispatcher.cancel($1::bigint[])", [two, three])
        await other.execute("SET lock_timeout = '60s'")
        await other.execute("BEGIN")
        waiting = asyncio.create_task(
            other.fetchval("SELECT dispatcher.cancel($1::bigint[])", [two])
        )
        await until(
            lambda: db.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')"
            )
        )
        assert await db.fetchval("SELECT dispatcher.cancel(ARRAY[$1::bigint])", two) == 1
    assert await waiting == 0
    await other.execute("ROLLBACK")
