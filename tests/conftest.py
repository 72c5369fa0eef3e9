"""A real PostgreSQL under every test that asks for one.

One server a session (of each xdist worker), started when the first test asks, stopped with its
owner even if that is killed. Every test gets a database of its own, copied from a migrated
template.
"""

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings
from support.patient import PatientDatabase

from dispatcher.db import database as database_module
from dispatcher.db.database import Database, Pool, connect, create_pool
from dispatcher.db.migrate import migrate
from dispatcher.db.queries import sql
from dispatcher.postgres.server import embedded_server

database_module.ONLY_HOST_TIMEOUT_SECONDS = 60.0  # to connect, on a machine that stands still

# Tests of whole failures, and tests that run other programs: `./dev test --all` runs them.
DRILLS = (
    "chaos",
    "console/test_browser.py",
    "console/test_readme_image.py",
    "deploy",
    "everystep/test_everystep.py",
    "failover",
    "network",
    "pgbouncer",
    "receiver/test_intake_drill.py",
    "tls",
)

# A shell that runs the tests in the background has them ignore Ctrl-C, and what they start would
# inherit that; a handler of ours is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("tests", deadline=None)  # machines are busy
settings.load_profile("tests")

# Here, because only the uppermost conftest may.
pytest_plugins = ["support.command", "support.fixtures"]

TEMPLATE = "migrated"
# Durability is what tests of ours never need: the server and its data go together.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "max_prepared_transactions": "2",  # for a test of two-phase commits
}
# In memory a test's database takes a tenth of the time; a disk shared with others is slow to make
# its 400 files. Not in a small memory (containers give 64 MB), which tests with many rows fill.
IN_MEMORY = "dispatcher-tests-"
ROOM = 4 << 30  # bytes


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items) -> None:
    """Mark the tests of DRILLS."""
    drills = [Path(__file__).parent / name for name in DRILLS]
    if missing := [str(path) for path in drills if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py, DRILLS: no such path: {', '.join(missing)}")
    for item in items:
        if any(item.path.is_relative_to(path) for path in drills):
            item.add_marker("drill")


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--postgres",
        type=Path,
        help="folder of PostgreSQL's programs (default: the wheel's), to test another version",
    )
    parser.addoption(
        "--kills",
        type=int,
        default=2,
        help="how often the test of takeovers kills a worker in the middle of its work",
    )
    parser.addoption(
        "--drill-seconds",
        type=float,
        default=10.0,
        help="how long the drill of the report receiver sends 1,000 reports a second",
    )
    parser.addoption(
        "--waiting",
        type=int,
        default=20_000,
        help="how many messages wait while the secret is wrong",
    )

    parser.addoption(
        "--drill-messages",
        type=int,
        default=1_000,
        help="how many messages are billed, and refused by reports and sent again",
    )
    parser.addoption(
        "--odd-rows",
        type=int,
        default=200,
        help="how many rows of anything that the constraints allow are inserted for one worker",
    )
    parser.addoption(
        "--strangers",
        type=int,
        default=3_000,
        help="how many rows name numbers that ONLY_TO does not allow",
    )
    parser.addoption(
        "--cut",
        type=float,
        help="seconds that hosts are cut off in the test of it, with a worker's usual settings"
        " (default: 14, with the shortest lease)",
    )
    parser.addoption(
        "--patroni",
        type=Path,
        help="folder of Patroni's programs, for the drill of fail-over with it",
    )


@pytest.fixture(scope="session")
def strangers(request) -> int:
    """How many rows name numbers that ONLY_TO does not allow."""
    return request.config.getoption("--strangers")


@pytest.fixture(scope="session")
def cut(request) -> float | None:
    """For how many seconds hosts are cut off, if the command line says so."""
    return request.config.getoption("--cut")


@pytest.fixture(scope="session")
def kills(request) -> int:
    """How often a worker is killed in a row."""
    return request.config.getoption("--kills")


@pytest.fixture(scope="session")
def drill_seconds(request) -> float:
    """How long reports come in while everything is killed."""
    return request.config.getoption("--drill-seconds")


@pytest.fixture(scope="session")
def drill_messages(request) -> int:
    """How many messages are billed, and refused by reports and sent again."""
    return request.config.getoption("--drill-messages")


@pytest.fixture(scope="session")
def waiting(request) -> int:
    """How many messages wait while the secret is wrong."""
    return request.config.getoption("--waiting")


@pytest.fixture(scope="session")
def programs(request) -> Path | None:
    """The folder of PostgreSQL's programs, if the command line names one."""
    return request.config.getoption("--postgres")


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory) -> Iterator[Path]:
    """Where the data of this session's PostgreSQL are, and its address for other tools."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > ROOM:
        remove_left_over(memory)
        folder = memory / f"{IN_MEMORY}{os.getpid()}"
        folder.mkdir(mode=0o700)
    else:
        folder = tmp_path_factory.mktemp("postgres")
    yield folder
    shutil.rmtree(folder)


def remove_left_over(memory: Path) -> None:
    """Remove what sessions that were killed left in memory; a name ends with its process."""
    for folder in memory.glob(f"{IN_MEMORY}*"):
        with suppress(FileNotFoundError):  # another worker was quicker
            mine = folder.stat().st_uid == os.geteuid()
            if mine and not Path("/proc", folder.name.removeprefix(IN_MEMORY)).exists():
                shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(programs, server_folder) -> Iterator[str]:
    """The address of this session's PostgreSQL, as its superuser; no tables are in it."""
    with embedded_server(server_folder, settings=FAST, programs=programs) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def admin(server) -> Iterator[Callable[[str], str]]:
    """Runs a statement on the server, outside of any test's loop and transaction."""
    # A loop of its own, and one that is never set as the thread's: pytest-asyncio has its own.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        connection = runner.run(connect(server))
        yield lambda statement: runner.run(connection.execute(statement))
        runner.run(connection.close())


@pytest.fixture(scope="session")
def template(server, admin) -> str:
    """The name of a migrated database that is only ever copied."""
    admin(f"CREATE DATABASE {TEMPLATE}")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(migrate(database_dsn(server, TEMPLATE)))
    return TEMPLATE


@pytest.fixture(scope="session")
def new_database(server, admin) -> Callable[[str], str]:
    """Makes a database as a copy of another, and returns its address."""
    numbers = itertools.count(1)

    def make(template: str = "template1") -> str:
        name = f"test_{next(numbers)}"
        admin(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return database_dsn(server, name)

    return make


@pytest.fixture
def empty_dsn(new_database, admin) -> Iterator[str]:
    """The address of a database without any table."""
    dsn = new_database("template1")
    yield dsn
    admin(f"DROP DATABASE {database_name(dsn)} WITH (FORCE)")


@pytest.fixture
def dsn(new_database, template, admin) -> Iterator[str]:
    """The address of a migrated database of this test's own."""
    dsn = new_database(template)
    yield dsn
    admin(f"DROP DATABASE {database_name(dsn)} WITH (FORCE)")


@pytest.fixture
async def db(dsn) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database."""
    connection = await connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(dsn) -> AsyncIterator[Pool]:
    """A pool of connections to this test's database."""
    pool = await create_pool(dsn, min_size=0, max_size=5)
    yield pool
    pool.terminate()


@pytest.fixture
def database(dsn, pool) -> Database:
    """This test's database, for transactions that may stand still with the machine."""
    return PatientDatabase(dsn, pool)


@pytest.fixture
def patient_locks(monkeypatch) -> None:
    """Lets transactions wait for a lock for as long as a test may hold it."""

    def patient(name: str) -> str:
        return sql(name).replace("lock_timeout = '4s'", "lock_timeout = '60s'")

    monkeypatch.setattr(database_module, "sql", patient)


@pytest.fixture
def strict_database(dsn, pool) -> Database:
    """The same, with the time-outs of a worker."""
    return Database(dsn, pool)


def database_dsn(server: str, name: str) -> str:
    """Return the address of database *name* on the server at *server*."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def database_name(dsn: str) -> str:
    """Return the name of the database at *dsn*."""
    return urlsplit(dsn).path.lstrip("/")
