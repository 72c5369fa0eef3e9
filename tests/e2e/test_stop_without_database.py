"""A stop that cannot wait for the database: its answers are written by the next start."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.exactness import read_books
from support.messages import finished, insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.simulator.faults import Delay


@contextmanager
def frozen(backends: list[int]) -> Iterator[None]:
    """Freeze these, and the one that would make new ones."""
    stat = Path(f"/proc/{backends[0]}/stat").read_text(encoding="ascii")
    postmaster = int(stat.rpartition(")")[2].split()[1])
    os.kill(postmaster, signal.SIGSTOP)  # first: it reaps no child any more
    read = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii")
    children = [pid for pid in backends if str(pid) in read.split()]
    try:
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in (*children, postmaster):
            os.kill(pid, signal.SIGCONT)


async def backends_of_others(db) -> list[int]:
    rows = await db.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return [row["pid"] for row in rows]


@pytest.mark.slow
async def test_answers_outlive_a_stop_while_the_database_is_frozen(db, workers, sim):
    await sim.faults.arm([Delay(seconds=30)])
    await insert(db, 2000)
    apps = {"default": app_at(sim.url, timeout="20s")}
    worker = await workers.start(apps, shutdown_timeout="1s")
    await seen(sim, lambda: sim.ledger.numbers == 2000)
    with frozen(await backends_of_others(db)):
        await sim.faults.clear()  # only now the answers leave
        await seen(sim, lambda: all(record.seconds is not None for record in sim.journal))
        worker.terminate()
        assert await worker.ended(60) in {0, 1}
    assert await states(db) == {"sending": 2000}
    assert "answers kept on disk" in worker.text()

    async with db.transaction():  # a start that cannot write them is stopped as well
        await db.execute("SELECT FROM dispatcher.batch FOR UPDATE")
        worker = workers.launch(apps)
        await until(lambda: "answers wait" in worker.text(), what="it cannot write them")
        worker.terminate()
        assert await worker.ended(60) == 0
    await workers.start(apps)
    await until(lambda: finished(db))
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 2000}
    assert not books.problems()
    assert sim.ledger.numbers == 2000


@pytest.mark.slow
async def test_a_stop_waits_for_no_room_for_answers(db, workers, sim):
    """More answers wait than are taken at once: claims wait for them, and a stop must not."""
    await sim.faults.arm([Delay(seconds=30)])
    await insert(db, 1)
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " SELECT recipient, template_id, params FROM dispatcher.message"
        " CROSS JOIN generate_series(1, 159)"
    )
    app = app_at(sim.url, timeout="25s", concurrency=200, numbers_per_second="none")
    worker = await workers.start({"default": app}, shutdown_timeout="50s")
    await seen(sim, lambda: sim.ledger.numbers == 160, deadline=60)
    with frozen(await backends_of_others(db)):
        await sim.faults.clear()
        await until(lambda: "answers wait" in worker.text(), deadline=40, what="claims wait")
        worker.terminate()
        kept = "answers kept on disk"
        await until(lambda: kept in worker.text(), deadline=35, what="it keeps its answers")
    assert await worker.ended(35) in {0, 1}  # with the database: without it, see above
    await workers.start({"default": app})
    await until(lambda: finished(db), deadline=60)
    assert await states(db) == {"accepted": 160}
