"""A worker that was silent for its lease sends nothing that it claimed before, by either clock."""

from functools import partial
from secrets import token_hex
from time import monotonic

import pytest
from support.fast_forward import forget_heartbeat
from support.provider import app_at
from support.waiting import until

from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.loop import FailingParts
from dispatcher.db.workers import heartbeat
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import InFlight, Lease


async def test_the_database_says_how_long_a_worker_was_silent(hands):
    await hands.begin()
    assert 0 <= (await heartbeat(hands.database, hands.id)).silence < 60
    await forget_heartbeat(hands.db, hands.id)
    assert 120 <= (await heartbeat(hands.database, hands.id)).silence < 180
    assert 0 <= (await heartbeat(hands.database, hands.id)).silence < 60
    assert (await heartbeat(hands.database, hands.id + 1)).silence is None


@pytest.mark.parametrize(
    ("ours", "theirs", "covered"),
    [(10, 10, True), (47, 47, True), (49, 49, False), (1, 49, False), (49, 1, False)],
)
def test_the_lease_does_not_cover_claims_before_a_silence(ours, theirs, covered):
    now = 1000.0
    lease = Lease(60.0, lambda: now)
    claimed_at = now
    now += ours
    lease.renew(now, theirs)
    assert lease.covers(claimed_at) is covered
    assert lease.covers(now)


def test_a_silence_that_has_not_ended_covers_nothing():
    now = 1000.0
    lease = Lease(60.0, lambda: now)
    assert lease.covers(now)
    now += 49
    assert not lease.covers(1000.0)
    assert not lease.covers(now)


def test_a_lease_knows_the_time_of_the_database():
    now = 1000.0
    lease = Lease(60.0, lambda: now)
    assert lease.database_time() is None
    now += 5
    lease.renew(1003.0, 5.0, 1.8e9)  # the answer came 2 s after the question
    now += 10
    assert lease.database_time() == 1.8e9 + 12


async def test_a_worker_without_its_lease_claims_nothing(hands):
    """It would return all of it unsent, and claim it again, as fast as the database can."""
    await hands.begin()
    ids = await hands.insert(30)
    now = monotonic()
    lease = Lease(60.0, lambda: now)
    claimer = Claimer(
        hands.database,
        worker=hands.id,
        in_flight=InFlight(partial(token_hex, 16)),
        lease=lease,
        callback=None,
        token_length=32,
        metrics=Metrics(),
        breakers={"default": CircuitBreaker("default")},
        allowed={},
        failing=FailingParts(),
    )
    wanted = ClaimRequest("default", sender="csms100000001")
    now += 49
    claimed = await claimer.claim(wanted, 4, 500, 0.0)
    assert claimed is not None
    assert (claimed.batches, await hands.queue(), await hands.batches()) == ([], ids, [])
    assert claimed.wait
    now = monotonic()
    lease.renew(now, 1.0)
    claimed = await claimer.claim(wanted, 4, 500, 0.0)
    assert claimed is not None
    assert [len(batch.messages) for batch in claimed.batches] == [30]


@pytest.mark.slow
async def test_a_heartbeat_that_failed_is_soon_tried_again(db, workers, sim):
    """Not an interval later: without its lease a worker claims nothing."""
    worker = await workers.start({"default": app_at(sim.url)}, lease="120s")
    async with db.transaction():
        await db.execute("SELECT FROM dispatcher.worker FOR UPDATE")
        await until(lambda: "no heartbeat" in worker.text(), what="it cannot beat")
        locked_until = await db.fetchval("SELECT clock_timestamp()")
    beaten = "SELECT heartbeat_at > $1 FROM dispatcher.worker"
    await until(lambda: db.fetchval(beaten, locked_until), deadline=15, what="it beats")
