"""A worker that freezes in the middle of a transaction holds locks; the others must get by."""

import asyncpg
import pytest
from support.exactness import read_books
from support.messages import finished, insert
from support.provider import app_at
from support.waiting import until

from dispatcher.db.database import connect

GATE = 4711  # an advisory lock that stands in the way of every new batch


@pytest.mark.slow
async def test_a_worker_frozen_in_a_claim_does_not_stop_the_others(db, dsn, workers, sim):
    await db.execute(
        f"CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;"
        "CREATE TRIGGER gate BEFORE INSERT ON dispatcher.batch EXECUTE FUNCTION gate()"
    )
    keeper = await connect(dsn)
    await keeper.execute(f"SELECT pg_advisory_lock({GATE})")
    apps = {"default": app_at(sim.url, numbers_per_second=100_000)}
    frozen = await workers.start(apps)
    await insert(db, 1000)
    await until(lambda: a_session_waits(db), what="it has claimed, and holds the app's pace")
    frozen.freeze()
    await keeper.close()  # and with it the lock
    other = await workers.start(apps)
    await until(lambda: finished(db), deadline=90, what="the other takes everything")
    other.terminate()
    assert await other.ended() == 0
    frozen.thaw()
    await insert(db, 1000, first=10_000)
    await until(lambda: finished(db), what="the one that was frozen is a good worker again")
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 2000}
    assert not books.problems()


async def a_session_waits(db: asyncpg.Connection) -> bool:
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    )
