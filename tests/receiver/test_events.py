"""The event log: one cursor, nothing missed, nothing twice."""

import asyncio

from dispatcher.db.database import connect
from dispatcher.db.events import append, place

ONE, TWO = "+8613100000001", "+8613100000002"
TELL = "SELECT dispatcher.append_event('accepted', '', ARRAY['default'], ARRAY[$1::bigint])"


async def _follow(world, cursor: int, limit: int = 1000) -> tuple[int, list[int]]:
    """Read on from *cursor* as a consumer does; return the new cursor and the messages."""
    rows = await world.db.fetch("SELECT * FROM dispatcher.events($1, $2)", cursor, limit)
    return (rows[-1]["position"] if rows else cursor), [row["message_id"] for row in rows]


async def test_a_long_transaction_that_commits_late_is_not_skipped(world, dsn):
    slow = await connect(dsn)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute(TELL, 1)  # the first row of the log, not committed
    await world.db.execute(TELL, 2)  # overtakes it
    await place(world.database)
    cursor, seen = await _follow(world, 0)
    assert seen == [2]
    await transaction.commit()
    await place(world.database)
    cursor, seen = await _follow(world, cursor)
    assert seen == [1]
    assert await _follow(world, cursor) == (cursor, [])
    await slow.close()


async def test_places_are_given_in_turn_even_if_a_sequencer_is_slow(world, dsn):
    from dispatcher.db.events import LOCK_KEY  # noqa: PLC0415

    other = await connect(dsn)
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        await world.db.execute(TELL, 1)
        assert await place(world.database) == 0
        assert await _follow(world, 0) == (0, [])
    assert await place(world.database) == 1
    assert await _follow(world, 0) == (1, [1])
    await other.close()


async def test_a_reader_with_any_limit_sees_each_event_in_order(world):
    for first in range(0, 60, 6):
        await world.db.execute(
            "SELECT dispatcher.append_event("
            "'accepted', '', array_fill('default'::text, ARRAY[6]), $1)",
            list(range(first, first + 6)),
        )
    await place(world.database)
    for limit in (1, 4, 6, 7, 1000):
        cursor, seen = 0, []
        while (step := await _follow(world, cursor, limit))[1]:
            cursor = step[0]
            seen += step[1]
            assert len(step[1]) <= limit
        assert seen == list(range(60))
        assert cursor == 60


async def test_after_dropped_events_it_begins_with_the_first_kept(world):
    for message in range(1, 6):
        await world.db.execute(TELL, message)
    await place(world.database)
    await world.db.execute("DELETE FROM dispatcher.event WHERE last_position <= 3")
    assert await _follow(world, 0, 1) == (4, [4])
    await world.db.execute("DELETE FROM dispatcher.event")
    await world.db.execute(TELL, 9)
    await place(world.database)
    assert await _follow(world, 5) == (6, [9])  # positions never begin anew


async def test_reading_it_in_a_long_transaction_holds_up_nobody(world, dsn):
    await world.db.execute(TELL, 1)
    await place(world.database)
    reader = await connect(dsn)
    async with reader.transaction():
        assert len(await reader.fetch("SELECT * FROM dispatcher.events()")) == 1
        await world.db.execute(TELL, 2)
        async with asyncio.timeout(60):
            assert await place(world.database) == 1
    await reader.close()


async def test_all_that_becomes_of_a_message_is_told(world):
    one, two = await world.db.fetchval(
        "WITH m AS (INSERT INTO dispatcher.message (recipient, template_id, reference) "
        "SELECT '+8613900000' || lpad(i::text, 3, '0'), 't', 'order ' || i "
        "FROM generate_series(1, 2) i "
        "RETURNING id) SELECT array_agg(id ORDER BY id) FROM m"
    )
    await world.db.execute("SELECT dispatcher.cancel(ARRAY[$1::bigint])", one)
    await world.db.execute("DELETE FROM dispatcher.queue WHERE id = $1", two)
    await world.db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'rejected', 1)",
        two,
    )
    await world.db.execute("SELECT dispatcher.requeue(ARRAY[$1::bigint])", two)
    await world.batch([ONE, TWO], token="t1")
    await world.db.execute("SELECT dispatcher.settle('t1', 'sent')")
    await world.batch([ONE, TWO], token="t2")
    await world.db.execute("SELECT dispatcher.settle('t2', 'resend')")
    events = await world.events()
    assert events[:2] == [(one, "cancelled", ""), (two, "requeued", "")]
    assert [event[1:] for event in events[2:]] == [
        ("accepted", "settled-by-operator"),
        ("accepted", "settled-by-operator"),
        ("requeued", "settled-by-operator"),
        ("requeued", "settled-by-operator"),
    ]
    row = await world.db.fetchrow("SELECT * FROM dispatcher.events(0, 1)")
    assert (row["reference"], row["app"]) == ("order 1", "default")


async def test_each_apps_channel_is_notified_if_that_is_wanted(world):
    heard: asyncio.Queue[str] = asyncio.Queue()
    await world.db.add_listener(
        "dispatcher_events_default", lambda *args: heard.put_nowait(args[3])
    )
    await world.db.execute(TELL, 1)
    await place(world.database)
    await world.db.execute(TELL, 2)
    await place(world.database, notify=True)
    async with asyncio.timeout(60):
        assert await heard.get() == "2"
    assert heard.empty()


async def test_a_whole_batch_is_one_event_read_by_message(world):
    numbers = [f"+86131000000{n:02d}" for n in range(7)]
    ids = await world.batch(numbers, state="closed")
    batch = await world.db.fetchval("SELECT id FROM dispatcher.batch")
    async with world.database.acquire() as connection:
        await append(
            connection,
            {("default", "rejected", "E200028"): [77]},
            [(("default", "accepted", ""), batch, len(ids))],
        )
    await place(world.database)
    cursor, seen = 0, []
    while (step := await _follow(world, cursor, 3))[1]:
        cursor = step[0]
        seen += step[1]
    assert seen == [77, *ids]
    assert cursor == 8
