"""A worker on a restored backup sends nothing a second time."""

import pytest
from support.messages import finished, insert, states
from support.provider import app_at
from support.slow import slow_after
from support.waiting import until

OLD = "UPDATE dispatcher.worker SET heartbeat_at = heartbeat_at - interval '{}'"


async def away(db, workers, sim, *, stopped: bool, since: str) -> None:
    """Leave two messages that waited when the last worker was here, some time ago."""
    apps = {"default": app_at(sim.url)}
    worker = await workers.start(apps)
    await db.execute("SELECT dispatcher.pause('default', '')")
    await insert(db, 2)
    if stopped:
        worker.terminate()
        await worker.ended()
    else:
        worker.kill()
    await db.execute("SELECT dispatcher.resume('default')")
    await db.execute("UPDATE dispatcher.worker SET heartbeat_at = clock_timestamp()")
    await db.execute(OLD.format(since))
    await db.execute(
        "UPDATE dispatcher.message"
        f" SET queued_at = queued_at - interval '{since}' - interval '1 min'"
    )


@pytest.mark.parametrize(("stopped", "since"), slow_after(1, [(False, "2 h"), (True, "2 d")]))
async def test_a_start_after_a_restore_is_paused_and_says_so(db, workers, sim, stopped, since):
    await away(db, workers, sim, stopped=stopped, since=since)
    worker = await workers.start({"default": app_at(sim.url)})
    assert "started paused" in worker.text()
    reason = await db.fetchval(
        "SELECT pause_reason FROM dispatcher.app WHERE paused_at IS NOT NULL"
    )
    assert "restored backup" in reason
    assert "(dispatcher run)" in reason
    assert sim.ledger.numbers == 0
    await db.execute("SELECT dispatcher.resume('default')")
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2}


@pytest.mark.parametrize(("stopped", "since"), slow_after(1, [(False, "30 min"), (True, "2 h")]))
async def test_a_start_after_a_shorter_time_sends(db, workers, sim, stopped, since):
    await away(db, workers, sim, stopped=stopped, since=since)
    await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2}


@pytest.mark.slow
async def test_messages_that_came_since_are_sent_at_once(db, workers, sim):
    worker = await workers.start({"default": app_at(sim.url)})
    worker.kill()
    await db.execute(OLD.format("30 d"))
    await insert(db, 2)
    await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2}


async def test_a_message_with_an_outcome_is_never_claimed(db, workers, sim):
    ids = await insert(db, 3)
    await db.executemany(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'accepted', 1)",
        [(each,) for each in ids[:2]],
    )
    await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 3}
    assert sim.ledger.numbers == 1
