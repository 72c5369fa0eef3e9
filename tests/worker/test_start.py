"""What a start says at once: a lack of connections, of a place to write, of an address."""

import asyncio
import socket

import pytest
from support.provider import app_at
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import connect
from dispatcher.db.dsn import read_address
from dispatcher.db.migrate import LOCK_KEY
from dispatcher.db.workers import ping
from dispatcher.postgres.cluster import ServerFiles


async def test_few_connections_and_an_unwritable_spool_are_told(  # noqa: PLR0917 - fixtures
    db, dsn, server_folder, workers, sim, tmp_path
):
    (tmp_path / "file").write_text("")
    await db.execute(
        "CREATE ROLE few_connections LOGIN PASSWORD 'x' IN ROLE dispatcher_worker"
        " CONNECTION LIMIT 8"
    )
    try:
        tcp = ServerFiles(server_folder).address.read_text().strip()
        host, port = read_address(tcp).hosts[0]
        few = f"postgresql://few_connections:x@{host}:{port}/{read_address(dsn).database}"
        worker = await workers.start(
            {"default": app_at(sim.url)}, dsn=few, lease="41s", data_dir=tmp_path / "file" / "data"
        )
        assert "may have 8 connections (CONNECTION LIMIT)" in worker.text()
        assert "is no directory" in worker.text()
        lines = await until(
            lambda: db.fetchval("SELECT failing_parts FROM dispatcher.worker"), what="status has it"
        )
        assert [line.partition(":")[0] for line in lines] == ["connections", "spool"]
        worker.kill()
    finally:
        await db.execute("DROP OWNED BY few_connections; DROP ROLE few_connections")


async def test_an_address_in_use_is_one_line(workers, sim):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = workers.launch({"default": app_at(sim.url)}, listen=f"127.0.0.1:{port}")
        assert await worker.ended() == 1
    [line] = [line for line in worker.text().splitlines() if not line.startswith("{")]
    assert f"cannot listen on 127.0.0.1:{port} (address already in use)" in line


async def test_a_start_behind_another_migration_stops_at_once(workers, sim, empty_dsn):
    connection = await connect(empty_dsn)
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
    worker = workers.launch({"default": app_at(sim.url)}, dsn=empty_dsn)
    await until(lambda: "waiting for another process" in worker.text())
    worker.terminate()
    assert await worker.ended(5) == 0
    await connection.close()


@pytest.mark.slow
async def test_commits_that_wait_for_a_standby_are_not_ready(db, database, dsn):
    await ping(database)
    await db.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    await db.execute("SELECT pg_reload_conf()")
    other = await connect(dsn)
    await other.execute("SET synchronous_commit = on")
    waiting = asyncio.create_task(other.execute("SELECT dispatcher.enqueue('13100000000', 't')"))
    try:
        assert "SyncRep" in await until(lambda: why_not(database), what="it is not ready")
    finally:
        await db.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await db.execute("SELECT pg_reload_conf()")
    await waiting
    await other.close()


async def why_not(database) -> str:
    """Return why the database is not ready; empty if it is."""
    try:
        await ping(database)
    except DatabaseUnavailable as error:
        return str(error)
    return ""
