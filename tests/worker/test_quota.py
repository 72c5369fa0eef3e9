"""A spent quota: of the account until midnight at the provider, of a country for an hour."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from support.fast_forward import let_pass
from support.messages import finished, idle, insert, states
from support.waiting import until

from dispatcher.core.outcome import Deferred, Resolved
from dispatcher.core.result import BatchResult
from dispatcher.db.record import record
from dispatcher.simulator.faults import CountryClosed, NumberCode, Quota

TO_MIDNIGHT = """
    SELECT (date_trunc('day', now() + interval '8 h', 'UTC') + interval '1 day 1 minute')
        - interval '8 h', (now() + interval '8 h')::time > '01:00' FROM dispatcher.app
"""


async def to_probe(db) -> float:
    """Return the seconds until the next probe."""
    return await db.fetchval(
        "SELECT date_part('epoch', probe_at - clock_timestamp()) FROM dispatcher.app"
    )


async def paused(db) -> bool:
    return await db.fetchval("SELECT pause_code = 'E000623' FROM dispatcher.app")


@pytest.mark.slow
async def test_a_spent_quota_is_probed_after_midnight_and_hourly(db, workers, sim):
    await sim.faults.arm([Quota()])
    await insert(db, 3)
    await workers.start(sim.url)
    await until(lambda: paused(db))
    midnight, is_far = await db.fetchrow(TO_MIDNIGHT)
    if is_far:
        probe_at = await db.fetchval("SELECT probe_at FROM dispatcher.app")
        assert abs(probe_at - midnight) < timedelta(seconds=5)
    # Each refused probe after midnight is followed by one within the hour.
    for _ in range(6):
        before = len(sim.journal)
        await let_pass(db, await to_probe(db) + 1)
        await until(lambda n=before: len(sim.journal) > n, what="a probe")
        await until(lambda: idle(db))
        assert await to_probe(db) <= 3600
    await sim.faults.clear()
    await let_pass(db, 3600)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 3}


@pytest.mark.slow
async def test_a_spent_quota_at_one_number_pauses_too(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E000623", numbers=["+8613800000001"])])
    await insert(db, 3)
    await workers.start(sim.url)
    await until(lambda: paused(db))
    await until(lambda: idle(db))
    assert await states(db) == {"accepted": 2, "queued": 1}


async def test_a_resumed_app_brings_a_countrys_messages_forward(db, workers, sim):
    await sim.faults.arm([CountryClosed(country="FR")])
    await insert(db, 10, country="+336", first=10_000_000)
    await workers.start(sim.url)
    await until(lambda: db.fetchval("SELECT count(*) > 0 FROM dispatcher.country_pause"))
    await until(lambda: idle(db))
    await sim.faults.clear()
    await db.execute("SELECT dispatcher.resume('default')")
    await until(lambda: finished(db))  # the pause of a country is an hour
    assert await states(db) == {"accepted": 10}


async def test_a_probe_that_was_not_sent_does_not_resume(db, hands):
    await hands.begin()
    await hands.insert(2)
    [batch] = await hands.claim()
    await db.execute(
        "UPDATE dispatcher.app SET paused_at = now(), pause_code = 'E000045', paused_by = 'worker'"
    )
    unsent = [Deferred(message, "never-sent", 0.0, counted=False) for message in batch.messages]
    result = BatchResult(
        replace(batch, probe=True), Resolved(unsent), None, "never-sent", "", tries=0, seconds=0.0
    )
    await record(hands.database, hands.id, [result])
    assert await db.fetchval("SELECT paused_at IS NOT NULL FROM dispatcher.app")
