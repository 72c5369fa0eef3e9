"""Partitions are made ahead of need, and rows that came too early stay where they are."""

import asyncio

import asyncpg
import pytest

from dispatcher.db.database import connect

MAKE = "SELECT dispatcher.make_partitions($1, $2)"


async def partitions(db, parent: str = "message") -> list[str]:
    rows = await db.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = $1::text::regclass ORDER BY c.oid",
        f"dispatcher.{parent}",
    )
    return [row["relname"] for row in rows]


async def test_a_fresh_database_has_room_for_20_million(db):
    for table in ("message", "outcome"):
        found = await partitions(db, table)
        assert found[0] == f"{table}_rest"
        assert found[1] == f"{table}_1_to_5000001"
        assert found[-1] == f"{table}_20000001_to_25000001"


async def test_made_again_there_is_nothing_to_make(db):
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 0


async def test_more_are_made_as_ids_go_on_each_beginning_where_the_last_ends(db):
    await db.execute("SELECT setval('dispatcher.message_id', 12000000)")
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 2
    assert (await partitions(db))[-2:] == [
        "message_25000001_to_30000001",
        "message_30000001_to_35000001",
    ]
    assert await partitions(db, "outcome") == [
        name.replace("message", "outcome") for name in await partitions(db)
    ]


async def test_rows_lie_in_the_partition_of_their_id(db):
    await db.execute("SELECT setval('dispatcher.message_id', 5000000)")
    await db.execute("SELECT dispatcher.enqueue('13100000131', 't')")
    assert await db.fetchval("SELECT tableoid::regclass::text FROM dispatcher.message") == (
        "dispatcher.message_5000001_to_10000001"
    )


async def test_rows_that_came_before_their_partition_stay_in_the_default_one(db):
    await db.execute("SELECT setval('dispatcher.message_id', 100000000)")
    early = await db.fetchval("SELECT dispatcher.enqueue('13100000131', 't')")
    await db.fetchval("SELECT dispatcher.cancel($1)", [early])
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message_rest") == 1
    assert await db.fetchval("SELECT count(*) FROM dispatcher.outcome_rest") == 1

    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) > 0
    late = await db.fetchval("SELECT dispatcher.enqueue('13100000131', 't')")
    places = await db.fetch(
        "SELECT id, tableoid::regclass::text AS place FROM dispatcher.message ORDER BY id"
    )
    assert [tuple(row) for row in places] == [
        (early, "dispatcher.message_rest"),
        (late, "dispatcher.message_100000002_to_105000002"),
    ]
    assert await db.fetchval(MAKE, 19_000_000, 5_000_000) == 0


async def test_a_new_partition_keeps_every_limit(db):
    await db.execute("SELECT setval('dispatcher.message_id', 30000000)")
    await db.fetchval(MAKE, 20_000_000, 5_000_000)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.execute("SELECT dispatcher.enqueue('none', 't')")
    assert refused.value.constraint_name == "recipient_is_digits_after_an_optional_plus"


async def test_two_makers_at_once_make_each_partition_once(db, dsn, until_it_waits):
    await db.execute("SELECT setval('dispatcher.message_id', 12000000)")
    rival = await connect(dsn)
    async with db.transaction():
        assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 2
        second = asyncio.create_task(rival.fetchval(MAKE, 20_000_000, 5_000_000))
        await until_it_waits(db, rival.get_server_pid())
    assert await asyncio.wait_for(second, 60) == 0
    await rival.close()


async def test_inserts_go_on_while_a_partition_is_made(db, dsn):
    await db.execute("SELECT setval('dispatcher.message_id', 12000000)")
    application = await connect(dsn)
    async with db.transaction():
        await db.fetchval(MAKE, 20_000_000, 5_000_000)
        await application.execute("SET lock_timeout = '1s'")
        await application.execute("SELECT dispatcher.enqueue('13100000131', 't')")
        assert await application.fetchval("SELECT dispatcher.cancel(ARRAY[12000001])") == 1
    await application.close()


async def test_near_the_highest_id_no_partition_is_made_past_it(db):
    await db.execute("SELECT setval('dispatcher.message_id', $1)", 2**63 - 10_000_000)
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 1
    await db.execute("SELECT setval('dispatcher.message_id', $1)", 2**63 - 10)
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 0


async def test_a_jump_of_the_sequence_makes_few_partitions(db):
    await db.execute("SELECT setval('dispatcher.message_id', 1000000000000)")
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 4
    await db.execute("SELECT dispatcher.enqueue('13100000000', 't')")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message_rest") == 0


async def test_an_id_far_ahead_stops_no_partition_from_being_made(db):
    await db.execute(
        "INSERT INTO dispatcher.message (id, recipient, template_id)"
        " SELECT id, '13100000000', 't' FROM unnest($1::bigint[]) AS id",
        [26_000_000, 10**14, 10**18],
    )
    await db.execute("SELECT setval('dispatcher.message_id', 12000000)")
    assert await db.fetchval(MAKE, 20_000_000, 5_000_000) == 2
    assert (await partitions(db))[-2:] == [
        "message_26000001_to_31000001",
        "message_31000001_to_36000001",
    ]
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message_rest") == 3
