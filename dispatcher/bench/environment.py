"""The environment of a benchmark: a PostgreSQL server, its databases, machine and settings."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from msgspec import Struct, field

from dispatcher.bench import proc
from dispatcher.bench.children import START_TIMEOUT_SECONDS, Child, ChildError, run_child
from dispatcher.bench.ports import free_port
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.migrate import migrate
from dispatcher.db.queries import sql
from dispatcher.postgres.server import embedded_server

TEMPLATE_DATABASE = "dispatcher_bench"
INDEX_TIMEOUT_SECONDS = 3600.0  # of one index
# Usual settings of a database server of this size. Everything that makes it durable stays on.
SERVER_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
}
SHOWN_SETTINGS = (
    "server_version",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "data_checksums",
    "wal_compression",
    "autovacuum",
    "io_method",
    "jit",
)


class Environment(Struct):
    """One server to measure on, and a folder for logs."""

    address: str  # a database of that server; the user may create databases
    folder: Path
    local: bool  # whether the server's processes are visible in /proc
    database_numbers: "count[int]" = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Create a migrated, empty database; yield its address; drop it at the end."""
        name = f"{TEMPLATE_DATABASE}_{next(self.database_numbers)}"
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE_DATABASE}"')
        try:
            yield database_address(self.address, name)
        finally:
            await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def template(self) -> AsyncIterator[None]:
        """Create the migrated template of all databases, and drop it at the end."""
        await self._execute(f'DROP DATABASE IF EXISTS "{TEMPLATE_DATABASE}" WITH (FORCE)')
        await self._execute(f'CREATE DATABASE "{TEMPLATE_DATABASE}"')
        try:
            await migrate(database_address(self.address, TEMPLATE_DATABASE))
            yield
        finally:
            await self._execute(f'DROP DATABASE "{TEMPLATE_DATABASE}" WITH (FORCE)')

    def log(self, name: str) -> Path:
        """Return the log file of process *name*."""
        return self.folder / f"{name}.log"

    async def _execute(self, command: str) -> None:
        connection = await connect(self.address)
        try:
            await connection.execute(command)
        finally:
            await connection.close()


def database_address(address: str, name: str) -> str:
    """Return the address of database *name* on the server of *address*."""
    return urlunsplit(urlsplit(address)._replace(path=f"/{name}"))


@contextmanager
def open_environment(address: str | None, folder: Path) -> Iterator[Environment]:
    """Use the server at *address*, or run an embedded one in *folder* until the end."""
    if address is not None:
        yield Environment(address, folder, local=False)
    else:
        with embedded_server(folder / "postgres", settings=SERVER_SETTINGS) as dsn:
            yield Environment(dsn, folder, local=True)


async def make_indexes(connection: OwnConnection) -> None:
    """Create the indexes of full partitions, as maintenance in workers does."""
    while True:
        try:
            if await connection.fetchval(sql("index_step"), timeout=INDEX_TIMEOUT_SECONDS) is None:
                return
        except asyncpg.LockNotAvailableError:  # autovacuum holds the table
            await asyncio.sleep(1)


async def postmaster(connection: OwnConnection) -> int:
    """Return the process id of the server's parent process."""
    return proc.parent(await connection.fetchval("SELECT pg_backend_pid()"))


async def describe(environment: Environment) -> dict[str, str]:
    """Return what figures depend on: the machine and the server's settings."""
    connection = await connect(environment.address)
    try:
        rows = await connection.fetch(query("server_settings"), list(SHOWN_SETTINGS))
    finally:
        await connection.close()
    return {
        "machine": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{row["name"]: row["setting"] for row in rows},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


RECEIVER_TOKEN = "bench-bench-bench"  # noqa: S105 - of a receiver on loopback
RECEIVER_PATH = f"/reports/{RECEIVER_TOKEN}"
POLL_INTERVAL_SECONDS = 0.05

Listener = tuple[int, Child]  # port and process


@asynccontextmanager
async def run_receiver(
    environment: Environment,
    dsn: str,
    *,
    processes: int = 1,
    module: str = "dispatcher",
    under: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Listener]:
    """Run a receiver of *processes* processes on a free port; see `run_child`."""
    port = free_port()
    many = ["--processes", str(processes)] if processes > 1 else []
    all_settings = {
        "DISPATCHER_DATABASE_URL": dsn,
        "DISPATCHER_DATA_DIR": str(environment.folder / f"receiver-{processes}"),
        "DISPATCHER_LISTEN": f"127.0.0.1:{port}",
        "DISPATCHER_REPORT_PATH_TOKEN": RECEIVER_TOKEN,
        "DISPATCHER_LOG_FORMAT": "json",
        **settings,
    }
    async with run_child(
        "receiver",
        ["run", "--only", "reports", *many],
        log=environment.log("receiver"),
        settings=all_settings,
        module=module,
        under=under,
    ) as process:
        await _wait_until_listening(process, port)
        yield port, process


async def _wait_until_listening(receiver: Child, port: int) -> None:
    began = monotonic()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            receiver.check_running()
            if monotonic() - began > START_TIMEOUT_SECONDS:
                raise ChildError("the receiver does not listen") from None
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        else:
            writer.close()
            return
