"""A provider that no connection can be made to: nothing was sent, so nothing is unsure."""

import asyncio
import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.messages import finished, insert, states
from support.provider import app_at, seen
from support.waiting import until


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a host that answers no attempt to connect, as one behind a broken cable."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Nobody accepts: once its queue is full, the kernel drops whatever comes.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a port at which nobody listens, and that nobody else is given."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("times", [("1s", "5s"), ("5s", "1s")], ids=["request", "connect"])
@pytest.mark.slow
async def test_whichever_time_out_is_the_first_nothing_is_unsure(db, workers, silence, times):
    timeout, connect_timeout = times
    app = app_at(silence, timeout=timeout, connect_timeout=connect_timeout)
    await workers.start({"default": app})
    await insert(db, 10)
    pause = "SELECT pause_code FROM dispatcher.app WHERE paused_at IS NOT NULL"
    await until(lambda: db.fetchval(pause), deadline=40, what="the app is paused")
    assert await db.fetchval(pause) == "unreachable"
    assert await states(db) == {"queued": 10}
    assert await db.fetchval("SELECT sum(attempt) FROM dispatcher.queue") == 0


@pytest.mark.slow
async def test_a_host_that_cannot_send_stops_only_its_own_claims(db, workers, sim, nowhere):
    good = await workers.start({"default": app_at(sim.url)})
    await insert(db, 1)
    await seen(sim, lambda: sim.ledger.numbers == 1)
    # A heartbeat each 2 s: it is what marks the app.
    cut_off = await workers.start({"default": app_at(nowhere, timeout="1s")}, lease="11s")
    numbers = itertools.count(1)

    def stopped() -> bool:
        return any(e.get("event") == "no claims: this host cannot send" for e in cut_off.events())

    async def stopped_in_time() -> bool:
        await insert(db, 1, first=next(numbers))
        return stopped()

    await until(stopped_in_time, what="it notices")
    await asyncio.sleep(1.0)  # a claim that had begun before it noticed ends
    claimed = "SELECT count(*) FROM dispatcher.batch WHERE worker = 2 AND state = 'open'"
    await until(lambda: is_none(db, claimed), what="it gives back what it had")
    before = await db.fetchval("SELECT count(*) FROM dispatcher.batch WHERE worker = 2")
    for _ in range(20):
        await insert(db, 10, first=100 * next(numbers))
    await until(lambda: finished(db), what="the other sends all")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.batch WHERE worker = 2") == before
    assert await db.fetchval("SELECT paused_at IS NULL FROM dispatcher.app")
    marked = "SELECT id FROM dispatcher.worker WHERE unreachable_apps = '{default}'"
    await until(lambda: db.fetchval(marked), deadline=20, what="it marks the app as unreachable")
    assert await db.fetchval(marked) == 2
    assert (await states(db)).keys() == {"accepted"}
    assert good.code is cut_off.code is None


async def is_none(db, count: str) -> bool:
    return not await db.fetchval(count)
