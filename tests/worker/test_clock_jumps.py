"""The database's clock jumps while workers send: nothing is sent twice, and all goes out soon.

Its clock cannot be set here, so all that it has written is moved the other way instead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import monotonic

import asyncpg
import pytest
from support.exactness import read_books
from support.fast_forward import make_older
from support.messages import finished, insert, states
from support.patient import PatientDatabase
from support.provider import app_at, seen
from support.slow import slow_after
from support.waiting import until

from dispatcher.core.codes import NEVER_SENT
from dispatcher.core.delays import Pause
from dispatcher.core.outcome import Deferred, Rejected, Resolved, ReturnAll, UnknownResult
from dispatcher.db.database import create_pool
from dispatcher.db.loop import FailingParts
from dispatcher.db.queries import sql
from dispatcher.db.workers import release_unsent, resend_unsure
from dispatcher.simulator.faults import Delay
from dispatcher.worker import recovery
from dispatcher.worker.in_flight import Lease
from dispatcher.worker.recovery import ClockWaits, SilentWorkers, run_recovery

JUMPS = {"an hour forward": "1 hour", "an hour back": "-1 hour", "a day forward": "1 day",
         "a day back": "-1 day"}  # fmt: skip


async def jump(db: asyncpg.Connection, by: str) -> None:
    """Let the database's clock jump *by* an interval."""
    seconds = await db.fetchval(f"SELECT extract(epoch FROM interval '{by}')::float8")
    await make_older(db, seconds, but=["worker"])


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
    made_due = "SELECT ended FROM dispatcher.end_clock_waits()"
    assert await db.fetchval(made_due) == 2
    assert await db.fetchval(made_due) == 0
    due = "SELECT id FROM dispatcher.queue WHERE due_at <= clock_timestamp()"
    assert [row["id"] for row in await db.fetch(due)] == now
    assert await db.fetchval("SELECT due_at <= clock_timestamp() FROM dispatcher.bulk")


MADE_DUE = "SELECT ended FROM dispatcher.end_clock_waits()"


async def deferred(hands, *, seconds: float, code: str = NEVER_SENT) -> None:
    [batch] = await hands.claim()
    waits = [Deferred(each, code, seconds, counted=False) for each in batch.messages]
    assert await hands.record(batch, Resolved(waits))


async def withheld(hands) -> None:
    await deferred(hands, seconds=0.0)


async def given_back(hands) -> None:
    [batch] = await hands.claim()
    assert await hands.record(batch, ReturnAll(Pause("E000505", "a wrong key", 60.0, 60.0)))


async def lost_claim(hands) -> None:
    [batch] = await hands.claim()
    assert await release_unsent(hands.database, hands.id, set(), {batch.token: None}) == (1, 1)


async def settled(hands) -> None:
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await hands.db.execute("SELECT dispatcher.settle($1, 'resend')", batch.token)


async def resent_by_policy(hands) -> None:
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    assert await resend_unsure(hands.database, hands.id) == (1, 1)


async def requeued(hands) -> None:
    [batch] = await hands.claim()
    rejected = [Rejected(each, "E200028", "no such template") for each in batch.messages]
    await hands.record(batch, Resolved(rejected))
    assert await hands.db.fetchval("SELECT dispatcher.requeue($1)", [batch.messages[0].id]) == 1


async def put_back_by_its_claim(hands) -> None:
    [row] = await hands.db.fetch("DELETE FROM dispatcher.queue RETURNING id, priority")
    await hands.db.execute(
        sql("return_claimed"), "default", [row["id"]], [row["priority"]],
        [None], [0.0], [0], [False], [None], [None], [0],
    )  # fmt: skip


async def postponed(hands) -> None:
    [message] = await hands.queue()
    await hands.db.execute(sql("postpone_queued"), message, 0.0, "write-refused")


RETURNS: list[Callable[..., Awaitable[None]]] = [
    withheld, given_back, lost_claim, settled, resent_by_policy, requeued, put_back_by_its_claim,
    postponed,
]  # fmt: skip


async def jump_back(db: asyncpg.Connection) -> None:
    """Set the database's clock back by an hour, which was right when messages were inserted."""
    await jump(db, "-1 hour")
    await db.execute(
        "UPDATE dispatcher.message SET queued_at = queued_at - interval '1 hour',"
        " send_at = send_at - interval '1 hour'"
    )


async def waits(db: asyncpg.Connection) -> timedelta:
    """Return for how long the message waits."""
    return await db.fetchval("SELECT due_at - clock_timestamp() FROM dispatcher.queue")


@pytest.mark.parametrize("returned", RETURNS, ids=lambda each: each.__name__)
async def test_what_a_clock_ahead_returned_is_due_once_it_is_right(db, hands, returned):
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    await returned(hands)
    await jump_back(db)
    assert await waits(db) > timedelta(minutes=50)
    assert await db.fetchval(MADE_DUE) == 1
    assert await waits(db) <= timedelta()
    assert await db.fetchval(MADE_DUE) == 0


async def test_what_a_clock_ahead_deferred_keeps_its_wait(db, hands):
    await hands.begin()
    await hands.insert(1)
    await deferred(hands, seconds=600.0)
    assert await db.fetchval(MADE_DUE) == 0
    await jump_back(db)
    assert await db.fetchval(MADE_DUE) == 1
    assert timedelta(minutes=9) < await waits(db) <= timedelta(minutes=10)
    assert await db.fetchval("SELECT code FROM dispatcher.queue") == NEVER_SENT
    assert await db.fetchval(MADE_DUE) == 0


async def test_a_deferral_by_a_right_clock_keeps_its_wait(db, hands):
    """Though its message was inserted while the clock was ahead."""
    await hands.begin()
    await hands.insert(1)
    await deferred(hands, seconds=600.0)
    await db.execute("UPDATE dispatcher.message SET queued_at = queued_at + interval '5 minutes'")
    assert await db.fetchval(MADE_DUE) == 0
    assert timedelta(minutes=9) < await waits(db)


@pytest.mark.parametrize("by", ["E000630", "E200028"])
async def test_a_wait_that_was_ended_is_no_wait_after_a_jump_back(db, hands, by):
    await hands.begin()
    await hands.insert(1)
    await deferred(hands, seconds=600.0, code=by)
    await db.execute("SELECT dispatcher.end_country_waits('default')")
    await db.execute("SELECT dispatcher.end_refusal_waits('default')")
    await jump_back(db)
    assert await db.fetchval(MADE_DUE) == 1
    assert await waits(db) <= timedelta()


@pytest.mark.parametrize("returned", [withheld, given_back])
@pytest.mark.parametrize("told", ["by itself", "by its campaign"])
async def test_what_a_clock_ahead_sent_too_early_waits_for_its_time_again(
    db, hands, returned, told
):
    """A message for later, which was inserted while the clock was right."""
    await hands.begin()
    if told == "by itself":
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id, send_at)"
            " VALUES ('+8613112345678', 't', now() + interval '2 hours')"
        )
    else:
        await db.execute(LIST, 1)
        await db.execute("SELECT dispatcher.move_campaign('list', now() + interval '2 hours')")
        assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == 1
    await db.execute("UPDATE dispatcher.queue SET due_at = now()")
    await returned(hands)
    await db.execute(
        "UPDATE dispatcher.queue SET due_at = due_at + interval '3 hours',"
        " waits_since = waits_since + interval '3 hours'"
    )
    assert await db.fetchval(MADE_DUE) == 1
    assert timedelta(minutes=119) < await waits(db) < timedelta(minutes=121)
    assert await db.fetchval(MADE_DUE) == 0
    assert await db.fetchval("SELECT dispatcher.end_refusal_waits('default')") == 0


FIRST_WAIT = (
    "SELECT min(due_at - clock_timestamp()) FROM"
    " (SELECT due_at FROM dispatcher.queue UNION ALL SELECT due_at FROM dispatcher.bulk) AS w"
)
LIST = (
    "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
    " SELECT '+86131' || lpad(n::text, 8, '0'), 't', 'list' FROM generate_series(1, $1) AS n"
)


@pytest.mark.parametrize("count", [1, 30], ids=["queue", "bulk"])
@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("minutes", [30, 65])
async def test_a_campaign_moved_after_a_jump_back_stays_moved(db, hands, count, returns, minutes):
    """To a time about the one at which the clock ahead inserted or returned its messages."""
    await hands.begin()
    await db.execute(LIST, count)
    if returns:
        await deferred(hands, seconds=0.0)
    await jump(db, "-1 hour")
    await db.execute(
        "SELECT dispatcher.move_campaign('list', clock_timestamp() + $1 * interval '1 minute')",
        minutes,
    )
    assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == count
    assert await db.fetchval(MADE_DUE) == 0
    assert await db.fetchval(FIRST_WAIT) > timedelta(minutes=minutes - 1)


@pytest.mark.parametrize("count", [1, 30], ids=["queue", "bulk"])
async def test_a_campaign_moved_to_now_by_a_clock_ahead_is_due(db, count):
    await db.execute(LIST, count)
    await db.execute("SELECT dispatcher.move_campaign('list', clock_timestamp())")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == count
    await jump(db, "-1 hour")
    assert await db.fetchval(MADE_DUE) == 1
    assert await db.fetchval(FIRST_WAIT) <= timedelta()


async def test_a_silence_begins_anew_after_a_jump_back(db, hands):
    """Else the policy would wait until the clock has come to where it was."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await jump_back(db)
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    await db.execute(MADE_DUE)
    assert await resend_unsure(hands.database, hands.id, margin=60.0) == (0, 0)
    assert await resend_unsure(hands.database, hands.id) == (1, 1)


async def test_requests_of_a_clock_ahead_are_none_of_the_last_seconds(db, hands):
    await hands.begin()
    other = await db.fetchval(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease)"
        " VALUES ('there', 1, '0', '{default}', '1 min') RETURNING id"
    )
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state,"
        " tries) VALUES ('t', 'default', $1, '{1}', '{1}', 9, 'closed', 1)",
        other,
    )
    assert await db.fetchval(sql("others_send"), "default", hands.id)
    await jump(db, "-1 hour")
    assert not await db.fetchval(sql("others_send"), "default", hands.id)


@pytest.mark.parametrize("name", ["recent_counts", "status_totals", "last_hour"])
async def test_what_a_clock_ahead_counted_is_of_no_last_minutes(db, name):
    await db.execute(
        "INSERT INTO dispatcher.event_count (worker, minute, app, event, code, count)"
        " VALUES (1, date_trunc('minute', now()), 'default', 'accepted', '', 3),"
        " (1, date_trunc('minute', now()) + interval '1 day', 'default', 'accepted', '', 5)"
    )
    [row] = await db.fetch(sql(name))
    assert 3 in tuple(row)


async def test_requests_before_a_time_ahead_are_shown(db, hands):
    """The message was inserted while the clock was ahead, and sent when it was right."""
    await hands.begin()
    [message] = await hands.insert(1)
    await hands.claim()
    ahead = await db.fetchval("SELECT now() + interval '1 hour'")
    assert len(await db.fetch(sql("show_batches"), message, "default", ahead, None)) == 1


async def test_what_a_clock_ahead_sent_shows_no_other_host_that_sends(db, hands):
    await hands.begin()
    other = await db.fetchval(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease)"
        " VALUES ('there', 1, '0', '{default}', '1 min') RETURNING id"
    )
    await db.execute(
        "INSERT INTO dispatcher.event_count (minute, app, event, worker, count)"
        " VALUES (date_trunc('minute', now()), 'default', 'accepted', $1, 1)",
        other,
    )
    assert (await db.fetchrow(sql("who_reaches"), "default", hands.id))["reaching"]
    await jump(db, "-1 hour")
    assert not (await db.fetchrow(sql("who_reaches"), "default", hands.id))["reaching"]


async def test_flow_control_measures_on_after_a_jump_back(db):
    await db.execute(
        "INSERT INTO dispatcher.app (name, numbers_per_second, rate, slowed_at, window_at)"
        " VALUES ('default', 600, 300, clock_timestamp(), clock_timestamp())"
    )

    async def just_slowed() -> bool:
        await db.execute("UPDATE dispatcher.app SET slowed_at = clock_timestamp()")
        [row] = await db.fetch(sql("circuits"), ["default"])
        return row["just_slowed"]

    await until(just_slowed, what="it was slowed down within a second")
    await jump(db, "-1 day")
    for statement in ("circuits", "lock_circuits"):
        [row] = await db.fetch(sql(statement), ["default"])
        assert not row["just_slowed"]
    await db.execute(sql("set_window"), "default", True, 10, 2)
    [row] = await db.fetch(sql("circuits"), ["default"])
    assert 0 <= row["window_seconds"] < 3600
    await db.execute(sql("charge_pace"), "default", 1.0)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == 310  # not slowed down just now


async def test_no_country_is_paused_for_longer_after_a_jump_back(db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await db.execute(sql("pause_country"), "default", "FR", 3600.0, "E000630")
    assert len(await db.fetch(sql("paused_countries"), "default")) == 1
    await jump(db, "-1 day")
    assert await db.fetch(sql("paused_countries"), "default") == []


async def test_a_step_looks_at_no_more_rows_than_it_may(db):
    ids = await insert(db, 5)
    await jump(db, "-1 hour")
    step = "SELECT ended, last FROM dispatcher.end_clock_waits($1, 2)"
    steps, after = [], 0
    while after is not None:
        ended, after = await db.fetchrow(step, after)
        steps.append((ended, after))
    assert steps == [(2, ids[1]), (2, ids[3]), (1, None)]


@pytest.fixture
async def recovering(dsn, hands, tmp_path):
    """The recovery of a worker, not started yet, and its search."""
    pool = await create_pool(dsn, min_size=0, max_size=2)
    waits, failing, stop = ClockWaits(), FailingParts(), asyncio.Event()
    await hands.begin()

    def start() -> None:
        nonlocal task
        task = asyncio.create_task(
            run_recovery(
                PatientDatabase(dsn, pool, retry_refusals=True), hands.id, hands.flight,
                Lease(60.0, monotonic), waits,
                interval=0.05, spool=tmp_path, stop=stop, failing=failing,
            )
        )  # fmt: skip

    task: asyncio.Task[None] | None = None
    yield start, waits, failing
    stop.set()
    if task is not None:
        await task
    pool.terminate()


LATER = "SELECT NOT EXISTS (SELECT FROM dispatcher.queue WHERE due_at > clock_timestamp())"


async def test_a_start_ends_waits_of_a_clock_that_was_ahead(db, recovering):
    start, waits, _ = recovering
    await insert(db, 3)
    await jump(db, "-1 hour")
    start()
    await until(lambda: db.fetchval(LATER), what="all is due")
    await until(lambda: waits.searched == 1, what="a search finds nothing")
    await insert(db, 3)
    await jump(db, "-1 hour")
    await asyncio.sleep(0.2)
    assert not await db.fetchval(LATER)
    waits.jumps += 1
    await until(lambda: db.fetchval(LATER), what="all is due")


async def test_a_search_that_found_something_is_made_again(monkeypatch):
    """What an insert of the old clock commits meanwhile lies behind it."""
    steps = iter([(20, 7), (5, None), (0, 7), (1, None), (0, None)])
    looked: list[int] = []

    async def end_clock_waits(_database, after):
        looked.append(after)
        return next(steps)

    monkeypatch.setattr(recovery.workers, "end_clock_waits", end_clock_waits)
    waits = ClockWaits()
    for _ in range(10):
        await waits.end_some(None)
    assert looked == [0, 7, 0, 7, 0]
    assert waits.searched == waits.jumps


async def test_a_search_that_fails_is_made_again(db, recovering):
    start, waits, failing = recovering
    await insert(db, 3)
    await jump(db, "-1 hour")
    function = "ALTER FUNCTION dispatcher.{}(bigint, integer) RENAME TO {}"
    await db.execute(function.format("end_clock_waits", "away"))
    start()
    await until(lambda: failing, what="the step fails")
    assert waits.searched == 0
    await db.execute(function.format("away", "end_clock_waits"))
    await until(lambda: db.fetchval(LATER), what="all is due")


def test_a_worker_whose_heartbeat_lies_ahead_is_dead_after_its_lease():
    now = 1000.0
    silent = SilentWorkers(lambda: now)
    assert silent.dead({1: (5000.0, 60.0), 2: (5000.0, 20.0)}) == []
    now += 30
    assert silent.dead({1: (5000.0, 60.0), 2: (5010.0, 20.0)}) == []
    now += 31
    assert silent.dead({1: (5000.0, 60.0), 2: (5020.0, 20.0)}) == [1]
    now += 30
    assert silent.dead({2: (5020.0, 20.0)}) == [2]
    assert silent.dead({1: (5000.0, 60.0)}) == []  # it was not ahead in between


async def test_what_a_worker_had_that_died_before_a_jump_becomes_unsure(db, recovering, hands):
    """By the clock that was set back, its last heartbeat lies ahead for an hour."""
    start, _, failing = recovering
    await insert(db, 3)
    await hands.claim()
    await db.execute(
        "UPDATE dispatcher.worker SET heartbeat_at = clock_timestamp() + interval '1 hour',"
        " lease = interval '1 second'"
    )
    start()
    await until(lambda: unsure(db), what="its batch is unsure")
    assert not failing


async def unsure(db: asyncpg.Connection) -> bool:
    return await states(db) == {"unsure": 3}
