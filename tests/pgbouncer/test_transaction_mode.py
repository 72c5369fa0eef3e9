"""The main job through a real PgBouncer in transaction mode, as Debian ships it."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from world.books import read_books
from world.loopback import free_port, loopback_server
from world.messages import finished, insert
from world.provider import app_at
from world.waiting import until

from dispatcher.db.migrate import migrate

CONFIG = """
[databases]
* = host={host} port={port} user={user}
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


@asynccontextmanager
async def pgbouncer(dsn: str, folder: Path) -> AsyncIterator[str]:
    """Run PgBouncer before the database of *dsn*; give the address through it."""
    parts = urlsplit(dsn)
    listen = free_port()
    config = folder / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            listen=listen,
            folder=folder,
        )
    )
    user = []
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        shutil.chown(folder, "nobody")
        user = ["-u", "nobody"]
    with (folder / "stderr").open("wb") as said:
        process = subprocess.Popen(["pgbouncer", "-q", *user, str(config)], stderr=said)  # noqa: ASYNC220 - it is started once, and starting does not wait
    through = f"postgresql://{parts.username}@127.0.0.1:{listen}{parts.path}"

    async def answers() -> bool:
        assert process.poll() is None, (folder / "stderr").read_text()
        try:
            connection = await asyncpg.connect(through, statement_cache_size=0)
        except OSError:
            return False
        await connection.close()
        return True

    try:
        await until(answers, what="PgBouncer answers")
        yield through
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def dsn(programs) -> Iterator[str]:
    """A migrated database on TCP: PgBouncer's user may not come by the socket of ours."""
    with loopback_server(programs) as address:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(migrate(address))
        yield address


@pytest.fixture
async def through(dsn) -> AsyncIterator[str]:
    """The address of this test's database through a PgBouncer."""
    if shutil.which("pgbouncer") is None:
        assert "CI" not in os.environ, ".ci/run installs pgbouncer"
        pytest.skip("pgbouncer is missing: apt install pgbouncer")
    # Not in pytest's folder, where its user may not go.
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        async with pgbouncer(dsn, Path(folder)) as address:
            yield address


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
        said = [line for line in worker.events() if line.get("level") in ("warning", "error")]
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
        " AND query LIKE 'LISTEN%'"
    )
    await until(lambda: db.fetchval(listening), what="it listens")
    await insert(db, 1, priority=0)
    await until(lambda: finished(db), deadline=10, what="the urgent one is sent")
    past.terminate()
    assert await past.ended() == 0

    await workers.start({"default": app_at(sim.url)}, dsn=through, statement_cache=0)
    await insert(db, 1, priority=0, first=10)
    await until(lambda: finished(db), deadline=10, what="polling finds the next one")


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
    await workers.start(apps, **more)
    await until(lambda: finished(db), deadline=60, what="the rest has its end")
    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()
    assert books.accepted_twice == 0
    assert set(books.states) <= {"accepted", "unsure"}
