"""The way to a database, which a test can cut and mend."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

from dispatcher.bench.ports import free_port
from dispatcher.db.dsn import read_address


class Wire:
    """Passes bytes between a port of this machine and the PostgreSQL at *dsn*."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._server: asyncio.Server | None = None
        self._port = free_port()  # nobody is given it while the way is cut
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> str:
        """The address of the same database by this way."""
        user = urlsplit(self._dsn).username or "postgres"
        return f"postgresql://{user}@127.0.0.1:{self._port}/{read_address(self._dsn).database}"

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        """Let everybody pass."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Accept no connection any more, and break those that are open."""
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (host, port), *_ = read_address(self._dsn).hosts
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, port)
        ways = ((reader, there[1]), (there[0], writer))
        self._open |= {writer, there[1]}
        async with asyncio.TaskGroup() as both:
            for source, sink in ways:
                both.create_task(_copy(source, sink))
        self._open -= {writer, there[1]}


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while some := await source.read(1 << 16):
            sink.write(some)
            await sink.drain()
    sink.close()
