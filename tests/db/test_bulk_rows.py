"""Messages that were inserted together wait together, and are claimed in their place."""

import asyncio

import asyncpg
import pytest

from dispatcher.core.claim_cursor import BEGINNING, PRIORITY_COUNT
from dispatcher.db.claim import ClaimRequest, claim, new_cursors
from dispatcher.db.database import connect
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
    cursors = new_cursors()

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
            ClaimRequest("default", slots=1, per_request=limit, **wanted),
            arrange=arrange,
            token=token,
            cursors=cursors,
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

    sender, size = "s", 100

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
        "INSERT INTO dispatcher.message (recipient, template_id, app, priority, send_at)"
        " SELECT '13112345678', 't', 'a' || n % 2, n / 2 % 2, timestamptz '2999-01-01'"
        " + n / 4 % 2 * interval '1 s'"
        " FROM generate_series(0, 8 * 20 - 1) AS n"
    )
    found = await db.fetch("SELECT app, priority, due_at, size FROM dispatcher.bulk")
    assert len({tuple(row) for row in found}) == 8
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
    head = await db.fetchrow(sql("hold_bulk"), "default", 0, 9, since)
    arguments = ("default", 500, 5, head["due_at"], None, BEGINNING)
    assert await db.fetch(sql("claim_bulk"), *arguments, False) == []
    assert len(await db.fetch(sql("claim_bulk"), *arguments, True)) == MANY


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
    head = await db.fetchrow(sql("hold_bulk"), "default", 0, 9, since)
    taken = await db.fetch(
        sql("claim_bulk"), "default", 30, 5, head["due_at"], None, BEGINNING, False
    )
    assert (len(taken), await bulk(db)) == (30, [(31, BLOCK - 30)])
    await transaction.rollback()
    assert await bulk(db) == [(1, BLOCK)]


async def test_a_row_that_another_claim_holds_is_passed(dsn, insert, take):
    ids = await insert(2 * BLOCK)
    single = await insert(1)
    other = await connect(dsn)
    async with other.transaction():
        await other.fetchrow(sql("hold_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        assert await take() == ids[BLOCK:] + single
    await other.close()
    assert await take() == ids[:BLOCK]


async def test_a_cancel_opens_only_the_rows_it_touches(db, insert, take):
    ids = await insert(3 * BLOCK)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", [ids[0], ids[BLOCK - 1]]) == 2
    assert await bulk(db) == [(BLOCK + 1, BLOCK), (2 * BLOCK + 1, BLOCK)]
    assert await queue(db) == ids[1 : BLOCK - 1]
    assert await take() == ids[1 : BLOCK - 1] + ids[BLOCK:]


async def test_a_cancel_of_all_takes_all(db, insert):
    ids = await insert(2 * BLOCK + FEW)
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == len(ids)
    assert (await bulk(db), await queue(db), await states(db)) == ([], [], ["cancelled"])
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == 0


@pytest.mark.parametrize("odd", [[0], [-1], [None, 0], [2**63 - 1], [-(2**63)], [], None])
async def test_a_cancel_of_odd_ids_opens_nothing(db, insert, odd):
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
        head = await db.fetchrow(sql("hold_bulk"), "default", 0, 9, [BEGINNING] * PRIORITY_COUNT)
        await db.fetch(
            sql("claim_bulk"), "default", wanted, 5, head["due_at"], None, BEGINNING, False
        )
        cancel = asyncio.create_task(canceller.fetchval("SELECT dispatcher.cancel($1)", ids))
        watcher = await connect(dsn)
        await until_it_waits(watcher, canceller.get_server_pid())
    assert await cancel == BLOCK - wanted
    assert (await bulk(db), await queue(db)) == ([], [])
    for each in (canceller, watcher):
        await each.close()


async def test_forget_cancels_what_waits_in_a_bulk_row(db, insert):
    ids = await insert(MANY)
    row = await db.fetchrow("SELECT * FROM dispatcher.forget('{+8613100000002}')")
    assert (row["erased"], row["left_alone"]) == ([ids[1]], [])
    assert await queue(db) == ids[:1] + ids[2:]
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
    assert (await db.fetchrow(sql("apps_of_old_queue"), 60.0, 60.0))["apps"] == []
    await db.execute("UPDATE dispatcher.message SET queued_at = now() - interval '2 hours'")
    row = await db.fetchrow(sql("apps_of_old_queue"), 60.0, 60.0)
    assert row["apps"] == ["default"]
