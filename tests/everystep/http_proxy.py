"""Stands before an HTTP server, and cuts each request and each answer in several places."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from everystep.place import Place
from everystep.steps import CUT_AFTER, CUT_BEFORE, FREEZE, KILL, ONCE, POSTGRES

_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
END = b"\r\n\r\n"
CONNECT_FOR = 20.0  # seconds that a server may be away


@dataclass(frozen=True)
class Exchange:
    """What a proxy calls a request: its name, and its token if it has one."""

    name: str
    token: str | None = None


CONNECT = Exchange("connect")  # what was struck was a connection, before any request


class HttpProxy:
    """An HTTP server as its clients reach it.

    *at_client*: whether what is struck is the client (a worker that sends), or the server (the
    receiver of reports).
    """

    def __init__(
        self,
        place: Place,
        target: Callable[[], tuple[str, int]],
        name: Callable[[bytes], Exchange],
        *,
        what: str,
        at_client: bool,
    ) -> None:
        self.struck: Exchange | None = None
        self._place = place
        self._target = target
        self._name = name
        self._what = what
        self._at_client = at_client
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None
        try:
            there = await self._connect()
            await self._pass(reader, writer, *there)
        except (OSError, asyncio.IncompleteReadError, _Cut):
            pass
        finally:
            writer.transport.abort()
            if there is not None:
                there[1].transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        fault = self._place.reach(f"{self._what} connect", most=2, turn=True)
        if fault is not None:
            self.struck = CONNECT
        if fault == CUT_BEFORE:
            raise _Cut
        there = await self._open()
        if fault == CUT_AFTER:
            there[1].transport.abort()
            raise _Cut
        await self._strike(fault)
        return there

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(CONNECT_FOR):
            while True:
                with contextlib.suppress(ConnectionError):
                    return await asyncio.open_connection(*self._target())
                await asyncio.sleep(0.05)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        while True:
            head, body = await _read(reader)
            if not head:
                return
            exchange = self._name(body)
            # What is killed after it wrote has written; before it reads, it has not read.
            await self._cut(exchange, "request", head, body, to_server, before=not self._at_client)
            head, body = await _read(from_server)
            await self._cut(exchange, "answer", head, body, writer, before=self._at_client)
            if not head:
                return

    async def _cut(
        self,
        exchange: Exchange,
        part: str,
        head: bytes,
        body: bytes,
        to: asyncio.StreamWriter,
        *,
        before: bool,
    ) -> None:
        """Pass a request or an answer, point by point."""
        whole = head + body
        points = {
            "head": len(head),
            "half": len(head) + len(body) // 2,
            "whole": len(whole),
        }
        done = 0
        for point, end in points.items():
            fault = self._place.reach(
                f"{self._what} {exchange.name} {part} {point}", most=ONCE, turn=True
            )
            if fault is not None:
                self.struck = exchange
            if fault == CUT_BEFORE:
                to.write(whole[done : end - 1] if point == "whole" else b"")
                raise _Cut
            if fault == KILL and before:
                self._place.kill()
                raise _Cut
            to.write(whole[done:end])
            done = end
            if fault == CUT_AFTER:
                raise _Cut
            await self._strike(fault)

    async def _strike(self, fault: str | None) -> None:
        place = self._place
        if fault == KILL:
            place.kill()
            raise _Cut
        if fault == FREEZE:
            place.freeze()
            if self._at_client:
                await place.thawed()
        if fault == POSTGRES:
            place.crash_postgres()


class _Cut(Exception):  # noqa: N818 - it is no error
    """The connection ends here."""


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a request or an answer; as much as came, if the connection ends in it."""
    try:
        head = await reader.readuntil(END)
    except asyncio.IncompleteReadError as error:
        return error.partial, b""
    found = _LENGTH.search(head)
    if not found:
        return head, b""
    try:
        return head, await reader.readexactly(int(found[1]))
    except asyncio.IncompleteReadError as error:
        return head, error.partial
