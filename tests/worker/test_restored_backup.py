"""A worker on a restored backup sends nothing a second time."""

import asyncio
import errno
import os
from pathlib import Path
from time import monotonic

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from support.messages import finished, insert, states
from support.provider import app_at
from support.slow import slow_after
from support.waiting import until

from dispatcher.core.outcome import UnknownResult
from dispatcher.db import last_heartbeat
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, connect
from dispatcher.db.last_heartbeat import (
    FILE_NAME,
    HeartbeatFile,
    LastHeartbeat,
    read_last_heartbeat,
)
from dispatcher.db.queries import sql
from dispatcher.db.status import snapshot
from dispatcher.db.workers import (
    database_id,
    heartbeat,
    pause_after_restore,
    register_worker,
    release_unsent,
    resend_unsure,
    worker_stopped,
)

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
    worker = await workers.start({"default": app_at(sim.url)}, data_dir=workers.folder / "new")
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
    await workers.start({"default": app_at(sim.url)}, data_dir=workers.folder / "new")
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2}


async def test_a_backup_of_a_healthy_system_is_paused(db, workers, sim):
    """What waits in it came after the last heartbeat: all else had been sent."""
    worker = await workers.start({"default": app_at(sim.url)})
    worker.kill()
    await db.execute("UPDATE dispatcher.worker SET heartbeat_at = clock_timestamp()")
    await insert(db, 2)
    await db.execute(OLD.format("2 h"))
    await db.execute("UPDATE dispatcher.message SET queued_at = queued_at - interval '2 h'")
    again = await workers.start({"default": app_at(sim.url)}, data_dir=workers.folder / "new")
    assert "started paused" in again.text()
    assert sim.ledger.numbers == 0


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


async def test_an_app_that_the_backup_does_not_know_is_paused(hands):
    """Its messages waited for the first worker with this app, which sent them after the backup."""
    await hands.begin()
    await hands.insert(2, app="new")
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["new"]
    last = LastHeartbeat(await database_id(hands.database), hands.id, beat.started, beat.at)
    await hands.db.execute("DELETE FROM dispatcher.app WHERE name = 'new'")
    await hands.db.execute(OLD.format("30 min"))
    assert (await pause_after_restore(hands.database, last))[0] == ["new"]


async def test_who_resumes_what_a_person_had_paused_is_told_of_the_restore(hands):
    await hands.begin()
    await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("SELECT dispatcher.pause('default', 'a mistake', 'Ana')")
    await hands.db.execute(OLD.format("30 min"))
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["default"]
    assert "restored backup" in await hands.db.fetchval("SELECT pause_reason FROM dispatcher.app")


async def test_what_would_go_on_is_ended_before_the_queue_is_read(hands):
    """That may take a minute, and would miss what is added meanwhile."""
    await hands.begin()
    await hands.insert(1)
    action = await under_way(hands.db, since="1 hour")
    loading = await hands.db.fetchval(
        "INSERT INTO dispatcher.list_upload (created_by, name, options, state, asked_at)"
        " VALUES ('Ana', 'a.csv', '{}', 'loading', now() - interval '1 hour') RETURNING id"
    )
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    await held_queue(hands.db)
    looking = asyncio.create_task(heartbeat(hands.database, hands.id, last_at=beat.at))
    held = "SELECT restored_at IS NOT NULL FROM dispatcher.installation"
    await until(lambda: hands.db.fetchval(held))
    ended = "SELECT ended_early FROM dispatcher.message_action WHERE id = $1"
    assert await hands.db.fetchval(ended, action)
    upload = "SELECT state, error FROM dispatcher.list_upload WHERE id = $1"
    state, error = await hands.db.fetchrow(upload, loading)
    assert (state, "restored" in error) == ("failed", True)
    audit = "SELECT action FROM dispatcher.audit WHERE target = 'list ' || $1"
    assert await hands.db.fetchval(audit, str(loading)) == "load"
    assert not looking.done()
    await hands.db.execute("INSERT INTO public.go VALUES (1)")
    assert (await looking).paused == ["default"]


@pytest.mark.usefixtures("patient_locks")
async def test_a_resend_under_way_is_found_in_the_queue(hands, dsn):
    """The look for a restore waits until it is committed."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    other = await connect(dsn)
    async with other.transaction():
        silent = [row["id"] for row in await other.fetch(sql("lock_silent"), 0.0)]
        await other.execute(sql("resend_unsure"), hands.id, silent)
        looking = asyncio.create_task(heartbeat(hands.database, hands.id, last_at=beat.at))
        await asyncio.sleep(0.3)
        assert not looking.done()
    await other.close()
    assert (await looking).paused == ["default"]


async def held_queue(db) -> None:
    """Let the queue be read only once `go` has a row."""
    await db.execute(
        "CREATE TABLE public.go (n int);"
        "CREATE FUNCTION public.until_go() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " WHILE NOT EXISTS (SELECT FROM public.go) LOOP PERFORM pg_sleep(0.02); END LOOP;"
        " RETURN true; END $$;"
        "ALTER TABLE dispatcher.queue RENAME TO rows_of_queue;"
        "CREATE VIEW dispatcher.queue AS SELECT * FROM dispatcher.rows_of_queue"
        " WHERE public.until_go()"
    )


async def slow_queue(db, seconds: float) -> None:
    """Let each row of the queue take some seconds to read, as many rows on a cold disk."""
    await db.execute(
        "ALTER TABLE dispatcher.queue RENAME TO rows_of_queue;"
        "CREATE VIEW dispatcher.queue AS SELECT * FROM dispatcher.rows_of_queue"
        f" WHERE pg_sleep({seconds}) IS NOT NULL"
    )


async def test_a_heartbeat_after_a_restore_has_time_for_the_queue(hands, strict_database):
    hands.database = strict_database
    await hands.begin()
    await hands.insert(1)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    await slow_queue(hands.db, 4.0)
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at, seconds=3.0)
    assert paused.paused == ["default"]
    assert (await heartbeat(hands.database, hands.id, last_at=paused.at)).paused == []


@pytest.mark.slow
async def test_a_start_after_a_restore_has_time_for_the_queue(hands, strict_database):
    """More than the 5 s of other transactions."""
    hands.database = strict_database
    await hands.begin()
    await hands.insert(1)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    await slow_queue(hands.db, TRANSACTION_TIMEOUT_SECONDS + 0.5)
    last = LastHeartbeat(await database_id(hands.database), hands.id, beat.started, beat.at)
    assert (await pause_after_restore(hands.database, last))[0] == ["default"]


@pytest.mark.parametrize("table", ["queue", "bulk"])
async def test_what_waits_for_later_in_a_backup_is_paused(hands, table):
    """It may have been made due since, and sent, or cancelled."""
    await hands.begin()
    old = await hands.insert(1 if table == "queue" else 30)
    later = f"UPDATE dispatcher.{table} SET due_at = clock_timestamp() + interval '1 day'"
    assert await hands.db.execute(later) == "UPDATE 1"
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["default"]
    assert await hands.queue() == old


async def test_a_row_that_is_gone_hides_no_others_of_a_backup(hands):
    await hands.begin()
    old = await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("DELETE FROM dispatcher.message WHERE id = $1", old[0])
    await hands.db.execute(OLD.format("30 min"))
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["default"]


async def test_after_an_outage_what_waits_for_later_is_not_paused(hands):
    """Nothing shows that a backup was restored."""
    await hands.begin()
    await hands.insert(2)
    await hands.db.execute(
        "UPDATE dispatcher.queue SET due_at = clock_timestamp() + interval '1 day'"
    )
    for table, time in (("worker", "heartbeat_at"), ("message", "queued_at")):
        await hands.db.execute(f"UPDATE dispatcher.{table} SET {time} = {time} - interval '2 h'")
    assert (await pause_after_restore(hands.database))[0] == []


async def ahead(db) -> None:
    """Leave the row of a worker that stopped while the clock was ahead."""
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at, stopped_at)"
        " SELECT 'there', 1, '0', '{}', '1 min', at, at"
        " FROM (SELECT clock_timestamp() + interval '1 year' AS at) AS ahead"
    )


async def test_a_heartbeat_ahead_hides_no_old_backup(hands):
    await hands.begin()
    await hands.insert(1)
    await ahead(hands.db)
    for table, time in (("worker", "heartbeat_at"), ("message", "queued_at")):
        await hands.db.execute(f"UPDATE dispatcher.{table} SET {time} = {time} - interval '2 h'")
    paused, why = await pause_after_restore(hands.database)
    assert paused == ["default"]
    assert "This may be a restored backup" in why


async def test_a_heartbeat_ahead_hides_no_backup_from_its_worker(hands):
    """The row of that one is gone: it started since the backup, and was away for over an hour."""
    await hands.begin()
    await hands.insert(1)
    beat = await heartbeat(hands.database, hands.id)
    await ahead(hands.db)
    for table, time in (("worker", "heartbeat_at"), ("message", "queued_at")):
        await hands.db.execute(f"UPDATE dispatcher.{table} SET {time} = {time} - interval '3 h'")
    last = LastHeartbeat(
        await database_id(hands.database), hands.id + 100, beat.started, beat.at - 7200
    )
    paused, why = await pause_after_restore(hands.database, last)
    assert paused == ["default"]
    assert "This is a restored backup" in why


async def test_a_message_of_a_clock_ahead_hides_no_others_of_a_backup(hands):
    await hands.begin()
    old = await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(
        "UPDATE dispatcher.message SET queued_at = queued_at + interval '1 year' WHERE id = $1",
        old[0],
    )
    await hands.db.execute(OLD.format("30 min"))
    paused = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert paused.paused == ["default"]


@pytest.mark.parametrize("restored", [True, False])
async def test_a_restore_holds_what_a_clock_ahead_opened(hands, restored):
    """It may be from before; the backup may lack its answer."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    [old] = await hands.claim()
    await hands.record(old, UnknownResult("timeout", "no answer"))
    await hands.db.execute("UPDATE dispatcher.batch SET opened_at = opened_at + interval '1 year'")
    if restored:
        await hands.db.execute("UPDATE dispatcher.installation SET restored_at = now()")
    [app] = (await snapshot(hands.db)).apps
    assert app.held_batches == restored
    assert await resend_unsure(hands.database, hands.id) == ((0, 0) if restored else (1, 1))


async def under_way(db, *, since: str) -> int:
    """Add an action that was started some time ago; return its id."""
    return await db.fetchval(
        "INSERT INTO dispatcher.message_action (created_by, action, filter, address, counts,"
        " messages, targets, started_at, started_by) VALUES ('Ana', 'requeue', 'code E1', '',"
        " '[]', 1, '{1}', clock_timestamp() - $1::text::interval, 'Ana') RETURNING id",
        since,
    )


UNFINISHED = "SELECT id FROM dispatcher.message_action WHERE finished_at IS NULL"


async def test_a_restore_ends_the_actions_that_were_under_way(hands):
    """They would queue what was sent since the backup, although nothing waits now."""
    await hands.begin()
    beat = await heartbeat(hands.database, hands.id)
    old = await under_way(hands.db, since="5 min")
    await hands.db.execute(OLD.format("30 min"))
    new = await under_way(hands.db, since="-1 s")
    await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert await hands.db.fetchval(UNFINISHED) == new
    assert await hands.db.fetchval(
        "SELECT ended_early FROM dispatcher.message_action WHERE id = $1", old
    )
    audit = await hands.db.fetch(
        "SELECT actor, action, target, detail, result FROM dispatcher.audit"
    )
    assert [tuple(row) for row in audit] == [
        (
            "dispatcher run",
            "requeue",
            f"action {old}",
            "code E1",
            "ended early: what is left may have been done before the restore",
        )
    ]


async def test_after_a_restore_no_policy_resends_older_requests(hands):
    """The backup lacks their answers and reports. Those of later requests come again."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(2)
    [old] = await hands.claim()
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    after = await heartbeat(hands.database, hands.id, last_at=beat.at)
    assert after.paused == []  # nothing waits
    await hands.record(old, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    await hands.insert(1, first=10)
    [new] = await hands.claim()
    await hands.record(new, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (1, 1)
    assert await states(hands.db) == {"unsure": 2, "queued": 1}


@pytest.mark.parametrize("known", [True, False], ids=["by its worker", "by its age"])
async def test_a_start_on_a_backup_holds_its_requests(hands, known):
    """One whose newest heartbeat is old, and in which messages wait: all else was sent since."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(2)
    [old] = await hands.claim()
    await hands.insert(1, first=10)
    beat = await heartbeat(hands.database, hands.id)
    last = LastHeartbeat(await database_id(hands.database), hands.id, beat.started, beat.at)
    for table, time in (
        ("worker", "heartbeat_at"),
        ("message", "queued_at"),
        ("batch", "opened_at"),
    ):
        await hands.db.execute(f"UPDATE dispatcher.{table} SET {time} = {time} - interval '2 h'")
    paused, why = await pause_after_restore(hands.database, last if known else None)
    assert paused == ["default"]
    assert ("This is a restored backup" in why) == known
    await hands.record(old, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    [app] = (await snapshot(hands.db)).apps
    assert (app.unsure_batches, app.held_batches) == (1, 1)
    await hands.db.execute("SELECT dispatcher.resume('default')")
    [new] = await hands.claim()
    await hands.record(new, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (1, 1)
    assert await states(hands.db) == {"unsure": 2, "queued": 1}


async def test_an_old_file_of_a_heartbeat_hides_no_silence(hands):
    """A second backup is restored; this host was off since before the first, which was resumed."""
    await hands.begin()
    await hands.insert(1)
    beat = await heartbeat(hands.database, hands.id)
    last = LastHeartbeat(await database_id(hands.database), hands.id, beat.started, beat.at)
    for table, time in (("worker", "heartbeat_at"), ("message", "queued_at")):
        await hands.db.execute(f"UPDATE dispatcher.{table} SET {time} = {time} - interval '2 h'")
    await hands.db.execute("UPDATE dispatcher.app SET resumed_at = clock_timestamp()")
    paused, why = await pause_after_restore(hands.database, last)
    assert paused == ["default"]
    assert "This may be a restored backup" in why


async def test_a_held_row_of_an_app_delays_no_restore(hands, dsn):
    """A person holds it; nothing waits, so nothing is to be paused."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute(OLD.format("30 min"))
    person = await connect(dsn)
    async with person.transaction():
        await person.execute("SELECT FROM dispatcher.app FOR UPDATE")
        after = await heartbeat(hands.database, hands.id, last_at=beat.at)
    await person.close()
    assert after.silence is not None
    assert await hands.db.fetchval("SELECT restored_at FROM dispatcher.installation") is not None


@pytest.mark.parametrize(("away", "left"), [("30 min", 1), ("2 h", 0)])
async def test_a_start_after_long_ends_the_actions_of_before(hands, away, left):
    await hands.begin()
    await hands.db.execute(OLD.format(away))
    await under_way(hands.db, since=away)
    await pause_after_restore(hands.database)
    assert len(await hands.db.fetch(UNFINISHED)) == left


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


async def test_a_worker_whose_id_was_given_again_claims_nothing(hands):
    """A restored database gives its id to the next worker that starts."""
    await hands.begin()
    old = await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("DELETE FROM dispatcher.worker")
    other = (
        await register_worker(
            hands.database, host="there", pid=1, version="0", apps=["default"], lease=60.0
        )
    ).id
    await hands.db.execute("UPDATE dispatcher.worker SET id = $1 WHERE id = $2", hands.id, other)
    await heartbeat(hands.database, hands.id)
    assert await hands.claim(heartbeat_at=beat.at, started=beat.started) == []
    gone = await heartbeat(hands.database, hands.id, last_at=beat.at, started=beat.started)
    assert (gone.silence, gone.paused) == (None, ["default"])
    assert await hands.queue() == old


async def test_a_worker_whose_id_was_given_again_leaves_alone(hands):
    """It stops neither the other worker, nor has that one's requests become unsure."""
    await hands.begin()
    mine = (await heartbeat(hands.database, hands.id)).started
    await hands.db.execute(
        "UPDATE dispatcher.worker SET started_at = started_at + interval '1 min'"
    )
    await hands.insert(2)
    await hands.claim()
    assert await release_unsent(hands.database, hands.id, set(), {}, mine) == (0, 0)
    await worker_stopped(hands.database, hands.id, mine)
    assert await hands.batches() == [("open", None)]
    stopped = "SELECT stopped_at IS NOT NULL FROM dispatcher.worker"
    assert not await hands.db.fetchval(stopped)
    its = (await heartbeat(hands.database, hands.id)).started
    await release_unsent(hands.database, hands.id, set(), {}, its)
    await worker_stopped(hands.database, hands.id, its)
    assert await hands.batches() == [("unsure", "record-lost")]
    assert await hands.db.fetchval(stopped)


NO_HEARTBEAT = """
    CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE 'no heartbeat' USING ERRCODE = 'cannot_connect_now'; END $$;
    CREATE TRIGGER fail BEFORE UPDATE ON dispatcher.worker
    FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.fail()
"""


async def test_a_restore_before_the_first_heartbeat_is_noticed(db, workers, sim):
    """The worker knows its row from the start, and a backup of before then lacks it."""
    await db.execute(NO_HEARTBEAT)
    worker = await workers.start({"default": app_at(sim.url)})
    await until(lambda: db.fetchval("SELECT count(*) = 1 FROM dispatcher.worker"), what="its row")
    # The next worker of this directory knows it too.
    await until((workers.folder / "data" / FILE_NAME).exists, what="its row is kept on disk")
    await db.execute("DELETE FROM dispatcher.worker")
    await insert(db, 2)
    with pytest.raises(AssertionError, match="sent"):
        await until(lambda: sim.journal, what="sent", deadline=2)
    await db.execute("DROP TRIGGER fail ON dispatcher.worker")
    await worker.ended()
    assert worker.code
    assert await states(db) == {"queued": 2}


@pytest.mark.slow
async def test_a_worker_that_loses_its_id_does_not_stop_the_other(db, workers, sim):
    worker = await workers.start({"default": app_at(sim.url, timeout=2)}, lease=12)
    await until(lambda: db.fetchval("SELECT count(*) = 1 FROM dispatcher.worker"), what="its row")
    await db.execute("UPDATE dispatcher.worker SET started_at = started_at + interval '1 min'")
    await worker.ended()
    assert worker.code
    assert await db.fetchval("SELECT stopped_at IS NULL FROM dispatcher.worker")


async def test_a_worker_whose_row_is_gone_for_long_pauses_nothing(hands):
    """Retention deletes rows of workers that were away for so long."""
    await hands.begin()
    await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("DELETE FROM dispatcher.worker")
    await register_worker(
        hands.database, host="there", pid=1, version="0", apps=["default"], lease=60.0
    )
    away = beat.at - 7200
    gone = await heartbeat(hands.database, hands.id, last_at=away, started=beat.started)
    assert (gone.silence, gone.paused) == (None, [])


async def test_a_worker_that_came_after_a_restore_does_not_hide_it(hands):
    """A worker of before shows when the backup was made, though another is here by now."""
    await hands.begin()
    await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    await hands.db.execute("UPDATE dispatcher.worker SET started_at = started_at - interval '3 h'")
    await hands.db.execute(OLD.format("150 min"))
    await hands.db.execute("UPDATE dispatcher.message SET queued_at = queued_at - interval '3 h'")
    last = beat.at - 7200  # two hours ago, half an hour after the backup
    await register_worker(
        hands.database, host="there", pid=1, version="0", apps=["default"], lease=60.0
    )
    gone = await heartbeat(hands.database, 10**6, last_at=last, started=last - 60)
    assert (gone.silence, gone.paused) == (None, ["default"])


async def restored_since(db, workers, sim, *, by: str) -> dict[str, object]:
    """Let a worker work and end, and restore a backup that was made some time before."""
    apps = {"default": app_at(sim.url)}
    worker = await workers.start(apps)
    kept = workers.folder / "data" / FILE_NAME
    await until(kept.exists, what="a heartbeat is kept")
    worker.kill()
    await insert(db, 2)
    await db.execute(OLD.format(by))
    await db.execute(f"UPDATE dispatcher.message SET queued_at = queued_at - interval '{by}'")
    return apps


async def test_a_start_on_a_young_backup_is_paused(db, workers, sim):
    """No worker ran when it was restored: the file of the last one knows."""
    apps = await restored_since(db, workers, sim, by="10 min")
    again = await workers.start(apps)
    assert "started paused" in again.text()
    reason = await db.fetchval("SELECT pause_reason FROM dispatcher.app")
    assert "This is a restored backup" in reason
    assert sim.ledger.numbers == 0
    again.kill()


async def test_a_young_backup_that_was_resumed_is_sent(db, workers, sim):
    """An operator has looked, and starts the first worker then."""
    apps = await restored_since(db, workers, sim, by="10 min")
    await db.execute("SELECT dispatcher.resume('default')")
    await workers.start(apps)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2}


@pytest.mark.parametrize("what", [b"", b"\xff{", b'{"at": 1}', b"[]"])
def test_a_file_of_a_heartbeat_that_is_damaged_says_nothing(tmp_path, what):
    (tmp_path / FILE_NAME).write_bytes(what)
    assert read_last_heartbeat(tmp_path) is None


LAST = LastHeartbeat("a", 1, 1.0, 2.0)
NOT_KEPT = "the last heartbeat is not kept: the next worker may not know a restored database"


async def test_a_heartbeat_on_disk_is_for_its_user_alone(tmp_path):
    HeartbeatFile(tmp_path / "new").keep(LAST)
    file = tmp_path / "new" / FILE_NAME
    await until(file.exists, what="it is kept")
    assert (file.stat().st_mode & 0o777, read_last_heartbeat(file.parent)) == (0o600, LAST)
    assert [*file.parent.iterdir()] == [file]


async def test_a_disk_that_hangs_delays_no_heartbeat(tmp_path, monkeypatch):
    """The log says so once; not while the first write has only begun."""
    part = tmp_path / f"{FILE_NAME}.{os.getpid()}-{LAST.worker}"
    os.mkfifo(part)  # to open it waits for who reads
    kept = HeartbeatFile(tmp_path)
    monkeypatch.setattr(last_heartbeat, "SLOW_SECONDS", 600.0)
    with capture_logs() as logs:
        began = monotonic()
        for _beat in range(3):
            kept.keep(LAST)
        assert not logs
        monkeypatch.setattr(last_heartbeat, "SLOW_SECONDS", 0.0)
        for _beat in range(2):
            kept.keep(LAST)
        assert monotonic() - began < 30
    assert [(line["event"], line["why"]) for line in logs] == [
        (NOT_KEPT, "the disk does not answer")
    ]
    reads = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
    await until((tmp_path / FILE_NAME).exists, what="the disk answers")
    os.close(reads)


async def test_a_disk_that_is_full_is_told_once(tmp_path, monkeypatch):
    """Until it was written again."""

    def full(_folder: Path, _last: LastHeartbeat) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept, write = HeartbeatFile(tmp_path), last_heartbeat._write
    with capture_logs() as logs:
        for writes in (full, full, write, full, full):
            monkeypatch.setattr(last_heartbeat, "_write", writes)
            kept.keep(LAST)
            await until(lambda: not kept._writing.is_alive())
    assert [line["why"] for line in logs] == ["No space left on device"] * 2


@pytest.mark.slow
async def test_a_worker_without_a_folder_keeps_its_lease(db, workers, sim, tmp_path):
    (tmp_path / "file").touch()
    apps = {"default": app_at(sim.url, timeout=2)}
    worker = await workers.start(apps, lease=12, data_dir=tmp_path / "file" / "data")
    began = await db.fetchval("SELECT heartbeat_at FROM dispatcher.worker")
    later = "SELECT heartbeat_at > $1::timestamptz + interval '1 s' FROM dispatcher.worker"
    await until(lambda: db.fetchval(later, began), what="it beats")
    await insert(db, 2)
    await until(lambda: finished(db))
    assert (worker.text().count(NOT_KEPT), worker.code) == (1, None)


async def test_a_heartbeat_of_another_database_says_nothing(hands):
    await hands.begin()
    await hands.insert(2)
    beat = await heartbeat(hands.database, hands.id)
    later = beat.at + 600  # as in a database that has lost ten minutes
    last = LastHeartbeat("other", hands.id, beat.started, later)
    assert await pause_after_restore(hands.database, last) == ([], "")
    last = replace(last, database=await database_id(hands.database))
    assert (await pause_after_restore(hands.database, last))[0] == ["default"]
