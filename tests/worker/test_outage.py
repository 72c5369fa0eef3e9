"""A provider that is unreachable for an hour, in seconds (see `support.fast_forward`)."""

import asyncio
from pathlib import Path
from time import monotonic

import pytest
from support.exactness import read_books
from support.fast_forward import let_pass
from support.messages import finished, idle, insert
from support.provider import app_at
from support.waiting import until

from dispatcher.simulator.faults import Http, Refuse

HOUR = 3600.0
STEP = 30.0  # seconds that pass at once
WAITING = 10_000


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


@pytest.mark.parametrize("fault", [Http(status=429, html=True), Refuse()], ids=["429", "refused"])
@pytest.mark.slow
async def test_an_hour_without_the_provider_loses_nothing(db, workers, sim, fault):
    worker = await workers.start({"default": app_at(sim.url)})
    began = monotonic()
    await insert(db, WAITING, first=50_000)
    await until(lambda: finished(db), deadline=60)
    usual = monotonic() - began
    small = memory(worker.pid)
    before = len(sim.journal)

    await sim.faults.arm([fault])
    await insert(db, WAITING)
    await until(lambda: db.fetchval("SELECT paused_at IS NOT NULL FROM dispatcher.app"))
    for _ in range(round(HOUR / STEP)):
        await let_pass(db, STEP)
        await asyncio.sleep(0.02)  # a probe fails at once; the worker polls every 50 ms
    await until(lambda: idle(db))
    probes = await db.fetchval("SELECT count(*) - $1 FROM dispatcher.batch", before)
    # First the four slots of a claim, then 5, 10, 20, 40, 60, 60 ... s: at most 64 in the hour.
    assert 3 <= probes <= 8 + 64
    assert len(sim.journal) - before <= 4 * probes
    waiting = await db.fetchrow(
        "SELECT count(*), sum(attempts) FROM dispatcher.message_status WHERE state = 'queued'"
    )
    assert tuple(waiting) == (WAITING, 0)
    assert memory(worker.pid) - small < 20 * 2**20

    await sim.faults.clear()
    began = monotonic()
    await until(lambda: passed(db), every=0.05, deadline=60, what="everything goes out")
    assert monotonic() - began < 3 * usual + 20
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 2 * WAITING}
    assert not books.problems()
    assert {row["attempts"] for row in books.messages} == {1}


async def passed(db) -> bool:
    """Let a minute pass, and tell whether all is done: at the latest the next probe succeeds."""
    await let_pass(db, 60.0)
    return await finished(db)
