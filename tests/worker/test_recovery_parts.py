"""A step of recovery that fails ends itself only, for this round, and is named."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import asyncpg
import pytest
from structlog.testing import capture_logs
from support.fast_forward import forget_heartbeat
from support.patient import PatientDatabase
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.outcome import UnknownResult
from dispatcher.db.database import create_pool
from dispatcher.db.loop import FailingParts, attempt
from dispatcher.db.workers import heartbeat
from dispatcher.worker.in_flight import InFlight, Lease
from dispatcher.worker.recovery import ClockWaits, run_recovery

BROKEN = {
    "expire": (
        """CREATE OR REPLACE FUNCTION dispatcher.expire(after timestamptz DEFAULT NULL,
        after_id bigint DEFAULT 0, OUT expired integer, OUT last timestamptz, OUT last_id bigint)
        LANGUAGE plpgsql AS 'BEGIN expired := 1 / 0; END'""",
        "messages that expire",
    ),
    "resend": ("ALTER TABLE dispatcher.report RENAME TO old_report", "unsure requests to be sent"),
}


@pytest.fixture
async def vital(dsn):
    """The connections of recovery: a refused statement waits for its correction."""
    pool = await create_pool(dsn, min_size=0, max_size=2)
    yield PatientDatabase(dsn, pool, retry_refusals=True)
    pool.terminate()


@asynccontextmanager
async def recovering(
    vital, worker: int, flight: InFlight, spool: Path, failing: FailingParts,
    *, started: float | None = None, interval: float = 0.05,
):  # fmt: skip
    stop, lease = asyncio.Event(), Lease(60.0, monotonic)
    lease.started = started
    task = asyncio.create_task(
        run_recovery(
            vital, worker, flight, lease, ClockWaits(),
            interval=interval, spool=spool, stop=stop, failing=failing,
        )
    )  # fmt: skip
    yield task
    stop.set()
    await task


@pytest.mark.parametrize("name", BROKEN)
async def test_a_step_that_fails_leaves_the_others_working(db, hands, vital, tmp_path, name):
    change, part = BROKEN[name]
    await hands.begin(on_unsure="resend")
    await hands.insert(1)
    [lost] = await hands.claim()
    dead = hands.id
    await forget_heartbeat(db, dead)
    await hands.begin(on_unsure="resend")
    await hands.insert(1, first=10)
    [unsent] = await hands.claim()
    hands.flight.mark_unconfirmed(unsent.token)
    hands.flight.finish(unsent.token)
    await db.execute(change)
    failing = FailingParts()
    async with recovering(vital, hands.id, hands.flight, tmp_path, failing) as task:
        await until(lambda: db.fetchval(STATE, lost.token, "unsure"), what="the dead one's")
        await until(lambda: db.fetchval(STATE, unsent.token, "closed"), what="the unsent one")
        await until(lambda: failing)
        assert not task.done()
        [(where, why)] = failing.items()
        assert where.startswith(f"recovery ({part}")
        assert why.count("\n") == 0
        if name == "resend":
            await db.execute("ALTER TABLE dispatcher.old_report RENAME TO report")
            await until(lambda: not failing, what="the step works again")


@pytest.mark.slow
async def test_slow_steps_do_not_keep_the_policy_from_resending(db, hands, vital, tmp_path):
    """Together they take longer than the margin of 1.5 s, and each of them less."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    await db.execute(
        "CREATE OR REPLACE FUNCTION dispatcher.expire(after timestamptz DEFAULT NULL,"
        " after_id bigint DEFAULT 0, OUT expired integer, OUT last timestamptz, OUT last_id bigint)"
        " LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); expired := 0; last := now();"
        " last_id := 1; END';"
        "CREATE OR REPLACE FUNCTION dispatcher.end_clock_waits(after bigint DEFAULT 0,"
        " most integer DEFAULT 20000, OUT ended bigint, OUT last bigint)"
        " LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); ended := 1; last := 1; END'"
    )
    async with recovering(vital, hands.id, hands.flight, tmp_path, FailingParts(), interval=0.5):
        await until(hands.queue, what="sent again")


async def test_recovery_takes_no_request_of_another_worker(db, hands, vital, tmp_path):
    """A restored database has given the id of this worker to that one, which sends it now."""
    await hands.begin(on_unsure="resend")
    mine = (await heartbeat(hands.database, hands.id)).started
    await db.execute("UPDATE dispatcher.worker SET started_at = started_at + interval '1 min'")
    await hands.insert(1)
    [its] = await hands.claim()
    flight = InFlight(lambda: "mine")
    async with recovering(vital, hands.id, flight, tmp_path, FailingParts(), started=mine):
        await asyncio.sleep(0.5)
        assert await db.fetchval(STATE, its.token, "open")


STATE = "SELECT state = $2 FROM dispatcher.batch WHERE token = $1"
ERRORS = [ValueError("year 20000"), OverflowError("too large"), asyncpg.DataError("22P02")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_value_ends_one_step_and_is_not_shown(error):
    failing = FailingParts()

    async def step() -> bool:
        raise error

    assert await attempt(step, unavailable="no step: away", part="p", failing=failing) is None
    assert failing["p"].startswith(f"a value cannot be processed ({type(error).__name__}")
    assert str(error) not in failing["p"]


async def test_other_errors_still_end_the_process():
    async def step() -> bool:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await attempt(step, unavailable="no step: away")


async def test_a_lock_is_not_told_as_a_database_that_is_away(db, vital):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")

    async def step() -> bool:
        async with vital.transaction(lock_timeout="50ms") as connection:
            await connection.execute("SELECT FROM dispatcher.app FOR UPDATE")
        return True

    with capture_logs() as logs:
        async with db.transaction():
            await db.execute("SELECT FROM dispatcher.app FOR UPDATE")
            assert not await attempt(step, unavailable="no step: the database is away")
        assert await attempt(step, unavailable="no step: the database is away")
    [line] = logs
    assert line["event"] == "no step: another session holds a lock"
    assert "pg_stat_activity" in line["why"]


async def away() -> bool:
    raise DatabaseUnavailable("No PostgreSQL answers: start it.") from TimeoutError()


async def works() -> bool:
    return True


async def test_a_step_that_alone_cannot_use_the_database_is_a_part_that_fails():
    failing = FailingParts()

    async def one_round() -> None:
        await attempt(away, unavailable="no step: the database is away", part="a", failing=failing)
        await attempt(works, unavailable="", part="b", failing=failing)

    await one_round()
    await one_round()
    assert not failing
    with capture_logs() as logs:
        await one_round()
    [(part, why)] = failing.items()
    assert part == "a"
    assert why.endswith(": a statement took too long, or its connection broke.")
    [line] = logs
    assert (line["event"], line["part"]) == ("no step: only this step fails", "a")
    await attempt(works, unavailable="", part="a", failing=failing)
    assert not failing
    await one_round()
    assert not failing


async def test_a_database_that_is_away_is_no_failure_of_a_part():
    failing = FailingParts()
    await attempt(works, unavailable="", part="b", failing=failing)
    for part in ("a", "b") * 5:
        await attempt(away, unavailable="away", part=part, failing=failing)
    assert not failing


async def test_a_part_whose_statements_time_out_is_named(vital):
    failing = FailingParts()

    async def sleep() -> bool:
        async with vital.transaction(seconds=0.1) as connection:
            await connection.execute("SELECT pg_sleep(5)")
        return True

    for _ in range(3):
        await attempt(sleep, unavailable="away", part="a", failing=failing)
        await attempt(works, unavailable="away", part="b", failing=failing)
    assert "a statement took too long" in failing["a"]
