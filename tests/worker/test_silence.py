"""A worker that was silent for its lease sends nothing that it claimed before, by either clock."""

import pytest
from support.fast_forward import forget_heartbeat

from dispatcher.db.workers import heartbeat
from dispatcher.worker.in_flight import Lease


async def test_the_database_says_how_long_a_worker_was_silent(hands):
    await hands.begin()
    assert 0 <= (await heartbeat(hands.database, hands.id)).silence < 10
    await forget_heartbeat(hands.db, hands.id)
    assert 120 <= (await heartbeat(hands.database, hands.id)).silence < 130
    assert 0 <= (await heartbeat(hands.database, hands.id)).silence < 10
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
