"""The database as the storm sees it: it may be away, and then a call says nothing."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
from support.worker import ROOT

from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS, is_unavailable
from dispatcher.db.migrate import migrate
from dispatcher.postgres.programs import signal_on_parent_exit

Given = TypeVar("Given")
START = 60.0  # seconds
CALL = 20.0


class Server:
    """One PostgreSQL, in a process of its own (see `chaos.server`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.dsn = ""
        self._process = process
        self._ordering = asyncio.Lock()  # one order at a time
        self._unanswered = 0  # orders, also of callers that were cancelled

    async def order(self, word: str) -> None:
        """Give the server an order, and wait until it is ready again."""
        async with self._ordering:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{word}\n".encode())
            self._unanswered += 1
            while self._unanswered:
                await self.ready()
                self._unanswered -= 1

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START):
            line = (await self._process.stdout.readline()).decode().split()
        if line[:1] != ["ready"]:
            raise RuntimeError("PostgreSQL did not come back: see what its process says above")
        self.dsn = line[1]


class Database:
    """A connection of one user, made anew when it breaks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None

    async def ask(self, work: Callable[[asyncpg.Connection], Awaitable[Given]]) -> Given | None:
        """Return what *work* gives, or None: it may have been done, or not."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._dsn, application_name="storm")
            async with asyncio.timeout(CALL):
                return await work(self._connection)
        except UNAVAILABLE_ERRORS as error:
            if not is_unavailable(error):
                raise
            self.close()
            return None

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None


@asynccontextmanager
async def running_server(folder: Path, programs: Path | None = None) -> AsyncIterator[Server]:
    """Start a PostgreSQL in *folder*, migrated; with the *programs* of a folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.server", str(folder), *filter(None, [programs])),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGTERM),
    )
    try:
        server = Server(process)
        await server.ready()
        await migrate(server.dsn)
        yield server
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
