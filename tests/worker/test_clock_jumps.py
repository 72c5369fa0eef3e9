"""The database's clock jumps while workers send: nothing is sent twice, and all goes out soon.

Its clock cannot be set here, so all that it has written is moved the other way instead.
"""

import asyncpg
import pytest
from support.exactness import read_books
from support.messages import finished, insert, states
from support.provider import app_at, seen
from support.slow import slow_after
from support.waiting import until

from dispatcher.simulator.faults import Delay

JUMPS = {"an hour forward": "1 hour", "an hour back": "-1 hour", "a day forward": "1 day",
         "a day back": "-1 day"}  # fmt: skip
STORED = """
    SELECT c.relname AS table, a.attname AS column
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relname <> 'worker' AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid = 'timestamptz'::regtype
"""


async def jump(db: asyncpg.Connection, by: str) -> None:
    """Let the database's clock jump *by* an interval."""
    columns = await db.fetch(STORED)
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = '10s'")
        for table in sorted({row["table"] for row in columns}):
            changes = ", ".join(
                f"{row['column']} = {row['column']} - interval '{by}'"
                for row in columns
                if row["table"] == table
            )
            await db.execute(f"UPDATE dispatcher.{table} SET {changes}")


@pytest.mark.parametrize("by", slow_after(1, JUMPS))
async def test_a_jump_of_the_clock_sends_nothing_twice(db, workers, sim, by):
    await sim.faults.arm([Delay(seconds=0.5)])
    app = {"default": app_at(sim.url, numbers_per_second=200)}
    for _ in range(2):
        await workers.start(app, lease="40s")
    await insert(db, 300)
    await seen(sim, lambda: sim.ledger.numbers >= 50)
    await jump(db, JUMPS[by])
    # The heartbeat before the jump, by the clock of then.
    await db.execute(
        "UPDATE dispatcher.worker SET heartbeat_at = heartbeat_at - $1::text::interval"
        " WHERE $1 LIKE '-%'",
        JUMPS[by],
    )
    await insert(db, 100)
    await until(lambda: finished(db), deadline=40)
    assert not (await read_books(db, sim.ledger.rows())).problems()
    ended = await states(db)
    assert ended.get("accepted", 0) + ended.get("unsure", 0) == 400


async def test_what_was_moved_to_a_later_time_stays_after_a_jump(db):
    now, later = await insert(db, 1), await insert(db, 1)
    await insert(db, 30)
    await db.execute(
        "UPDATE dispatcher.queue SET due_at = now() + interval '2 h' WHERE id = $1", later[0]
    )
    await jump(db, "-1 hour")
    assert await db.fetchval("SELECT dispatcher.end_clock_waits()") == 2
    assert await db.fetchval("SELECT dispatcher.end_clock_waits()") == 0
    due = "SELECT id FROM dispatcher.queue WHERE due_at <= clock_timestamp()"
    assert [row["id"] for row in await db.fetch(due)] == now
    assert await db.fetchval("SELECT due_at <= clock_timestamp() FROM dispatcher.bulk")
