"""Connections: the host that is well, the last good one first, and no tracebacks in between."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import Database, FailoverConnector, connect, create_pool
from dispatcher.db.errors import is_unavailable
from dispatcher.postgres.cluster import ServerFiles
from dispatcher.postgres.server import embedded_server


@pytest.fixture(scope="session")
def tcp(server, server_folder) -> str:
    """The address of the session's server by TCP."""
    assert server
    return ServerFiles(server_folder).address.read_text().strip()


PATIENT = 20.0  # seconds for a host that answers, on a busy machine


def with_hosts(dsn: str, *hosts: str) -> str:
    """Return *dsn* with other hosts, each ``host:port``."""
    parts = urlsplit(dsn)
    login, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}@{','.join(hosts)}"))


def host_of(dsn: str) -> str:
    """Return ``host:port`` of *dsn*."""
    return urlsplit(dsn).netloc.rpartition("@")[2]


@contextmanager
def refusing() -> Iterator[str]:
    """Give a host that refuses connections: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


class Frozen:
    """A host that takes connections and never says a word."""

    def __init__(self) -> None:
        self.visits = 0
        self.host = ""

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Frozen"]:
        """Listen for a while."""

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.visits += 1
            while await reader.read(1000):
                pass
            writer.close()

        async with await asyncio.start_server(hang, "127.0.0.1", 0) as listening:
            self.host = "{}:{}".format(*listening.sockets[0].getsockname())
            yield self


async def port_of(connection: asyncpg.Connection) -> int:
    return await connection.fetchval("SELECT inet_server_port()")


async def test_a_pool_names_itself_and_runs_on_init_for_each_connection(dsn):
    begun = []

    async def on_init(connection: asyncpg.Connection) -> None:
        begun.append(connection)

    pool = await create_pool(
        dsn, min_size=2, max_size=2, application_name="worker 7", on_init=on_init
    )
    assert await pool.fetchval("SHOW application_name") == "worker 7"
    assert len(begun) == 2
    await pool.close()


async def test_without_a_statement_cache_nothing_is_prepared_by_name(dsn):
    pool = await create_pool(dsn, statement_cache=0, max_size=1)
    await pool.fetchval("SELECT $1::int", 1)
    assert await pool.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
    await pool.close()


async def test_a_host_that_refuses_is_passed_over(tcp):
    with refusing() as gone:
        hosts = with_hosts(tcp, gone, host_of(tcp))
        connection = await FailoverConnector(hosts, host_timeout=PATIENT)()
        assert await port_of(connection) == urlsplit(tcp).port
        await connection.close()


async def test_a_frozen_host_is_passed_over_and_the_good_one_is_first_from_then_on(tcp):
    async with Frozen().up() as frozen:
        hosts = FailoverConnector(with_hosts(tcp, frozen.host, host_of(tcp)), host_timeout=5.0)
        for _ in range(3):
            connection = await hosts()
            assert await port_of(connection) == urlsplit(tcp).port
            await connection.close()
        assert frozen.visits == 1


async def test_the_pool_goes_through_its_hosts_the_same_way(tcp):
    async with Frozen().up() as frozen:
        dsn = with_hosts(tcp, frozen.host, host_of(tcp))
        pool = await create_pool(dsn, min_size=3, max_size=3, host_timeout=5.0)
        assert await pool.fetchval("SELECT inet_server_port()") == urlsplit(tcp).port
        assert frozen.visits == 1
        await pool.close()


async def test_where_no_host_answers_the_last_ones_trouble_is_told(tcp):
    with refusing() as gone, refusing() as gone_too, pytest.raises(ConnectionRefusedError):
        await FailoverConnector(with_hosts(tcp, gone, gone_too), host_timeout=PATIENT)()


async def test_a_wrong_password_is_told_at_once_and_no_other_host_is_asked(tcp):
    async with Frozen().up() as frozen:
        dsn = with_hosts(tcp, host_of(tcp), frozen.host)
        wrong = urlunsplit(
            urlsplit(dsn)._replace(netloc=f"postgres:wrong@{host_of(tcp)},{frozen.host}")
        )
        with pytest.raises(asyncpg.InvalidPasswordError):
            await FailoverConnector(wrong, host_timeout=PATIENT)()
        assert frozen.visits == 0


@pytest.fixture
def read_only(tmp_path, programs) -> Iterator[str]:
    """The host of a second server that takes no writes, as a standby; same password."""
    settings = {"fsync": "off", "default_transaction_read_only": "on"}
    with embedded_server(tmp_path, settings=settings, programs=programs):
        yield ServerFiles(tmp_path).address.read_text().strip()


async def test_of_several_hosts_the_one_that_takes_writes_is_chosen_and_found_again_after_a_switch(
    tcp, read_only
):
    # Both must know one password, as the two servers of a pair do.
    standby = await connect(read_only)
    await standby.execute("SET default_transaction_read_only = off")
    await standby.execute(f"ALTER ROLE postgres PASSWORD '{urlsplit(tcp).password}'")
    both = with_hosts(tcp, host_of(read_only), host_of(tcp))
    hosts = FailoverConnector(both, host_timeout=PATIENT)
    first = await hosts()
    assert await port_of(first) == urlsplit(tcp).port
    await first.close()

    twice = with_hosts(tcp, host_of(read_only), host_of(read_only))
    only_standby = FailoverConnector(twice, host_timeout=PATIENT)
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched) as refused:
        await only_standby()
    assert is_unavailable(refused.value)

    await standby.execute("ALTER ROLE postgres SET default_transaction_read_only = off")
    promoted = await only_standby()
    assert await port_of(promoted) == urlsplit(read_only).port
    await promoted.close()
    await standby.close()


async def test_an_address_that_wants_any_host_gets_any(tcp, read_only):
    standby = await connect(read_only)
    await standby.execute("SET default_transaction_read_only = off")
    await standby.execute(f"ALTER ROLE postgres PASSWORD '{urlsplit(tcp).password}'")
    await standby.close()
    dsn = with_hosts(tcp, host_of(read_only), host_of(tcp)) + "?target_session_attrs=any"
    connection = await FailoverConnector(dsn, host_timeout=PATIENT)()
    assert await port_of(connection) == urlsplit(read_only).port
    await connection.close()


def test_no_repr_shows_the_password(tcp):
    assert urlsplit(tcp).password not in repr(FailoverConnector(tcp))
    assert urlsplit(tcp).password not in repr(Database(tcp, None))


async def test_a_failed_reconnect_is_one_line_in_the_log(tmp_path, programs, caplog):
    told: asyncio.Queue[logging.LogRecord] = asyncio.Queue()
    with embedded_server(tmp_path, settings={"fsync": "off"}, programs=programs) as dsn:
        pool = await create_pool(dsn, min_size=1, max_size=2)
        assert await pool.fetchval("SELECT 1") == 1
    listener = logging.Handler()
    listener.emit = told.put_nowait
    logging.getLogger("asyncpg.pool").addHandler(listener)
    try:
        record = await asyncio.wait_for(told.get(), 30)
    finally:
        logging.getLogger("asyncpg.pool").removeHandler(listener)
        pool.terminate()
    assert record.exc_info is None
    assert record.exc_text is None
    assert "\n" not in record.getMessage()
    assert "a connection to the database cannot be restored" in record.getMessage()
    assert "Traceback" not in caplog.text


async def test_a_database_is_available_again_when_its_server_is(tmp_path, programs):
    settings = {"fsync": "off"}
    with embedded_server(tmp_path, settings=settings, programs=programs) as dsn:
        pool = await create_pool(dsn, max_size=2)
        database = Database(dsn, pool)
        async with database.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    with pytest.raises(DatabaseUnavailable, match="No PostgreSQL answers at"):
        async with database.acquire() as connection:
            await connection.fetchval("SELECT 1")
    with embedded_server(tmp_path, settings=settings, programs=programs):
        async with database.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    pool.terminate()
