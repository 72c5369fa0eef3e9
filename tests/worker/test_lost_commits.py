"""What the database has lost of a worker that lives: by a fail-over, or a claim cut in the middle.

Only what this worker knows to be never sent goes back; what may have been sent becomes unsure.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from structlog.testing import capture_logs
from support.messages import states
from support.patient import PatientDatabase

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Resolved, UnknownResult
from dispatcher.core.packing import halve
from dispatcher.core.result import BatchResult
from dispatcher.db.database import Connection, Database
from dispatcher.db.split import split
from dispatcher.db.workers import release_unsent, resend_unsure
from dispatcher.telemetry import Metrics
from dispatcher.worker import recorder as recording
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import MAX_UNCONFIRMED, InFlight
from dispatcher.worker.recorder import Recorder


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    """Let a recorder write to its end, also on a machine that stands still."""
    monkeypatch.setattr(recording, "GRACE_SECONDS", 60.0)


async def test_a_batch_whose_record_was_lost_becomes_unsure(hands):
    """A standby that was promoted had the claim, and not the record of its answer."""
    await hands.begin()
    await hands.insert(5)
    [batch] = await hands.claim()
    await hands.record(batch, Resolved([Accepted(m, f"p{m.id}", 1) for m in batch.messages]))
    hands.flight.finish(batch.token)
    await hands.db.execute("DELETE FROM dispatcher.outcome")
    await hands.db.execute("UPDATE dispatcher.batch SET state = 'open', closed_at = NULL")
    await release_unsent(hands.database, hands.id, hands.flight.tokens, hands.flight.unconfirmed)
    assert await hands.batches() == [("unsure", "record-lost")]
    assert await hands.queue() == []
    assert await states(hands.db) == {"unsure": 5}
    # The provider did answer: no policy sends it again.
    await hands.begin(on_unsure="resend", resend_after=0.0)
    assert await resend_unsure(hands.database, hands.id) == (0, 0)


async def test_a_batch_whose_claim_failed_and_was_committed_goes_back(hands):
    await hands.begin()
    ids = await hands.insert(5)
    [batch] = await hands.claim()
    assert await release_unsent(
        hands.database, hands.id, hands.flight.tokens, hands.flight.unconfirmed
    ) == (
        0,
        0,
    )  # it is on its way
    hands.flight.mark_unconfirmed(batch.token)
    assert await release_unsent(
        hands.database, hands.id, hands.flight.tokens, hands.flight.unconfirmed
    ) == (1, 5)
    assert await hands.queue() == ids
    assert await hands.db.fetchval("SELECT max(attempt) FROM dispatcher.queue") == 0
    # A backup of before then has the batch open again; others may have sent its messages since.
    assert not hands.flight.unconfirmed


async def test_a_claim_is_on_disk_before_its_requests_are_sent(hands):
    """Else a crash of the database would put what was sent into the queue again.

    Likewise the parts of a request: else nothing would know them.
    """
    await hands.begin()
    await hands.insert(1)
    await hands.db.execute(
        "CREATE TABLE seen AS SELECT ''::text AS setting;"
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE seen SET setting = current_setting('synchronous_commit'); RETURN NEW; END $$;"
        "CREATE TRIGGER see BEFORE INSERT ON dispatcher.batch FOR EACH ROW EXECUTE FUNCTION see()"
    )
    for given, wanted in (("off", "local"), ("on", "on"), ("remote_apply", "remote_apply")):
        await hands.db.execute(
            f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {given}',"
            " current_database()); END $$"
        )
        await hands.database.pool.expire_connections()
        await hands.insert(2, first=100)
        batch = (await hands.claim())[-1]
        assert await hands.db.fetchval("SELECT setting FROM seen") == wanted
        await hands.db.execute("UPDATE seen SET setting = ''")
        assert await split(
            hands.database,
            hands.id,
            batch,
            halve(batch.packed),
            code="E000027",
            description="",
            http_status=400,
            tries=1,
            token=hands.flight.new_token,
        )
        assert await hands.db.fetchval("SELECT setting FROM seen") == wanted


class LosingDatabase(PatientDatabase):
    """The first transaction commits, and its answer is lost."""

    lost = False

    @asynccontextmanager
    async def transaction(self, **more) -> AsyncIterator[Connection]:
        async with super().transaction(**more) as connection:
            yield connection
        if not self.lost:
            self.lost = True
            raise DatabaseUnavailable("the connection broke")


class FailingDatabase(PatientDatabase):
    """Its calls fail with the errors of *failures*, in order; None: it succeeds."""

    failures: Iterator[Exception | None] = itertools.repeat(None)

    @asynccontextmanager
    async def acquire(self, **more) -> AsyncIterator[Connection]:
        if error := next(self.failures):
            raise error
        async with super().acquire(**more) as connection:
            yield connection


async def claimed(hands, count: int) -> list[Batch]:
    """Announce a worker, and claim *count* requests of one message."""
    await hands.begin()
    batches = []
    for first in range(count):
        await hands.insert(1, first=first)
        batches += await hands.claim()
    return batches


def recorder_of(hands, database: Database, folder, breaker: CircuitBreaker) -> Recorder:
    return Recorder(
        database,
        worker=hands.id,
        in_flight=hands.flight,
        folder=folder,
        metrics=Metrics(),
        breakers={"default": breaker},
        limits={},
    )


def no_answer(batch: Batch) -> BatchResult:
    unknown = UnknownResult("timeout", "no answer")
    return BatchResult(batch, unknown, None, "timeout", "", 1, 0.1)


async def test_a_circuit_that_a_lost_commit_opened_withholds(hands, database, tmp_path):
    batches = await claimed(hands, 4)
    breaker = CircuitBreaker("default")
    recorder = recorder_of(hands, LosingDatabase(database.dsn, database.pool), tmp_path, breaker)
    for batch in batches[:3]:
        recorder.results.put(no_answer(batch))
    assert breaker.covers(batches[3].claimed_at)
    await recorder.finish(asyncio.create_task(recorder.run()))
    assert await hands.db.fetchval("SELECT pause_code FROM dispatcher.app") == "unknown-results"
    assert not breaker.covers(batches[3].claimed_at)


async def test_a_circuit_opened_before_a_lock_was_met_withholds(hands, database, tmp_path):
    """A value is refused, so both halves are written alone; a row of the second one is held."""
    batches = await claimed(hands, 7)
    breaker = CircuitBreaker("default")
    locked = DatabaseUnavailable("another session holds a lock")
    locked.__cause__ = asyncpg.LockNotAvailableError()
    failing = FailingDatabase(database.dsn, database.pool)
    failing.failures = itertools.chain([None, None, locked], itertools.repeat(None))
    recorder = recorder_of(hands, failing, tmp_path, breaker)
    for batch in batches[:3]:
        recorder.results.put(no_answer(batch))
    for batch in batches[3:6]:
        verdict = Resolved([Accepted(m, f"p\x00{m.id}", 1) for m in batch.messages])
        recorder.results.put(BatchResult(batch, verdict, 200, "000000", "", 1, 0.1))
    await recorder.finish(asyncio.create_task(recorder.run()))
    assert await hands.db.fetchval("SELECT pause_code FROM dispatcher.app") == "unknown-results"
    assert not breaker.covers(batches[6].claimed_at)


async def test_a_lost_commit_that_cut_the_host_off_stops_its_claims(hands, database, tmp_path):
    """Another worker has its answers, so the circuit of the app stays closed."""
    for batch in await claimed(hands, 4):
        await hands.record(batch, Resolved([Accepted(m, None, 1) for m in batch.messages]))
    breaker = CircuitBreaker("default")
    batches = await claimed(hands, 3)
    recorder = recorder_of(hands, LosingDatabase(database.dsn, database.pool), tmp_path, breaker)
    for batch in batches:
        recorder.results.put(no_answer(batch))
    await recorder.finish(asyncio.create_task(recorder.run()))
    assert await hands.db.fetchval("SELECT pause_code FROM dispatcher.app") is None
    assert breaker.is_open


async def test_what_was_written_counts_though_the_next_call_fails(hands, database, tmp_path):
    batches = await claimed(hands, 2)
    assert await hands.record(batches[0], UnknownResult("timeout", "no answer"))
    failing = FailingDatabase(database.dsn, database.pool)
    away = DatabaseUnavailable("the connection broke")
    failing.failures = itertools.chain([None, away], itertools.repeat(None))
    recorder = recorder_of(hands, failing, tmp_path, CircuitBreaker("default"))
    recorder._in_doubt = {batches[0].id}
    for batch in batches:
        recorder.results.put(no_answer(batch))
    with capture_logs() as logs:
        await recorder.finish(asyncio.create_task(recorder.run()))
    sent = {line["batch"]: line["written"] for line in logs if line["event"] == "batch sent"}
    assert sent == {batches[0].token: False, batches[1].token: True}


def test_failed_claims_of_days_take_little_memory():
    numbers = itertools.count()
    flight = InFlight(lambda: str(next(numbers)))
    for _ in range(MAX_UNCONFIRMED + 5):
        flight.mark_unconfirmed(flight.new_token())
    assert not flight.tokens
    assert list(flight.unconfirmed) == [str(n) for n in range(5, MAX_UNCONFIRMED + 5)]
