"""The main job through a real PgBouncer in transaction mode, as Debian ships it."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from operator import gt
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from support.exactness import read_books
from support.messages import finished, insert
from support.provider import app_at, seen
from support.waiting import until
from support.worker import WorkerProcess

from dispatcher.bench.ports import free_port
from dispatcher.db.database import connect
from dispatcher.db.dsn import read_address
from dispatcher.postgres.cluster import ServerFiles
from dispatcher.simulator.faults import Delay

CONFIG = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 100
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


class Bouncer:
    """A PgBouncer before a database; it can be killed and started again."""

    def __init__(self, database: str, server: str, folder: Path) -> None:
        """Write its configuration. *server*: an address on TCP, with a password."""
        parts = urlsplit(server)
        listen = free_port()
        self.dsn = f"postgresql://{parts.username}@127.0.0.1:{listen}/{database}"
        self._folder = folder
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            CONFIG.format(
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                password=parts.password,
                listen=listen,
                folder=folder,
            )
        )
        self._user: list[str] = []
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            shutil.chown(folder, "nobody")
            self._user = ["-u", "nobody"]

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "stderr").open("wb") as said:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - starting does not wait
                ["pgbouncer", "-q", *self._user, str(self._config)], stderr=said
            )
        await until(self._answers, what="PgBouncer answers")

    def kill(self) -> None:
        """End it at once, in the middle of anything."""
        self._process.kill()
        self._process.wait()
        (self._folder / "pgbouncer.pid").unlink(missing_ok=True)  # it could not do that itself

    async def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "stderr").read_text()
        try:
            connection = await asyncpg.connect(self.dsn, statement_cache_size=0)
        except OSError:
            return False
        await connection.close()
        return True


@pytest.fixture
async def bouncer(dsn, server_folder) -> AsyncIterator[Bouncer]:
    """A PgBouncer before this test's database, which its user may reach by TCP alone."""
    if shutil.which("pgbouncer") is None:
        assert "CI" not in os.environ, ".ci/run installs pgbouncer"
        pytest.skip("pgbouncer is missing: apt install pgbouncer")
    # Not in pytest's folder, where its user may not go.
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        tcp = ServerFiles(server_folder).address.read_text().strip()
        made = Bouncer(read_address(dsn).database, tcp, Path(folder))
        await made.start()
        yield made
        made.kill()


@pytest.fixture
def through(bouncer) -> str:
    """The address of this test's database through a PgBouncer."""
    return bouncer.dsn


async def test_two_workers_do_the_main_job_through_it(db, dsn, workers, sim, through):
    for _ in range(2):
        await workers.start(
            {"default": app_at(sim.url)},
            dsn=through,
            database_direct_url=dsn,
            statement_cache=0,
        )
    await insert(db, 5000)
    await until(lambda: finished(db), deadline=60, what="everything has its end")
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 5000}
    assert not books.problems()
    for worker in workers.all:
        said = [
            line
            for line in worker.events()
            if line.get("level") in ("warning", "error")
            # A machine that stands still for as long as a transaction may take makes it say so.
            and not line["event"].endswith("the database is away")
        ]
        assert said == []


async def test_urgent_messages_are_heard_of_past_it_and_found_without(
    db, dsn, workers, sim, through
):
    long = "30s"  # polling would be too late for the test
    past = await workers.start(
        {"default": app_at(sim.url)},
        dsn=through,
        database_direct_url=dsn,
        statement_cache=0,
        poll_interval=long,
    )
    listening = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'LISTEN%' AND state = 'idle'"
        " AND state_change < clock_timestamp() - interval '0.3 s'"
    )
    await until(lambda: db.fetchval(listening), what="it listens")
    await insert(db, 1, priority=0)
    await until(lambda: finished(db), deadline=25, what="the urgent one is sent")
    past.terminate()
    assert await past.ended() == 0

    await workers.start({"default": app_at(sim.url)}, dsn=through, statement_cache=0)
    await insert(db, 1, priority=0, first=10)
    await until(lambda: finished(db), deadline=25, what="polling finds the next one")


async def test_a_worker_that_is_killed_behind_it_leaves_nothing_to_be_sent_twice(
    db, dsn, workers, sim, through
):
    apps = {"default": app_at(sim.url, concurrency=2)}
    more = {"dsn": through, "database_direct_url": dsn, "statement_cache": 0}
    first = await workers.start(apps, **more)
    await insert(db, 4000)
    await until(lambda: db.fetchval("SELECT count(*) FROM dispatcher.outcome"), what="it sends")
    first.kill()
    await db.execute("UPDATE dispatcher.worker SET heartbeat_at = heartbeat_at - 2 * lease")
    await workers.start(apps, data_dir=workers.folder / "other", **more)
    await until(lambda: finished(db), deadline=60, what="the rest has its end")
    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()
    assert books.accepted_twice == 0
    assert set(books.states) <= {"accepted", "unsure"}


async def test_a_pgbouncer_that_is_killed_under_load_costs_nothing_and_doubles_nothing(
    db, dsn, workers, sim, bouncer
):
    """One worker listens past it, the other only polls, through it."""
    await sim.faults.arm([Delay(seconds=0.1)])  # so that there is always something on its way
    apps = {"default": app_at(sim.url)}
    ways = {"past": {"database_direct_url": dsn}, "through": {}}
    crew = [
        await workers.start(
            apps, dsn=bouncer.dsn, statement_cache=0, data_dir=workers.folder / name, **way
        )
        for name, way in ways.items()
    ]
    over = asyncio.Event()

    async def load() -> int:
        own = await connect(dsn)
        made = 0
        while not over.is_set():
            await insert(own, 20, first=made)
            made += 20
            await asyncio.sleep(0.05)
        await own.close()
        return made

    def count(worker: WorkerProcess) -> int:
        said = "no claim: the database is away"
        return sum(event.get("event") == said for event in worker.events())

    loading = asyncio.create_task(load())
    for _ in range(2):
        before = sim.ledger.numbers
        await seen(sim, lambda before=before: sim.ledger.numbers > before + 200)
        bouncer.kill()
        noticed = [count(worker) for worker in crew]
        await until(
            lambda noticed=noticed: all(map(gt, map(count, crew), noticed)), what="both notice"
        )
        await bouncer.start()
    before = sim.ledger.numbers
    await seen(sim, lambda: sim.ledger.numbers > before + 200)
    over.set()
    inserted = await loading
    await until(lambda: finished(db), deadline=60, what="everything has its end")

    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": inserted}
    assert not books.problems()
    assert books.accepted_twice == 0


@pytest.mark.parametrize(("cache", "fails"), [(100, True), (0, False)])
async def test_check_names_the_setting_that_an_old_pgbouncer_needs(
    command, dsn, through, cache, fails
):
    settings = {"DATABASE_URL": through, "DATABASE_DIRECT_URL": dsn, "STATEMENT_CACHE": cache}
    ended = await command("check", **settings)
    assert ("DISPATCHER_STATEMENT_CACHE=0" in ended.out) == fails


async def test_a_worker_with_a_cache_behind_it_ends_with_a_line(db, dsn, workers, sim, through):
    worker = workers.launch({"default": app_at(sim.url)}, dsn=through, database_direct_url=dsn)
    await insert(db, 5000)
    assert await worker.ended() == 1
    assert "DISPATCHER_STATEMENT_CACHE=0" in worker.text().splitlines()[-1]
