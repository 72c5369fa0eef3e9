"""What a start says at once: a lack of connections, of a place to write, of an address."""

import asyncio
import socket

import aiohttp
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
    assert await worker.ended() == 0
    await connection.close()


@pytest.mark.slow
async def test_commits_that_wait_for_a_standby_are_not_ready(db, database, dsn):
    await ping(database)
    await db.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    await db.execute("SELECT pg_reload_conf()")
    other = await connect(dsn)
    await other.execute("SET synchronous_commit = on")
    write = "SELECT dispatcher.enqueue('13100000000', 't')"
    waiting = asyncio.create_task(other.execute(write))

    async def refused() -> str:
        nonlocal waiting
        if waiting.done():  # committed before all of the server knew the setting
            waiting = asyncio.create_task(other.execute(write))
        return await why_not(database)

    try:
        assert "SyncRep" in await until(refused, what="it is not ready")
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


async def test_a_resend_before_reports_end_is_a_warning(workers, sim):
    resend = {"on_unsure": "resend"}
    reports = {"callback_url": "https://example.com/reports/t", "report_path_token": "t" * 16}
    worker = await workers.start(
        {
            "soon": app_at(sim.url, resend_after="71h", **resend),
            "patient": app_at(sim.url, resend_after="72h", **resend),
        },
        **reports,
    )
    told = [each for each in worker.events() if "messages may be sent twice" in each["event"]]
    assert [(each["app"], each["setting"]) for each in told] == [
        ("soon", "DISPATCHER_APPS__SOON__RESEND_AFTER")
    ]


async def test_readyz_names_a_paused_app_and_since_when(db, workers, sim):
    worker = await workers.start({"default": app_at(sim.url)})
    await db.execute(
        "UPDATE dispatcher.app SET paused_at = '2026-11-01 12:34Z', paused_by = 'worker',"
        " pause_code = 'unknown-results'"
    )
    [at] = [event for event in worker.events() if event["event"] == "listening"]
    url = f"http://{at['host']}:{at['port']}/readyz"

    async def answer() -> str:
        async with aiohttp.ClientSession() as session, session.get(url) as answered:
            return f"{answered.status} {await answered.text()}"

    said = await until(lambda: noted(answer), what="it names the pause")
    assert said == ("200 ready\ndefault is paused since 2026-11-01 12:34 UTC: unknown-results\n")


async def noted(answer) -> str:
    """Return what /readyz says, if it says that an app is paused."""
    said = await answer()
    return said if "paused" in said else ""


@pytest.mark.parametrize(
    ("part", "console", "reports"), [("worker", 401, 404), ("reports", 404, 200)]
)
async def test_a_part_serves_what_is_its_own(workers, sim, part, console, reports):
    """A worker has the console, a receiver takes reports, and neither does the other's."""
    token = "t" * 16
    made = workers.launch(
        {"default": app_at(sim.url)},
        arguments=("--only", part),
        console_token="c" * 16,
        report_path_token=token,
    )

    def listens() -> dict | None:
        return next((e for e in made.events() if e.get("event") == "listening"), None)

    at = await until(listens, deadline=30, what="it listens")
    url = f"http://{at['host']}:{at['port']}"
    async with aiohttp.ClientSession() as client:
        async with client.get(f"{url}/console", allow_redirects=False) as answer:
            assert answer.status == console
        async with client.post(f"{url}/reports/{token}", data="smsMsgId=p1") as answer:
            assert answer.status == reports
