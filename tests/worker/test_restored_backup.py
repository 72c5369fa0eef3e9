"""A worker on a restored backup sends nothing a second time."""

import pytest
from support.messages import finished, insert, states
from support.provider import app_at
from support.slow import slow_after
from support.waiting import until

from dispatcher.db.workers import heartbeat

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


async def test_a_restore_under_a_running_worker_pauses_what_waited(hands):
    """Nothing is claimed before the heartbeat that finds it; what came since is sent."""
    await hands.begin()
    old = await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))  # as a backup of then has it
    assert await hands.claim(heartbeat_at=beat.at) == []
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["default"]
    assert "restored backup" in await hands.db.fetchval("SELECT pause_reason FROM dispatcher.app")
    assert await hands.claim(heartbeat_at=paused.at) == []
    assert await hands.queue() == old
    again = await heartbeat(hands.database, hands.id, last_at=paused.at)
    assert again.paused == []


async def test_a_restore_without_the_worker_pauses_what_waited(hands):
    await hands.begin()
    await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("DELETE FROM dispatcher.worker")
    assert await hands.claim(heartbeat_at=beat.at) == []
    gone = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert (gone.silence, gone.paused) == (None, ["default"])


async def test_a_standby_that_lacks_a_heartbeat_pauses_nothing(hands):
    await hands.begin()
    ids = await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("20 s"))
    assert await hands.claim(heartbeat_at=beat.at) == []
    after = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert after.paused == []
    [batch] = await hands.claim(heartbeat_at=after.at)
    assert [message.id for message in batch.messages] == ids


async def test_messages_since_a_restore_pause_nothing(hands):
    await hands.begin()
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    await hands.insert(2)
    after = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert after.paused == []
    assert len(await hands.claim(heartbeat_at=after.at)) == 1
