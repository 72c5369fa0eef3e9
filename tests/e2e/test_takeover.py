"""Workers that die or freeze: what they had on its way is known, and goes out at most once."""

import random
from time import monotonic, time

import aiohttp
import pytest
from support.exactness import read_books
from support.fast_forward import forget_heartbeat, let_pass
from support.messages import finished, idle, insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.simulator import Simulator
from dispatcher.simulator.faults import Delay, Http, StallAfterReading

SHORT_LEASE = {"lease": "13s"}  # the shortest that a time-out of three seconds allows
MESSAGES = 10_000


async def states_are(db, expected: dict[str, int]) -> bool:
    return await states(db) == expected


async def open_messages(db) -> int:
    """Messages whose requests are on their way, or answered and not written yet."""
    return await db.fetchval(
        "SELECT coalesce(sum(cardinality(message_ids)), 0)::int FROM dispatcher.batch"
        " WHERE state = 'open'"
    )


@pytest.mark.slow
async def test_a_killed_worker_costs_at_most_what_was_on_its_way(db, workers, sim, kills):
    dice = random.Random(kills)
    await sim.faults.arm([Delay(seconds=0.05)])
    apps = {"default": app_at(sim.url)}
    in_flight = []
    for kill in range(kills):
        await insert(db, MESSAGES, first=kill * MESSAGES)
        # Each on a disk of its own: a heartbeat that the database lacks would pause the app.
        worker = workers.launch(apps, data_dir=workers.folder / f"data-{kill}")
        goal = len(sim.journal) + dice.randint(1, 12)
        await seen(sim, lambda goal=goal: len(sim.journal) >= goal, deadline=60)
        worker.kill()
        await until(lambda: no_session(db), what="its last statement is over")
        in_flight.append(await open_messages(db))
        await forget_heartbeat(db, await db.fetchval("SELECT max(id) FROM dispatcher.worker"))
    await sim.faults.clear()
    await workers.start(apps, data_dir=workers.folder / "data-last")
    await until(lambda: finished(db), deadline=120)
    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()
    assert books.states.total() == kills * MESSAGES
    assert books.states.keys() <= {"accepted", "unsure"}
    assert 0 < books.states["unsure"] <= sum(in_flight)


async def no_session(db) -> bool:
    """Tell whether PostgreSQL has noticed that its client is gone; it ends a statement first."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'dispatcher' AND pid <> pg_backend_pid())"
    )


@pytest.mark.slow
async def test_a_worker_frozen_past_its_lease_sends_no_old_claim(db, workers, sim):
    """Frozen between two tries, it wakes up when others have sent what it was about to send."""
    apps = {"default": app_at(sim.url, timeout="3s", concurrency=12)}
    frozen = await workers.start(apps, **SHORT_LEASE)
    await sim.faults.arm([Http(status=429)])
    await db.execute(  # a request for each sender
        "INSERT INTO dispatcher.message (recipient, template_id, sender)"
        " SELECT '+86138' || lpad(n::text, 8, '0'), 't', 'csms' || n % 10"
        " FROM generate_series(0, 99) AS n"
    )
    await seen(sim, lambda: len(sim.journal) >= 12)
    frozen.freeze()
    await all_read(sim)
    await sim.faults.clear()
    claimed = await open_messages(db)
    assert claimed >= 10
    await workers.start(apps, **SHORT_LEASE)
    await until(lambda: unsure_of(db, claimed), deadline=60, what="its lease runs out")
    tokens = await db.fetch("SELECT token FROM dispatcher.batch WHERE state = 'unsure'")
    for (token,) in tokens:
        await db.execute("SELECT dispatcher.settle($1, 'resend')", token)
    await let_pass(db, 60)
    await until(lambda: states_are(db, {"accepted": 100}))

    before = len(frozen.events())
    thawed_at = time()
    frozen.thaw()
    await until(lambda: len(frozen.events()) >= before + len(tokens), what="it gives them up")
    # What it had written before may have been read late; afterwards it sends none of them.
    given_up = {token for (token,) in tokens}
    sent = [visit for visit in sim.journal if visit.at > thawed_at and visit.token in given_up]
    assert sent == []
    assert await states(db) == {"accepted": 100}
    # It is a good worker again, under the same id.
    workers.all[1].terminate()
    assert await workers.all[1].ended() == 0
    await insert(db, 10, first=1000)
    await until(lambda: states_are(db, {"accepted": 110}))
    assert frozen.code is None


async def all_read(sim: Simulator) -> None:
    """Wait until the provider has read what was written to it before: it reads in turn."""
    async with aiohttp.ClientSession() as session:
        for _ in range(3):  # a new connection each: to be taken, to be read, to be answered
            async with session.get(f"{sim.url}/_accepted", headers={"Connection": "close"}) as one:
                await one.read()


async def unsure_of(db, count: int) -> bool:
    return (await states(db)).get("unsure") == count


@pytest.mark.slow
async def test_late_answers_of_a_dead_worker_settle_its_batches(db, workers, sim):
    apps = {"default": app_at(sim.url, timeout="40s")}
    frozen = await workers.start(apps)
    await sim.faults.arm([Delay(seconds=60)])
    await insert(db, 3000)
    await seen(sim, lambda: sim.ledger.numbers == 3000)
    frozen.freeze()
    await forget_heartbeat(db, 1)
    other = await workers.start(apps)  # the first thing it does is to look for the dead
    await until(lambda: states_are(db, {"unsure": 3000}))
    await sim.faults.clear()  # the answers leave
    await until(lambda: all(visit.seconds is not None for visit in sim.journal))
    frozen.thaw()
    await until(lambda: states_are(db, {"accepted": 3000}))
    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()
    assert sim.ledger.numbers == 3000
    settled = await db.fetch("SELECT DISTINCT settled_by FROM dispatcher.batch")
    assert [row["settled_by"] for row in settled] == ["late answer"]
    assert other.code is None


@pytest.mark.slow
async def test_a_stop_past_its_timeout_leaves_requests_unsure(db, workers, sim):
    await sim.faults.arm([StallAfterReading(accept=True)])
    await insert(db, 1000)
    worker = await workers.start({"default": app_at(sim.url, timeout="50s")}, shutdown_timeout="1s")
    await seen(sim, lambda: sim.ledger.numbers == 1000)
    began = monotonic()
    worker.terminate()
    assert await worker.ended() == 0
    assert monotonic() - began < 40  # of a time-out of 50 s
    assert await states(db) == {"unsure": 1000}
    codes = await db.fetch("SELECT DISTINCT state, code FROM dispatcher.batch")
    assert [tuple(row) for row in codes] == [("unsure", "stopped")]
    assert await idle(db)


@pytest.mark.slow
async def test_two_workers_do_not_take_each_other_for_dead(db, workers, sim):
    """Slow requests and many of them, for longer than a lease."""
    apps = {"default": app_at(sim.url, timeout="3s", concurrency=2)}
    await sim.faults.arm([Delay(seconds=0.5)])
    await workers.start(apps, **SHORT_LEASE)
    await workers.start(apps, **SHORT_LEASE)
    began = monotonic()
    first = 0
    while monotonic() - began < 15:
        await insert(db, 200, first=first)
        first += 200
        await until(lambda: finished(db), every=0.2)
    books = await read_books(db, sim.ledger.rows())
    # Unsure: a time-out, on a machine that stood still for as long.
    assert books.states.keys() <= {"accepted", "unsure"}
    assert books.states.total() == first
    assert not books.problems()
    taken_for_dead = "SELECT count(*) FROM dispatcher.event WHERE code = 'worker-lost'"
    assert await db.fetchval(taken_for_dead) == 0
