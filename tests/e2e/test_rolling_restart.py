"""Workers that are replaced one after the other while messages come: nobody notices."""

import asyncio

import pytest
from support.exactness import read_books
from support.messages import finished, insert
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.db.database import connect
from dispatcher.simulator.faults import Delay

ROUNDS = 2
STEP = 50  # messages at once
RATE = 1000  # messages a second


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_a_rolling_restart_loses_doubles_and_doubts_nothing(db, dsn, workers, sim):
    await sim.faults.arm([Delay(seconds=0.2)])  # so that there is always something on its way
    apps = {"default": app_at(sim.url)}
    crew = [await workers.start(apps) for _ in range(2)]
    over = asyncio.Event()

    async def load() -> int:
        own = await connect(dsn)
        made = 0
        while not over.is_set():
            await insert(own, STEP, first=made)
            made += STEP
            await asyncio.sleep(STEP / RATE)
        await own.close()
        return made

    loading = asyncio.create_task(load())
    for _ in range(ROUNDS):
        for place, old in enumerate(crew):
            before = sim.ledger.numbers
            await seen(sim, lambda before=before: sim.ledger.numbers > before + 100)
            old.terminate()
            assert await old.ended() == 0
            crew[place] = await workers.start(apps)
    over.set()
    inserted = await loading
    await until(lambda: finished(db), deadline=60, what="everything has its end")

    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": inserted}
    assert not books.problems()
    assert books.accepted_twice == 0
    assert {row["attempts"] for row in books.messages} == {1}
    stopped = await db.fetchval("SELECT count(stopped_at) FROM dispatcher.worker")
    assert stopped == 2 * ROUNDS, "each signed off"
    for worker in workers.all:
        said = [
            line
            for line in worker.events()
            if line.get("level") in ("warning", "error")
            # A machine that stands still for as long as a transaction may take makes it say so.
            and not line["event"].endswith("the database is away")
        ]
        assert said == []
