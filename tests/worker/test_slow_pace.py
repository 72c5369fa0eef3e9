"""Far below a message a second: what waits for its time stays within reach."""

import asyncio
from time import monotonic

import pytest
from support.messages import insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.db import pace
from dispatcher.db.database import connect

SLOW = 0.2  # numbers a second: one every five seconds
SLOWER = 0.02  # one every fifty, where no test waits for the next one
PACE_LOCKED = (
    "SELECT count(*) > 0 FROM pg_stat_activity"
    " WHERE query LIKE '%next_grant_at%' AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def waiting(request, db, workers, sim):
    """A worker that has sent the first of ten messages; the next one is due seconds later."""
    pace = getattr(request, "param", SLOW)
    ids = await insert(db, 10)
    worker = await workers.start({"default": app_at(sim.url, numbers_per_second=pace)})
    await seen(sim, lambda: sim.ledger.numbers == 1)
    await until(
        lambda: nothing_is_claimed(db), deadline=0.8 / pace, what="the first one is recorded"
    )
    return worker, ids


async def nothing_is_claimed(db) -> bool:
    return not await db.fetchval("SELECT count(*) FROM dispatcher.batch WHERE state = 'open'")


@pytest.mark.parametrize("waiting", [SLOWER], indirect=True)
async def test_a_cancel_reaches_all_but_the_one_being_sent(db, waiting):
    _, ids = waiting
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == 9


@pytest.mark.usefixtures("waiting")
@pytest.mark.slow
async def test_a_pause_stops_the_next_one(db, sim):
    await db.execute("SELECT dispatcher.pause('default', 'a test')")
    before = monotonic()
    await until(lambda: monotonic() - before > 1 / SLOW, deadline=10)
    assert (await states(db)) == {"accepted": 1, "queued": 9}
    assert sim.ledger.numbers == 1


@pytest.mark.usefixtures("waiting")
@pytest.mark.slow
async def test_an_urgent_message_is_the_next_one(db, sim):
    [urgent] = await insert(db, 1, first=100, priority=0)
    await seen(sim, lambda: sim.ledger.numbers == 2)
    await until(
        lambda: db.fetchval("SELECT true FROM dispatcher.outcome WHERE message_id = $1", urgent),
    )


@pytest.mark.parametrize("waiting", [SLOWER], indirect=True)
async def test_a_stop_does_not_wait_for_the_next_one(db, waiting):
    worker, _ = waiting
    began = monotonic()
    worker.terminate()
    assert await worker.ended() == 0
    assert monotonic() - began < 25  # the next one is due after 50 s
    assert await states(db) == {"accepted": 1, "queued": 9}


@pytest.mark.parametrize(("late", "sent"), [(0.1, True), (3.0, False)])
async def test_a_late_batch_goes_now_or_returns(db, database, hands, late, sent):
    """Its next time is five seconds away: it does not wait for that out of reach."""
    await hands.begin()
    await db.execute(
        "UPDATE dispatcher.app SET numbers_per_second = 0.2, rate = 0.2,"
        " next_at = clock_timestamp() + interval '5 s'"
    )
    await hands.insert(1)
    await db.execute("UPDATE dispatcher.app SET next_at = clock_timestamp()")
    [batch] = await hands.claim()
    at = await pace.reschedule(database, batch, late)
    assert (at is not None and at <= monotonic()) if sent else at is None
    wait = await db.fetchval(
        "SELECT date_part('epoch', next_at - clock_timestamp()) FROM dispatcher.app"
    )
    assert wait < 1 / SLOW + 0.2  # it was charged once


@pytest.mark.usefixtures("patient_locks")
async def test_a_claim_goes_on_when_its_rate_limit_is_taken_away(db, dsn, hands):
    """Another worker starts without one, as in an upgrade one after the other."""
    await hands.begin()
    await db.execute("UPDATE dispatcher.app SET numbers_per_second = 500, rate = 500")
    await hands.insert(3)
    other = await connect(dsn)
    try:
        async with other.transaction():
            await other.execute("UPDATE dispatcher.app SET numbers_per_second = NULL, rate = NULL")
            claim = asyncio.create_task(hands.claim())
            await until(lambda: db.fetchval(PACE_LOCKED), what="the claim waits for the app's row")
    finally:
        await other.close()
    [batch] = await claim
    assert len(batch.messages) == 3
    assert batch.send_at is None


async def test_another_try_of_a_request_delays_the_next_grant(db, database, hands):
    await hands.begin()
    await db.execute("UPDATE dispatcher.app SET numbers_per_second = 0.2, rate = 0.2")
    await hands.insert(1)
    [batch] = await hands.claim()
    ahead = "SELECT date_part('epoch', next_at) FROM dispatcher.app"
    once = await db.fetchval(ahead)
    await pace.charge_again(database, batch)
    assert await db.fetchval(ahead) - once == pytest.approx(1 / SLOW, abs=1)
