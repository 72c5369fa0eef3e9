"""From the first schema to this release's, while applications insert and workers work."""

import asyncio
import os
import subprocess
import sys

import asyncpg
import pytest
from world.messages import finished
from world.provider import app_at
from world.waiting import until

from dispatcher.db.database import connect
from dispatcher.db.migrate import migrate, migrations_folder, read_migrations, status

FIRST = 3  # migrations of the first schema
INSERT = "INSERT INTO dispatcher.message (recipient, template_id, params) VALUES ($1, 't', '{1}')"
ENQUEUE = "SELECT dispatcher.enqueue($1, 't', idempotency_key => $1)"
# What a worker's transactions do to the tables, in their order: claim, and record.
CLAIM = """
WITH taken AS (
    DELETE FROM dispatcher.queue WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM dispatcher.queue ORDER BY priority, due_at LIMIT 50
        FOR UPDATE SKIP LOCKED))
    RETURNING id
), known AS (
    SELECT m.id FROM taken t JOIN dispatcher.message m ON m.id = t.id
)
INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)
SELECT gen_random_uuid()::text, 'default', 1, array_agg(id), array_agg(1::smallint), 1
FROM known HAVING count(*) > 0 RETURNING id
"""
RECORD = """
WITH closed AS (
    UPDATE dispatcher.batch SET state = 'closed', closed_at = now()
    WHERE id = $1 AND state = 'open' RETURNING message_ids
)
INSERT INTO dispatcher.outcome (message_id, state, attempts)
SELECT unnest(message_ids), 'accepted', 1 FROM closed
"""


@pytest.fixture
async def first_schema(empty_dsn, tmp_path) -> str:
    """A database that only ever had the first migrations."""
    for migration in read_migrations()[:FIRST]:
        name = f"{migration}.sql"
        (tmp_path / name).write_bytes((migrations_folder() / name).read_bytes())
    assert len(await migrate(empty_dsn, folder=tmp_path)) == FIRST
    return empty_dsn


async def inserting(dsn: str, statement: str, prefix: str, stop: asyncio.Event) -> int:
    """Insert one after the other; any error is the test's."""
    connection = await connect(dsn)
    inserted = 0
    while not stop.is_set():
        await connection.execute(statement, f"{prefix}{inserted:07}")
        inserted += 1
    await connection.close()
    return inserted


async def working(dsn: str, stop: asyncio.Event) -> int:
    """Claim and record; what meets a deadlock or a time-out is tried again, as a worker does."""
    connection = await connect(dsn)
    stumbled = 0
    while not stop.is_set():
        try:
            batch = await connection.fetchval(CLAIM)
            if batch is not None:
                await connection.execute(RECORD, batch)
        except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
            stumbled += 1
        await asyncio.sleep(0.001)
    await connection.close()
    return stumbled


async def test_nobody_notices_the_upgrade_and_nothing_is_lost_or_doubled(
    first_schema, workers, sim, record_property
):
    dsn = first_schema
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as load:
        applications = [
            load.create_task(inserting(dsn, INSERT, "13100000131", stop)),
            load.create_task(inserting(dsn, INSERT, "13100000132", stop)),
            load.create_task(inserting(dsn, ENQUEUE, "13100000133", stop)),
        ]
        crew = [load.create_task(working(dsn, stop)) for _ in range(2)]
        db = await connect(dsn)
        count = "SELECT count(*) FROM dispatcher.outcome"
        await until(lambda: db.fetchval(count), what="it works before")

        environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
        upgrade = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dispatcher", "migrate"),
            env=environ | {"DISPATCHER_DATABASE_URL": dsn},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(upgrade.communicate(), 60)
        assert upgrade.returncode == 0, said.decode()
        assert all(standing.applied for standing in await status(dsn))

        before = await db.fetchval(count)
        more = f"SELECT ({count}) > $1"
        await until(lambda: db.fetchval(more, before), what="it works after")
        stop.set()
    inserted = sum(task.result() for task in applications)
    record_property("inserted", inserted)
    assert sum(task.result() for task in crew) == 0  # nobody was ended for a deadlock

    # Workers of this release find what the old ones left.
    await workers.start({"default": app_at(sim.url)}, dsn=dsn)
    await until(lambda: finished(db), deadline=60, what="everything has its end")
    states = dict(
        await db.fetch("SELECT state, count(*) FROM dispatcher.message_status GROUP BY state")
    )
    assert states == {"accepted": inserted}
    assert await db.fetchval(count) == inserted
    assert not sim.ledger.repeated()
    await db.close()
