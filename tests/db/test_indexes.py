"""Indexes for searching: on full partitions, by any worker, and where nobody has to wait."""

import asyncio

import pytest

from dispatcher.db import maintenance
from dispatcher.db.database import Database, connect, open_database

FULL = "SELECT setval('dispatcher.message_id', 5000001)"
MADE = (
    "SELECT indexname FROM pg_indexes WHERE schemaname = 'dispatcher'"
    " AND indexname ~ '_to_.*(campaign|recipient|reference|provider_id)$'"
)
OF_MESSAGES = {f"message_1_to_5000001_{name}" for name in ("campaign", "recipient", "reference")}
OF_OUTCOMES = {"outcome_1_to_5000001_provider_id"}


@pytest.fixture
async def worker(dsn):
    """What a worker has that is no owner: its role's rights and no more."""
    async with open_database(f"{dsn}&role=dispatcher_worker", max_size=1) as database:
        yield database


async def made(db) -> set[str]:
    return {row["indexname"] for row in await db.fetch(MADE)}


async def all_steps(database: Database) -> int:
    steps = 0
    while await maintenance.index_full_partitions(database):
        steps += 1
        assert steps < 100
    return steps


async def test_a_worker_that_owns_nothing_indexes_full_partitions_and_only_those(db, worker, rows):
    (message,) = await rows.messages(1)
    await rows.outcome(message, "accepted", provider_id="p1")
    assert await all_steps(worker) == 0
    await db.execute(FULL)
    assert await all_steps(worker) == 4
    assert await made(db) == OF_MESSAGES | OF_OUTCOMES
    owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'dispatcher'"
    assert [row[0] for row in await db.fetch(owner)] == ["dispatcher_owner"]
    assert await all_steps(worker) == 0


@pytest.mark.parametrize("how", ["due", "on its way"])
async def test_outcomes_that_are_still_written_are_indexed_later(db, worker, rows, how):
    (message,) = await rows.messages(1)
    if how == "on its way":
        await rows.batch([message])
    await db.execute(FULL)
    assert await all_steps(worker) == 3
    assert await made(db) == OF_MESSAGES
    await rows.outcome(message, "accepted", provider_id="p1")
    await db.execute("UPDATE dispatcher.batch SET state = 'closed'")
    assert await all_steps(worker) == 1


async def test_a_message_for_next_month_holds_no_index_up(db, worker, rows):
    await rows.messages(1)
    await db.execute("UPDATE dispatcher.queue SET due_at = now() + interval '1 month'")
    await db.execute(FULL)
    assert await all_steps(worker) == 4


@pytest.mark.usefixtures("patient_locks")
async def test_who_still_writes_is_not_waited_for(db, dsn, worker):
    await db.execute(FULL)
    application = await connect(dsn)
    async with application.transaction():
        await application.execute(
            "LOCK TABLE dispatcher.message_1_to_5000001 IN ROW EXCLUSIVE MODE"
        )
        waited = asyncio.create_task(maintenance.index_full_partitions(worker))
        done, _ = await asyncio.wait([waited], timeout=30)  # a transaction gives up after 60 s
        assert done, "it waits on"
        assert waited.result() == 0
    await application.close()
    assert await all_steps(worker) == 4


async def test_outcomes_of_others_are_written_and_all_are_read_meanwhile(db, dsn, rows):
    ids = await rows.messages(2)
    await rows.outcome(ids[0], "accepted", provider_id="p1")
    await rows.outcome(ids[1], "accepted", provider_id="p2")
    await db.execute(FULL)
    making = await connect(dsn)
    async with making.transaction():
        while await making.fetchval("SELECT dispatcher.index_step()"):
            await making.execute("SET LOCAL statement_timeout = '60s'")
        await db.execute("SET statement_timeout = '60s'")
        (late,) = await rows.messages(1)
        await rows.outcome(late, "accepted", provider_id="p3")
        found = "SELECT state FROM dispatcher.message_status WHERE id = $1"
        assert await db.fetchval(found, ids[0]) == "accepted"
    await making.close()


async def test_two_keepers_do_not_make_the_same_one(db, dsn, worker, rows):
    await rows.messages(1)
    await db.execute(FULL)
    rival = await connect(dsn)
    async with rival.transaction():
        assert await rival.fetchval("SELECT dispatcher.index_step()")
        assert await worker.pool.fetchval("SELECT dispatcher.index_step()") is None
    await rival.close()
