"""Several hosts on one database: some are cut off, each in its own way, and one dies."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from hosts import skip_without_namespaces
from scene import Scene, Site, scene
from support.messages import finished, insert
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import open_database
from dispatcher.db.queries import sql

SHORT = 14.0  # seconds of a cut: longer than the shortest lease
QUICK_APP = {"timeout": "1s", "numbers_per_second": "2000"}
QUICK = {"lease": "11s"}  # the shortest that goes with that time-out
USUAL_APP = {"numbers_per_second": "2000"}
RATE = 400.0  # messages a second
SLOTS = 8  # requests that a worker has on its way, at most


@pytest.fixture
async def world(programs, tmp_path):
    skip_without_namespaces()
    async with scene(tmp_path, programs) as made:
        yield made


def unplugged(world: Scene, site: Site) -> Callable[[], None]:
    world.network.unplug(site.host)
    return lambda: world.network.plug(site.host)


def without(world: Scene, site: Site, *others) -> Callable[[], None]:
    """Lose what *site* and *others* send each other; return what mends that."""
    for other in others:
        world.network.lose(site.host, other)

    def mend() -> None:
        for other in others:
            world.network.carry(site.host, other)

    return mend


@pytest.mark.timeout(400)
async def test_hosts_cut_off_and_a_host_lost_cost_no_message_and_double_none(world, cut):
    app, settings = (QUICK_APP, QUICK) if cut is None else (USUAL_APP, {})
    database, provider = world.place.database, world.place.provider
    names = ("steady", "unplugged", "silent", "no-database", "no-provider", "killed")
    sites = await asyncio.gather(*(world.add(name, app, **settings) for name in names))
    steady, pulled, silent, no_database, no_provider, killed = sites
    returning = [pulled, silent, no_database, no_provider]
    async with world.loaded(RATE):
        await until(lambda: all_work(world, sites, {}), what="all of them send")

        mends = [
            unplugged(world, pulled),
            without(world, silent, database, provider),
            without(world, no_database, database),
            without(world, no_provider, provider),
        ]
        world.network.unplug(killed.host)
        killed.worker.kill()
        await asyncio.sleep(cut or SHORT)

        for site in (pulled, silent, no_database):
            status, why = await site.ready()
            assert status == 503
            assert "No PostgreSQL answers" in why
            await until(lambda site=site: site.says("no claim: the database is away"))
        # Its results wait for the lock that the lost host holds.
        await until(
            lambda: no_provider.says("no claims: this host cannot send"),
            deadline=60,
            what="it stops claiming",
        )
        before = await world.batches(*returning)
        await until(lambda: all_work(world, [steady], {}), what="the others go on")
        assert await world.batches(*returning) == before, "a host that is cut off claims nothing"
        assert await world.db.fetchval("SELECT bool_and(paused_at IS NULL) FROM dispatcher.app")

        for mend in mends:
            mend()
        await until(
            lambda: all_work(world, returning, before), deadline=60, what="all of them send again"
        )
        for site in returning:
            assert await site.ready() == (200, "ready\n")
    await until(lambda: finished(world.db), deadline=90, what="everything has its end")

    books = await world.books()
    assert books.states.total() == world.inserted
    assert books.states.keys() <= {"accepted", "unsure"}
    assert not books.problems()
    assert books.accepted_twice == 0
    lost = await world.db.fetch(
        "SELECT worker, code, count(*) FROM dispatcher.batch WHERE state = 'unsure'"
        " GROUP BY worker, code"
    )
    for worker, code, count in lost:  # at most what was on its way at that moment
        # A request has a second: that a busy machine stands still so long is no fault of a host.
        assert code == "timeout" or worker not in (steady.id, no_database.id)
        assert count <= SLOTS


async def all_work(world: Scene, sites: list[Site], before: dict[int, int]) -> bool:
    """Tell whether each of *sites* has made a batch since *before*."""
    made = await world.batches(*sites)
    return all(made[site.id] > before.get(site.id, 0) for site in sites)


async def test_a_host_that_vanishes_in_the_middle_of_a_claim_does_not_stop_the_others(world):
    """It holds its app's pace, which is one row: nobody else can claim for it."""
    await world.add("steady", QUICK_APP, **QUICK)
    vanishing = world.network.host("vanishing")
    holding, never = threading.Event(), threading.Event()

    async def hold() -> None:
        with suppress(DatabaseUnavailable):  # at the end its connection may be gone
            async with (
                open_database(world.place.dsn, max_size=1) as database,
                database.transaction(seconds=60) as connection,
            ):
                await connection.fetchrow(sql("lock_pace"), "default")
                holding.set()
                await asyncio.to_thread(never.wait)

    with vanishing.inside():  # a thread is born where its parent is
        thread = threading.Thread(target=lambda: asyncio.run(hold()), daemon=True)
        thread.start()
    await until(holding.is_set, what="it holds the pace")
    world.network.unplug(vanishing)
    await insert(world.db, 10)
    await until(lambda: finished(world.db), deadline=40, what="another worker sends")
    world.network.plug(vanishing)  # else the end of its transaction waits for an answer
    never.set()
    await asyncio.to_thread(thread.join, 15)
