"""Where it is measured: a server, its databases, and what is known of machine and settings."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from msgspec import Struct, field

from dispatcher.bench import processes
from dispatcher.db.migrate import migrate
from dispatcher.db.pool import OwnConnection, connect
from dispatcher.db.statements import sql
from dispatcher.postgres.server import embedded_server

TEMPLATE = "dispatcher_bench"
INDEX_TIME = 3600.0  # seconds for one
_SQL = Path(__file__).parent / "sql"
# What a database server of this size is given anywhere. What makes it durable stays on.
SERVER_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
}
SHOWN = (
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


@cache
def statement(name: str) -> str:
    """Return a statement of this room, ``bench/sql/<name>.sql``."""
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


class Stage(Struct):
    """One server to measure on."""

    address: str  # of a database of that server, as a user who may create others
    folder: Path  # for logs
    local: bool  # whether the server's processes can be seen
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Give the address of a migrated, empty database; it is dropped at the end."""
        name = f"{TEMPLATE}_{next(self.numbers)}"
        await self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
        try:
            yield database_address(self.address, name)
        finally:
            await self._administer(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """Make the migrated template as long as this lasts."""
        await self._administer(f'DROP DATABASE IF EXISTS "{TEMPLATE}" WITH (FORCE)')
        await self._administer(f'CREATE DATABASE "{TEMPLATE}"')
        try:
            await migrate(database_address(self.address, TEMPLATE))
            yield
        finally:
            await self._administer(f'DROP DATABASE "{TEMPLATE}" WITH (FORCE)')

    def log(self, name: str) -> Path:
        """Return where a process of the benchmark logs."""
        return self.folder / f"{name}.log"

    async def _administer(self, command: str) -> None:
        connection = await connect(self.address)
        try:
            await connection.execute(command)
        finally:
            await connection.close()


def database_address(address: str, name: str) -> str:
    """Return the address of database *name* on the server of *address*."""
    return urlunsplit(urlsplit(address)._replace(path=f"/{name}"))


@contextmanager
def stage(address: str | None, folder: Path) -> Iterator[Stage]:
    """Give the server at *address*, or an embedded one in *folder* as long as this lasts."""
    if address is not None:
        yield Stage(address, folder, local=False)
    else:
        with embedded_server(folder / "postgres", settings=SERVER_SETTINGS) as dsn:
            yield Stage(dsn, folder, local=True)


async def make_indexes(connection: OwnConnection) -> None:
    """Make the indexes of full partitions, as workers do in their time."""
    while True:
        try:
            if await connection.fetchval(sql("index_step"), timeout=INDEX_TIME) is None:
                return
        except asyncpg.LockNotAvailableError:  # autovacuum is there just now
            await asyncio.sleep(1)


async def postmaster(connection: OwnConnection) -> int:
    """Return the process that all of the server's others are children of."""
    return processes.parent(await connection.fetchval("SELECT pg_backend_pid()"))


async def describe(stage: Stage) -> dict[str, str]:
    """Return what the figures depend on: the machine and the server's settings."""
    connection = await connect(stage.address)
    try:
        rows = await connection.fetch(statement("server_settings"), list(SHOWN))
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
