"""A transaction keeps its time, and leaves the pool in order, whatever ends it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from support.waiting import until

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, create_pool
from dispatcher.postgres.cluster import ServerFiles

ROWS = [("someone", "DELIVRD", "delivered")]


async def copy(connection: asyncpg.Connection) -> None:
    await connection.copy_records_to_table(
        "report",
        schema_name="dispatcher",
        columns=["provider_id", "status", "state"],
        records=ROWS,
    )


async def query(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT 1")


@pytest.fixture
def freeze() -> Iterator[Callable[[asyncpg.Connection], Awaitable[None]]]:
    """Freeze the server's process of a connection, until the test is over."""
    frozen: list[int] = []

    async def stop(connection: asyncpg.Connection) -> None:
        frozen.append(await connection.fetchval("SELECT pg_backend_pid()"))
        os.kill(frozen[-1], signal.SIGSTOP)

    yield stop
    for process in frozen:
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("work", [query, copy])
async def test_a_frozen_server_is_left_in_time(database, freeze, work):
    async def write() -> None:
        async with database.transaction(seconds=0.3) as connection:
            await freeze(connection)
            await work(connection)

    with pytest.raises(DatabaseUnavailable):
        await asyncio.wait_for(write(), 60)
    assert await database.pool.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("work", [query, copy])
async def test_a_cancelled_task_stays_cancelled_though_the_server_is_frozen(database, freeze, work):
    """Else a worker that must stop takes it for a database that is away, and tries again."""
    begun = asyncio.Event()

    async def write() -> None:
        async with database.transaction(seconds=30) as connection:
            await freeze(connection)
            begun.set()
            await work(connection)

    task = asyncio.create_task(write())
    await begun.wait()
    await asyncio.sleep(0)  # into the statement
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done
    assert task.cancelled()
    assert await database.pool.fetchval("SELECT 1") == 1


async def test_a_connection_that_is_cut_between_two_steps_of_the_driver_is_away(database):
    """asyncpg then asks None to go on, and that is an AttributeError."""

    async def write() -> None:
        async with database.transaction() as connection:
            connection.terminate()
            None.bind_execute  # noqa: B018 - what asyncpg does

    async def stumble() -> None:
        async with database.transaction():
            None.bind_execute  # noqa: B018 - a mistake of ours

    with pytest.raises(DatabaseUnavailable):
        await write()
    with pytest.raises(AttributeError):
        await stumble()
    assert await database.pool.fetchval("SELECT 1") == 1


async def test_a_refused_statement_rolls_back_and_keeps_the_connection(database):
    async def write_twice() -> None:
        async with database.transaction() as connection:
            await copy(connection)
            await copy(connection)

    async with database.transaction() as connection:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(asyncpg.UniqueViolationError):
        await write_twice()
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") == backend
        assert await connection.fetchval("SELECT count(*) FROM dispatcher.report") == 0


async def test_a_client_that_falls_silent_in_a_transaction_is_cut_off(strict_database, db):
    """As one does that is frozen there; what it holds is free again, and it gets an error."""
    heard = asyncio.Event()

    async def fall_silent() -> None:
        async with strict_database.transaction() as connection:
            allowed = await connection.fetchval(
                "SELECT current_setting('idle_in_transaction_session_timeout')::interval"
            )
            assert allowed.total_seconds() == TRANSACTION_TIMEOUT_SECONDS
            waits = await connection.fetchval("SELECT current_setting('lock_timeout')::interval")
            assert waits < allowed
            me = await connection.fetchval("SELECT pg_backend_pid()")
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            await until(lambda: is_gone(db, me), what="the server ends it")
            heard.set()
            await query(connection)

    with pytest.raises(DatabaseUnavailable):
        await fall_silent()
    assert heard.is_set()
    assert await strict_database.pool.fetchval("SELECT 1") == 1


async def test_only_the_transaction_is_bounded_and_not_the_session(database):
    async with database.transaction():
        pass
    assert await database.pool.fetchval("SHOW idle_in_transaction_session_timeout") == "0"
    assert await database.pool.fetchval("SHOW lock_timeout") == "0"


async def is_gone(db: asyncpg.Connection, backend: int) -> bool:
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", backend
    )


async def test_every_session_asks_whether_its_client_is_still_there(server_folder, dsn):
    address = urlsplit(ServerFiles(server_folder).address.read_text().strip())
    pool = await create_pool(urlunsplit(address._replace(path=urlsplit(dsn).path)), max_size=1)
    assert await pool.fetchval("SHOW tcp_keepalives_idle") == "10"
    assert await pool.fetchval("SHOW tcp_user_timeout") == "25000"
    pool.terminate()


async def test_a_transaction_that_the_server_finds_too_long_is_away(database, db):
    if db.get_server_version().major < 17:
        pytest.skip("transaction_timeout is of PostgreSQL 17")

    async def take_long() -> None:
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL transaction_timeout = '50ms'")
            await connection.execute("SELECT pg_sleep(5)")

    with pytest.raises(DatabaseUnavailable):
        await take_long()
    assert await database.pool.fetchval("SELECT 1") == 1


async def test_a_disk_that_fails_is_away(database):
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute("DO $$ BEGIN RAISE SQLSTATE '58030'; END $$")
