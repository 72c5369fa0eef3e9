"""One host that loses answers harms neither other hosts nor other apps."""

import asyncio
from time import monotonic

import pytest
from support.exactness import read_books
from support.messages import insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.core.message import Reply
from dispatcher.core.outcome import Accepted, Resolved, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.simulator.faults import Cut, Http
from dispatcher.telemetry import Metrics
from dispatcher.worker import circuit_breaker
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.recorder import Recorder

FEW = 300  # messages: what a worker has on its way


async def never_paused(db) -> bool:
    return not await db.fetchval("SELECT count(*) FROM dispatcher.app WHERE paused_at IS NOT NULL")


async def sent(db, count: int) -> bool:
    done = await states(db)
    return sum(done.get(state, 0) for state in ("accepted", "unsure")) >= count


@pytest.mark.parametrize("fault", [Http(status=502), Cut(accept=False)], ids=["502", "cut"])
@pytest.mark.slow
async def test_a_host_that_loses_answers_is_cut_off_alone(db, workers, provide, fault):
    """Each host has a provider of its own, and so a way of its own to it."""
    good, bad = await provide(), await provide(faults=[fault])
    await workers.start({"default": app_at(good.url, numbers_per_second=500)})
    await insert(db, 1000)
    await seen(good, lambda: good.ledger.numbers >= 100)
    flaky = await workers.start({"default": app_at(bad.url, numbers_per_second=500)})
    await insert(db, 2000, first=1000)
    await until(lambda: "this host cannot send" in flaky.text(), what="it cuts itself off")
    await until(
        lambda: db.fetchval(
            "SELECT 'default' = ANY (unreachable_apps) FROM dispatcher.worker"
            " ORDER BY id DESC LIMIT 1"
        )
    )
    await until(lambda: sent(db, 3000), deadline=60)
    assert await never_paused(db)
    unsure = (await states(db))["unsure"]
    assert 0 < unsure <= FEW

    # Its provider answers again: one message goes first, then as many as before.
    probes = len(bad.journal)
    await bad.faults.clear()
    await seen(bad, lambda: len(bad.journal) > probes)
    before = len(bad.journal)
    await insert(db, 3000, first=10_000)
    await seen(bad, lambda: bad.ledger.numbers > 100)
    assert next(visit.numbers for visit in bad.journal[before:] if visit.numbers) == 1
    await until(lambda: sent(db, 6000), deadline=60)
    assert (await states(db))["unsure"] == unsure
    rows = [*good.ledger.rows(), *bad.ledger.rows()]
    assert not (await read_books(db, rows)).problems()


@pytest.fixture
def try_again(monkeypatch):
    """Opens a breaker for lost answers, and waits until it is on trial."""
    monkeypatch.setattr(circuit_breaker, "FIRST_PROBE_SECONDS", 0.0)

    class Answering:
        async def probe(self) -> Reply:
            return Reply(200, "E000000", "no message")

    async def lose_answers(breaker: CircuitBreaker) -> None:
        breaker.open("lost", loses_answers=True)
        probing = asyncio.create_task(breaker.run(Answering()))
        await until(lambda: breaker.is_on_trial, what="the trial begins")
        probing.cancel()

    return lose_answers


@pytest.mark.parametrize("answered", [True, False])
async def test_a_trial_ends_with_a_result_written_before(hands, tmp_path, try_again, answered):
    """The record was committed and the reply of the database was lost, or another wrote it."""
    breaker = CircuitBreaker("default")
    await try_again(breaker)
    await hands.begin()
    await hands.insert(1)
    assert breaker.may_claim()
    [batch] = await hands.claim()
    breaker.claimed(1, batch.claimed_at)
    assert not breaker.may_claim()
    verdict = UnknownResult("timeout", "no answer")
    if answered:
        verdict = Resolved([Accepted(m, "p", 1) for m in batch.messages])
    assert await hands.record(batch, verdict)
    recorder = Recorder(
        hands.database,
        worker=hands.id,
        in_flight=hands.flight,
        folder=tmp_path,
        metrics=Metrics(),
        breakers={"default": breaker},
        limits={},
    )
    recorder.results.put(
        BatchResult(batch, verdict, http_status=200, code="", description="", tries=1, seconds=0.1)
    )
    recorder.results.close()
    await recorder.run()
    assert (breaker.is_open, breaker.may_claim()) == (not answered, answered)


async def test_a_claim_begun_before_a_trial_is_no_part_of_it(try_again):
    breaker = CircuitBreaker("default")
    begun = monotonic()
    assert breaker.may_claim()
    await try_again(breaker)
    breaker.claimed(3, begun)
    assert breaker.may_claim()
    breaker.claimed(0, begun)
    assert not breaker.may_claim()
