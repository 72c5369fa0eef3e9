"""Which trouble passes by itself, and the one line that people are told."""

import asyncio
import socket
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import Database, connect
from dispatcher.db.dsn import FileAddress, driver_address, read_address
from dispatcher.db.errors import explain, is_unavailable
from dispatcher.postgres.cluster import ServerFiles


@pytest.fixture(scope="session")
def tcp(server, server_folder) -> str:
    """The address of the session's server by TCP."""
    assert server
    return ServerFiles(server_folder).address.read_text().strip()


def changed(dsn: str, *, login: str | None = None, path: str | None = None) -> str:
    """Return *dsn* with another login or path."""
    parts = urlsplit(dsn)
    before, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login or before}@{host}", path=path or parts.path))


async def trouble(dsn: str, *statements: str) -> str:
    """Return the line about what goes wrong on connecting to *dsn*, or with the statements."""
    connection = None
    try:
        connection = await connect(dsn)
        for statement in statements:
            await connection.execute(statement)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
        line = explain(error, dsn)
    else:
        pytest.fail("nothing went wrong")
    finally:
        if connection is not None:
            await connection.close()
    assert "\n" not in line
    assert line.endswith(".")
    return line


async def test_a_wrong_password(tcp):
    line = await trouble(changed(tcp, login="postgres:wr0ng"))
    assert "refuses the password of user 'postgres'" in line
    assert "DISPATCHER_DATABASE_URL" in line
    assert "wr0ng" not in line


async def test_an_unknown_user(tcp):
    assert "user 'nobody_known'" in await trouble(changed(tcp, login="nobody_known:x"))


async def test_a_missing_database(tcp):
    line = await trouble(changed(tcp, path="/missing"))
    assert "has no database 'missing'" in line
    assert "create it" in line


async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        line = await trouble(f"postgresql://u:secret@127.0.0.1:{taken.getsockname()[1]}/d")
    assert "No PostgreSQL answers at 127.0.0.1:" in line
    assert "(connection refused)" in line
    assert "secret" not in line


async def test_an_unknown_host():
    line = await trouble("postgresql://u@no-such-host.invalid/d")
    assert "no-such-host.invalid:5432/d" in line


async def test_no_socket(tmp_path):
    line = await trouble(f"postgresql://u@/d?host={quote(str(tmp_path), safe='')}&port=1")
    assert "(no such socket)" in line


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://u:secret@host/d",
        "postgresql://u:sec/ret@host/d",
        "postgresql://u:secret@host:port/d",
        "postgresql://u:secret@[::1/d",
        "secret",
    ],
)
async def test_an_address_that_cannot_be_read_shows_nothing_of_itself(dsn):
    line = await trouble(dsn)
    assert "DISPATCHER_DATABASE_URL cannot be read" in line
    assert "sec" not in line


async def test_a_missing_right(dsn):
    line = await trouble(
        dsn, "CREATE ROLE without_rights", "SET ROLE without_rights", "TABLE dispatcher.message"
    )
    assert "denies user 'postgres' a right (permission denied for schema dispatcher" in line
    await trouble(dsn, "DROP ROLE without_rights", "FAIL")


async def test_missing_tables(empty_dsn):
    assert "dispatcher migrate" in await trouble(empty_dsn, "TABLE dispatcher.message")
    assert "dispatcher migrate" in await trouble(empty_dsn, "SELECT dispatcher.cancel('{1}')")


async def test_no_value_of_a_row_is_told(dsn):
    insert = "INSERT INTO dispatcher.message (recipient, template_id, priority) VALUES "
    for values in ("('+8613112345678 ', 't', 5)", "('+8613100000131', 't', 'secret 12345678')"):
        line = await trouble(dsn, insert + values)
        assert "12345678" not in line


async def test_a_session_that_was_ended_is_away_at_once_and_afterwards(db, dsn):
    victim = await connect(dsn)
    closed = asyncio.Event()
    victim.add_termination_listener(lambda _: closed.set())
    call = asyncio.create_task(victim.execute("SELECT pg_sleep(60)"))
    while not await db.fetchval(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE wait_event = 'PgSleep' AND datname = current_database()"
    ):
        pass
    with pytest.raises(asyncpg.PostgresError) as first:
        await asyncio.wait_for(call, 60)
    assert is_unavailable(first.value)
    await asyncio.wait_for(closed.wait(), 60)
    with pytest.raises(asyncpg.InterfaceError) as second:
        await victim.execute("SELECT 1")
    assert is_unavailable(second.value)


WAITED_OUT = "08006 08P01 25006 25P03 25P04 28000 28P01 3D000 40001 40P01 42501 53000 53100 53200"
WAITED_OUT += " 53300 53400 54000 55000 55P03 57000 57014 57P01 57P02 57P03 57P04 58030 XX000"


@pytest.mark.parametrize("code", WAITED_OUT.split())
def test_what_passes_by_itself_or_by_an_operator_is_away(code):
    error = asyncpg.PostgresError.new({"C": code, "M": "in any language", "S": "ERROR"})
    assert error.sqlstate == code
    assert is_unavailable(error)


def test_a_transaction_in_which_the_client_fell_silent_is_away():
    error = asyncpg.IdleInTransactionSessionTimeoutError("terminating connection")
    assert is_unavailable(error)
    assert "frozen" in explain(error, "postgresql://h/d")


async def test_a_lock_that_is_held_for_long_is_told_as_such(dsn):
    other = await connect(dsn)
    async with other.transaction():
        await other.execute("LOCK dispatcher.app")
        line = await trouble(dsn, "SET lock_timeout = '1ms'", "TABLE dispatcher.app")
    await other.close()
    assert "pg_stat_activity" in line


async def test_a_server_that_turned_read_only_is_away(db):
    async with db.transaction(readonly=True):
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as refused:
            await db.execute("CREATE TABLE x ()")
    assert is_unavailable(refused.value)


async def test_a_mistake_of_ours_is_not_away(db, database):
    with pytest.raises(asyncpg.InterfaceError) as wrong_call:
        await db.fetchval("SELECT $1::int")
    with pytest.raises(asyncpg.PostgresSyntaxError) as wrong_statement:
        await db.execute("SELEC")
    assert not is_unavailable(wrong_call.value)
    assert not is_unavailable(wrong_statement.value)
    with pytest.raises(asyncpg.InterfaceError):
        async with database.acquire() as connection:
            await connection.fetchval("SELECT $1::int")


async def test_an_unavailable_database_raises_one_error(database):
    with pytest.raises(DatabaseUnavailable, match="timed out") as unavailable:
        async with database.acquire():
            raise TimeoutError
    assert isinstance(unavailable.value.__cause__, TimeoutError)


async def test_refusals_are_retried_only_where_that_is_asked_for(database):
    async def read_missing_table(tables: Database) -> None:
        async with tables.acquire() as connection:
            await connection.fetch("TABLE dispatcher.missing")

    with pytest.raises(asyncpg.UndefinedTableError):
        await read_missing_table(database)
    patient = Database(database.dsn, database.pool, retry_refusals=True)
    with pytest.raises(DatabaseUnavailable, match="dispatcher migrate"):
        await read_missing_table(patient)


ADDRESSES = [
    ("postgresql://u:p@one:1,two:2/d", "one:1,two:2/d"),
    ("postgresql://u@one,two:2/d", "one:5432,two:2/d"),
    ("postgresql://u@one,two/d?port=7", "one:7,two:7/d"),
    ("postgresql://u@/d?host=one,two&port=1,2", "one:1,two:2/d"),
    ("postgresql://u@/d?host=%2Frun%2Fpg&port=3", "/run/pg:3/d"),
    ("postgresql://u@[::1]:6/d", "[::1]:6/d"),
    ("postgresql://u@[::1]/d", "[::1]:5432/d"),
    ("postgresql://u@host", "host:5432/u"),
    ("postgresql://", "the default host/"),
    ("postgresql:///d?user=u", "the default host/d"),
    ("postgresql://u@%2Frun%2Fpg:3/d", "/run/pg:3/d"),
]


@pytest.mark.parametrize(("dsn", "told"), ADDRESSES)
def test_people_are_told_of_an_address_without_its_password(dsn, told):
    assert str(read_address(dsn)) == told


async def test_what_only_other_drivers_know_is_left_out(dsn):
    more = "channel_binding=require&connect_timeout=5&keepalives_idle=9&pgbouncer=true"
    assert driver_address(f"{dsn}&{more}") == dsn
    connection = await connect(f"{dsn}&{more}")
    await connection.close()


async def test_a_parameter_that_the_server_does_not_know_is_named(dsn):
    line = await trouble(f"{dsn}&nonsense=1")
    assert '"nonsense"' in line
    assert "take it out" in line


@pytest.mark.parametrize("more", ["ssl=true", "statement_timeout=often"])
async def test_a_parameter_that_cannot_be_set_is_named(dsn, more):
    line = await trouble(f"{dsn}&{more}")
    assert "refuses a parameter of DISPATCHER_DATABASE_URL (" in line
    assert more.partition("=")[0] in line
    assert "often" not in line


@pytest.mark.parametrize(
    ("parameter", "values"),
    [("sslmode", "disable, allow, prefer, require"), ("target_session_attrs", "any, primary")],
)
async def test_a_parameter_of_the_driver_names_its_values(dsn, parameter, values):
    line = await trouble(f"{dsn}&{parameter}=Wr0ng")
    assert line.startswith(f"{parameter} in DISPATCHER_DATABASE_URL must be one of: {values}")
    assert "Wr0ng" not in line


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("\ufeffpostgresql://u:new@h/d\r\n", "postgresql://u:new@h/d"),
        ("postgresql://u:old@h/d\n", None),
        ("postgresql://u:new@h:99999/d\n", None),
        ("postgre", None),
        ("", None),
    ],
)
def test_a_file_is_read_again_once_it_holds_an_address(tmp_path, content, read):
    file = tmp_path / "url"
    file.write_text(content, newline="")
    assert FileAddress("postgresql://u:old@h/d", file).read_again() == read


@pytest.mark.parametrize(
    ("found_in", "limit"),
    [
        ("InitializeSessionUserId", "CONNECTION LIMIT of its user"),
        ("CheckMyDatabase", "CONNECTION LIMIT of the database"),
        ("InitProcess", "its max_connections"),
    ],
)
def test_a_lack_of_connections_names_the_limit(found_in, limit):
    error = asyncpg.TooManyConnectionsError("too many, in any language")
    error.server_source_function = found_in
    assert limit in explain(error, "postgresql://h/d")


async def test_the_limit_of_a_role_is_recognised(tcp, db):
    await db.execute("CREATE ROLE few LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
    try:
        assert "CONNECTION LIMIT of its user" in await trouble(changed(tcp, login="few:x"))
    finally:
        await db.execute("DROP ROLE few")


def test_mixed_up_statements_name_the_setting():
    error = asyncpg.DuplicatePreparedStatementError("exists")
    assert "DISPATCHER_STATEMENT_CACHE=0" in explain(error, "postgresql://h/d")


async def test_a_default_that_is_read_only_is_named(dsn, db):
    name = read_address(dsn).database
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    line = await trouble(dsn, "CREATE TABLE x ()")
    assert "default_transaction_read_only" in line
