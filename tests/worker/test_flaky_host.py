"""One host that loses answers harms neither other hosts nor other apps."""

import pytest
from support.exactness import read_books
from support.messages import insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.simulator.faults import Cut, Http

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
