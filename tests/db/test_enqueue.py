"""dispatcher.enqueue: every column, and once for each idempotency key."""

import asyncio

import asyncpg
import pytest

from dispatcher.db.database import connect

ENQUEUE = "SELECT dispatcher.enqueue('+8613112345678', 't', app => $1, idempotency_key => $2)"


async def count(db) -> int:
    return await db.fetchval("SELECT count(*) FROM dispatcher.message")


async def test_every_column_arrives(db):
    message = await db.fetchval(
        "SELECT dispatcher.enqueue(recipient => '13100000131'"
        ", template_id => 't', params => '{a,b}', "
        "app => 'shop', sender => '106900', signature => 'S', priority => 1, "
        "send_at => '2999-01-01', expires_at => '2999-01-02', idempotency_key => 'k', "
        "reference => 'r')"
    )
    row = await db.fetchrow("SELECT * FROM dispatcher.message WHERE id = $1", message)
    assert [row[name] for name in ("recipient", "template_id", "params", "app", "sender")] == [
        "13100000131",
        "t",
        ["a", "b"],
        "shop",
        "106900",
    ]
    assert [row[name] for name in ("signature", "priority", "idempotency_key", "reference")] == [
        "S",
        1,
        "k",
        "r",
    ]
    assert (row["send_at"].year, (row["expires_at"] - row["send_at"]).days) == (2999, 1)


async def test_the_defaults_are_those_of_an_insert(db):
    await db.execute("SELECT dispatcher.enqueue('13100000131', 't')")
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('13100000131', 't')"
    )
    columns = "app, sender, params, signature, priority, expires_at, idempotency_key, reference"
    first, second = await db.fetch(f"SELECT {columns} FROM dispatcher.message ORDER BY id")
    assert first == second


async def test_a_repeat_returns_the_first_id_and_adds_nothing(db):
    first = await db.fetchval(ENQUEUE, "a", "k")
    assert await db.fetchval(ENQUEUE, "a", "k") == first
    assert await count(db) == 1
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_a_key_is_an_apps_own(db):
    assert await db.fetchval(ENQUEUE, "a", "k") != await db.fetchval(ENQUEUE, "b", "k")


async def test_without_a_key_every_call_is_a_message(db):
    assert await db.fetchval(ENQUEUE, "a", None) != await db.fetchval(ENQUEUE, "a", None)


async def test_a_broken_limit_is_told_by_its_name(db):
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await db.execute("SELECT dispatcher.enqueue('none', 't', idempotency_key => 'k')")
    assert refused.value.constraint_name == "recipient_is_digits_after_an_optional_plus"
    assert await db.fetchval(ENQUEUE, "default", "k") is not None  # the key is still free


async def test_of_two_at_once_the_second_waits_and_gets_the_firsts_id(db, dsn, until_it_waits):
    rival = await connect(dsn)
    transaction = db.transaction()
    await transaction.start()
    first = await db.fetchval(ENQUEUE, "a", "k")
    second = asyncio.create_task(rival.fetchval(ENQUEUE, "a", "k"))
    await until_it_waits(db, rival.get_server_pid())
    await transaction.commit()
    assert await asyncio.wait_for(second, 60) == first
    assert await count(db) == 1
    await rival.close()


async def test_of_two_at_once_the_second_goes_on_if_the_first_rolls_back(db, dsn, until_it_waits):
    rival = await connect(dsn)
    transaction = db.transaction()
    await transaction.start()
    first = await db.fetchval(ENQUEUE, "a", "k")
    second = asyncio.create_task(rival.fetchval(ENQUEUE, "a", "k"))
    await until_it_waits(db, rival.get_server_pid())
    await transaction.rollback()
    assert await asyncio.wait_for(second, 60) != first
    assert await count(db) == 1
    await rival.close()


async def test_a_repeatable_read_that_cannot_see_the_first_fails_and_never_returns_null(db, dsn):
    rival = await connect(dsn)
    transaction = rival.transaction(isolation="repeatable_read")
    await transaction.start()
    await rival.fetchval("SELECT count(*) FROM dispatcher.message")  # takes its snapshot
    await db.fetchval(ENQUEUE, "a", "k")
    with pytest.raises(asyncpg.UniqueViolationError):
        await rival.fetchval(ENQUEUE, "a", "k")
    await transaction.rollback()
    await rival.close()
