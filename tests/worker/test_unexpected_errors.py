"""Errors that no list names: a worker waits for what passes, and else stops in good order."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from support.exactness import read_books
from support.messages import finished, insert, states
from support.provider import app_at, seen
from support.slow import slow_after
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable, first_error
from dispatcher.core.signing import AppKey
from dispatcher.db.database import connect, open_database
from dispatcher.db.dsn import read_address
from dispatcher.db.loop import StoppingTaskGroup
from dispatcher.postgres.cluster import ServerFiles
from dispatcher.provider.client import Account, Client
from dispatcher.service.http import serving
from dispatcher.simulator.faults import Delay

ROLE = "one_sender"


@pytest.fixture
async def role(db) -> AsyncIterator[str]:
    """The name of a role that may do what a worker does."""
    await db.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'first' IN ROLE dispatcher_worker")
    yield ROLE
    await db.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@pytest.fixture
def role_dsn(dsn, server_folder, role) -> str:
    """This test's database as *role* with its password, by TCP."""
    tcp = ServerFiles(server_folder).address.read_text().strip()
    host, port = read_address(tcp).hosts[0]
    return f"postgresql://{role}:first@{host}:{port}/{read_address(dsn).database}"


@pytest.fixture
async def elsewhere(server) -> AsyncIterator[asyncpg.Connection]:
    """A connection to another database of the same server."""
    connection = await connect(server)
    yield connection
    await connection.close()


DROP = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
EVENTS = {
    "28P01": (f"ALTER ROLE {ROLE} PASSWORD 'other'", f"ALTER ROLE {ROLE} PASSWORD 'first'"),
    "28000": (f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"),
    "42501": (f"REVOKE dispatcher_worker FROM {ROLE}", f"GRANT dispatcher_worker TO {ROLE}"),
    "55000": (
        "ALTER DATABASE {database} ALLOW_CONNECTIONS false",
        "ALTER DATABASE {database} ALLOW_CONNECTIONS true",
    ),
}
LINES = {
    "28P01": "refuses the password",
    "28000": "does not let",
    "42501": "denies user",
    "55000": "is not currently accepting connections",
}


@pytest.mark.parametrize("code", slow_after(1, EVENTS))
async def test_what_an_operator_changes_is_waited_out(  # noqa: PLR0917 - fixtures
    db, dsn, elsewhere, role_dsn, workers, sim, code
):
    event, end = (each.format(database=read_address(dsn).database) for each in EVENTS[code])
    await sim.faults.arm([Delay(seconds=25)])
    await insert(db, 2000)
    worker = await workers.start({"default": app_at(sim.url)}, dsn=role_dsn)
    await seen(sim, lambda: sim.ledger.numbers == 2000)
    await elsewhere.execute(event)
    await db.execute(DROP)
    await asyncio.sleep(1.0)  # the worker finds its connections broken
    await sim.faults.clear()
    try:
        await until(lambda: "answers wait" in worker.text(), what="answers wait")
        assert LINES[code] in worker.text()
        assert worker.code is None
    finally:
        await elsewhere.execute(end)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 2000}
    assert worker.code is None


@pytest.mark.slow
async def test_a_database_that_is_gone_for_a_while_is_waited_for(dsn, elsewhere, workers, sim):
    """As while it is restored in place: nobody may connect, and then it is not there."""
    name = read_address(dsn).database
    await sim.faults.arm([Delay(seconds=25)])
    own = await connect(dsn)
    await insert(own, 2000)
    await own.close()
    worker = await workers.start({"default": app_at(sim.url)})
    await seen(sim, lambda: sim.ledger.numbers == 2000)
    await elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await elsewhere.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
    )
    await elsewhere.execute(f"ALTER DATABASE {name} RENAME TO {name}_gone")
    await sim.faults.clear()
    try:
        await until(lambda: "answers wait" in worker.text(), what="answers wait")
        await until(lambda: f"has no database '{name}'" in worker.text(), what="it is missed")
    finally:
        await elsewhere.execute(f"ALTER DATABASE {name}_gone RENAME TO {name}")
        await elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    own = await connect(dsn)
    await until(lambda: finished(own))
    assert await states(own) == {"accepted": 2000}
    assert worker.code is None
    await own.close()


async def test_a_refused_record_keeps_the_answers_and_ends_with_a_line(db, workers, sim):
    await db.execute(
        "CREATE FUNCTION public.copy_outcome() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.gone VALUES (NEW.message_id); RETURN NEW; END';"
        "CREATE TRIGGER copy AFTER INSERT ON dispatcher.outcome FOR EACH ROW"
        " EXECUTE FUNCTION public.copy_outcome()"
    )
    await sim.faults.arm([Delay(seconds=0.5)])
    await insert(db, 2000)
    worker = workers.launch({"default": app_at(sim.url)})
    assert await worker.ended() == 1
    lines = worker.log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == [lines[-1]]
    assert lines[-1].startswith("dispatcher: ")
    assert "public.gone" in lines[-1]
    assert "answers kept on disk" in worker.text()
    sent = sim.ledger.numbers
    assert await states(db) in ({"sending": 2000}, {"queued": 2000 - sent, "sending": sent})
    await db.execute("DROP TRIGGER copy ON dispatcher.outcome")
    await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db))
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 2000}
    assert not books.problems()


async def test_a_refused_claim_lets_requests_end_first(db, workers, sim):
    await sim.faults.arm([Delay(seconds=1)])
    await insert(db, 500)
    worker = await workers.start({"default": app_at(sim.url)})
    await seen(sim, lambda: sim.ledger.numbers == 500)
    await db.execute("ALTER TABLE dispatcher.country_pause RENAME COLUMN until TO till")
    assert await worker.ended() == 1
    assert "run `dispatcher migrate`" in worker.text().splitlines()[-1]
    assert await states(db) == {"accepted": 500}


@pytest.mark.parametrize(
    ("change", "part"),
    slow_after(
        1,
        [
            (
                "ALTER FUNCTION dispatcher.prune RENAME TO old_prune",
                "maintenance (old rows deleted)",
            ),
            ("ALTER TABLE dispatcher.event_position RENAME TO old_position", "events"),
        ],
    ),
)
async def test_a_part_that_is_refused_ends_nothing_else(db, workers, sim, change, part):
    settings = {"retention": "1h", "lease": "12s"}  # a heartbeat each 2 s
    worker = await workers.start({"default": app_at(sim.url, timeout="2s")}, **settings)
    await db.execute(change)

    async def failing() -> list[str]:
        return await db.fetchval("SELECT failing_parts FROM dispatcher.worker")

    if part.startswith("maintenance"):  # its next round would be in a minute
        worker.kill()
        await db.execute("DELETE FROM dispatcher.worker")
        worker = await workers.start({"default": app_at(sim.url, timeout="2s")}, **settings)
    [line] = await until(failing, deadline=30, what="the heartbeat names the part")
    assert line.startswith(f"{part}: ")
    assert "dispatcher migrate" in line
    assert worker.code is None
    await insert(db, 3)
    await until(lambda: finished(db))
    assert sim.ledger.numbers == 3


@pytest.mark.slow
async def test_a_worker_whose_row_is_gone_ends_with_a_line(db, workers, sim):
    worker = await workers.start({"default": app_at(sim.url, timeout="2s")}, lease="12s")
    await db.execute("DELETE FROM dispatcher.worker")
    assert await worker.ended() == 1
    assert "is gone from dispatcher.worker" in worker.text().splitlines()[-1]


CODES = ("XX000", "3D000", "55000", "54000", "28000", "28P01", "0A000", "42P01")


@pytest.mark.parametrize("code", CODES)
async def test_any_refusal_to_connect_means_unavailable(code):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)
        if head[4:] == (80877103).to_bytes(4):  # it asks for TLS
            writer.write(b"N")
            head = await reader.readexactly(8)
        await reader.readexactly(int.from_bytes(head[:4]) - 8)
        fields = b"SFATAL\0VFATAL\0C" + code.encode() + b"\0Mno place\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dsn = f"postgresql://u:secret@127.0.0.1:{port}/d"
        async with open_database(dsn, max_size=1) as database:
            with pytest.raises(DatabaseUnavailable) as refused:
                async with database.acquire():
                    pass
    assert isinstance(refused.value.__cause__, asyncpg.PostgresError)
    assert str(port) in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_the_first_error_stops_the_others_without_a_cut():
    stop = asyncio.Event()
    ended = []

    async def fail() -> None:
        raise LookupError("first")

    async def work() -> None:
        await stop.wait()
        await asyncio.sleep(0)
        ended.append("work")

    async def group() -> None:
        async with StoppingTaskGroup(stop) as tasks:
            tasks.create_task(work())
            tasks.create_task(fail())
            await stop.wait()

    with pytest.raises(LookupError, match="first"):
        await group()
    assert ended == ["work"]


async def test_a_cancelled_group_cancels_its_tasks():
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def group() -> None:
        async with StoppingTaskGroup(asyncio.Event()) as tasks:
            tasks.create_task(work())

    running = asyncio.create_task(group())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled


def test_a_group_of_errors_becomes_the_first_of_them():
    inner = ExceptionGroup("inner", [KeyError("k"), ValueError("v")])
    assert isinstance(first_error(ExceptionGroup("outer", [inner])), KeyError)


async def test_a_password_is_read_again_from_its_file(db, role_dsn, workers, sim, tmp_path):
    file = tmp_path / "address"
    file.write_text(role_dsn + "\n")
    worker = await workers.start(
        {"default": app_at(sim.url)}, database_url="", database_url_file=str(file)
    )
    file.write_text(role_dsn.replace("first", "second"))
    await db.execute(f"ALTER ROLE {ROLE} PASSWORD 'second'")
    await db.execute(DROP)
    await insert(db, 3)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 3}
    assert "refuses the password" not in worker.text()
    status, text = await metrics(worker)
    assert status == 200
    assert "dispatcher_database_up 1.0" in text


async def test_metrics_answer_while_the_password_is_refused(db, role_dsn, workers, sim):
    worker = await workers.start({"default": app_at(sim.url)}, dsn=role_dsn)
    await db.execute(f"ALTER ROLE {ROLE} PASSWORD 'other'")
    status, text = await metrics(worker)
    assert status == 200
    assert "dispatcher_database_up 0.0" in text


@pytest.mark.parametrize("table", slow_after(1, ["message", "queue", "app", "batch", "outcome"]))
async def test_rows_that_a_policy_hides_lose_no_message(db, role_dsn, workers, sim, table):
    worker = await workers.start({"default": app_at(sim.url)}, dsn=role_dsn)
    await db.execute(f"ALTER TABLE dispatcher.{table} ENABLE ROW LEVEL SECURITY")
    await insert(db, 3)
    await until(lambda: "row-level security policy" in worker.text())
    assert table in worker.text()
    await db.execute(f"ALTER TABLE dispatcher.{table} DISABLE ROW LEVEL SECURITY")
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 3}
    assert worker.code is None


async def metrics(worker) -> tuple[int, str]:
    """Return status and text of the answer of /metrics."""
    [at] = [event for event in worker.events() if event["event"] == "listening"]
    url = f"http://{at['host']}:{at['port']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("zone", ["+9999", "+99999999999999999999", "-0001 x", ""])
async def test_an_absurd_date_of_the_provider_is_passed_over(zone):
    async def answer(_: web.Request) -> web.Response:
        head = {"Date": f"Mon, 01 Jan 2026 00:00:00 {zone}"}
        return web.json_response({"code": "E000510", "description": "x"}, headers=head)

    async with serving("127.0.0.1", 0, [web.post("/{path:.*}", answer)]) as (host, port):
        at = Account(f"http://{host}:{port}", AppKey("key", "secret"))
        async with Client(at, clock=lambda: datetime.now(UTC), nonce=lambda _: "n") as client:
            assert (await client.probe()).code == "E000510"


@pytest.mark.slow
@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_another_default_isolation_changes_nothing(db, dsn, workers, sim, level):
    name = read_address(dsn).database
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    apps = {"default": app_at(sim.url, numbers_per_second="none")}
    crew = [await workers.start(apps), await workers.start(apps)]
    for first in range(0, 6000, 2000):
        await insert(db, 2000, first=first)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 6000}
    assert max(sim.ledger.counts().values()) == 1
    for worker in crew:
        assert "40001" not in worker.log.read_text()  # no transaction failed to be serialized
