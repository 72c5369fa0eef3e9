"""Stands between a process of the service and PostgreSQL, and names each message that passes."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from dispatcher.db.queries import statements
from everystep.place import Place
from everystep.steps import CUT_AFTER, CUT_BEFORE, FREEZE, KILL, POSTGRES, often

FRONTEND = {
    "P": "Parse", "B": "Bind", "D": "Describe", "E": "Execute", "S": "Sync", "H": "Flush",
    "Q": "Query", "d": "CopyData", "c": "CopyDone", "f": "CopyFail", "C": "Close",
    "X": "Terminate", "p": "Password", "": "Startup",
}  # fmt: skip
BACKEND = {
    "1": "ParseComplete", "2": "BindComplete", "3": "CloseComplete", "t": "ParameterDescription",
    "T": "RowDescription", "n": "NoData", "D": "DataRow", "C": "CommandComplete",
    "Z": "ReadyForQuery", "G": "CopyInResponse", "R": "Authentication", "S": "ParameterStatus",
    "K": "BackendKeyData", "E": "ErrorResponse", "N": "Notice", "A": "Notification",
    "s": "PortalSuspended", "I": "EmptyQuery", "v": "NegotiateVersion",
}  # fmt: skip
ENDS_WRITE = frozenset("SHQpc")  # what a client sends last before it waits
RUNS = frozenset({"DataRow", "CopyData", "ParameterStatus", "Notice"})  # many at once: one step
KINDS = {"app_state": "claim", "close_batches": "record", "close_for_split": "split"}
INTROSPECTION = "introspect"  # what the driver asks about types, once a connection
LEAD_IN = frozenset({"begin", "pin_plans", "COMMIT", "ROLLBACK", INTROSPECTION})
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class PostgresProxy:
    """The database as one process of the service reaches it."""

    def __init__(
        self, place: Place, socket: str, has_work: Callable[[str], Awaitable[bool]]
    ) -> None:
        """*has_work*: whether messages of an app are due, so that a claim will find some."""
        self._place = place
        self._socket = socket
        self._has_work = has_work
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
        try:
            there = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.transport.abort()
            return
        session = _Session(self._place, (reader, writer), there, self._has_work)
        await session.run()


Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Session:
    """One connection."""

    def __init__(
        self, place: Place, client: Way, server: Way, has_work: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._place = place
        self._reader, self._writer = client
        self._from_server, self._to_server = server
        self._has_work = has_work
        self._prepared: dict[str, str] = {}
        self._statement = "connect"
        self._kind = "connect"
        self._in_transaction = False
        self._answered = False  # since the last write of the client
        self._last_up = self._last_down = ""

    async def run(self) -> None:
        """Pass messages both ways until one side ends."""
        tasks = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            self._abort()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    def _abort(self) -> None:
        self._writer.transport.abort()
        self._to_server.transport.abort()

    async def _up(self) -> None:
        async for raw in _messages(self._reader, startup=True):
            kind = chr(raw[0]) if self._last_up else ""
            message = FRONTEND.get(kind, kind)
            await self._read_request(kind, raw)
            self._answered = False
            fault = None
            if not (message in RUNS and message == self._last_up):
                turn = kind in ENDS_WRITE or not kind
                fault = self._reach(f"> {message}", turn=turn)
            self._last_up = message
            place = self._place
            if fault == CUT_BEFORE:
                return
            if fault == POSTGRES:
                place.crash_postgres()
                return
            if fault == FREEZE:
                place.freeze()
            self._to_server.write(raw)
            if fault == KILL:
                place.kill()
            if fault in (KILL, CUT_AFTER):
                return
            if fault == FREEZE:
                await place.thawed()

    async def _down(self) -> None:
        async for raw in _messages(self._from_server):
            message = BACKEND.get(chr(raw[0]), chr(raw[0]))
            fault = None
            if not (message in RUNS and message == self._last_down) and message != "Notification":
                fault = self._reach(f"< {message}", turn=not self._answered)
            self._answered = True
            self._last_down = message
            place = self._place
            match fault:
                case "cut-before":
                    return
                case "kill":
                    place.kill()
                    return
                case "postgres":
                    place.crash_postgres()
                    return
                case "freeze":
                    place.freeze()
            self._writer.write(raw)
            if fault == CUT_AFTER:
                return
            if message == "ReadyForQuery":
                self._in_transaction = raw[5:6] != b"I"
                if not self._in_transaction:
                    self._kind = ""

    def _reach(self, what: str, *, turn: bool) -> str | None:
        # Until its first statement, nothing distinguishes a transaction from another.
        kind = self._kind or ("begin" if self._statement in LEAD_IN else "alone")
        statement = self._statement
        if statement == INTROSPECTION:
            kind = "alone"
        name = kind if statement in (kind, "") else f"{kind}/{statement}"
        # Which process matches a report is chance: whichever comes to the step is struck.
        role = "matcher" if kind == "match_lock" else self._place.role
        most = often(kind, statement, turn=turn)
        return self._place.reach(f"{role} {name} {what}", most=most, turn=turn)

    async def _read_request(self, kind: str, raw: bytes) -> None:
        """Learn from a message of the client what it is about."""
        if kind == "P":
            name, text = raw[5:].split(b"\0")[:2]
            self._statement = _name_of(text.decode())
            self._prepared[name.decode()] = self._statement
            if not self._in_transaction or not self._kind:
                self._kind = "prepare"
        elif kind == "B":
            _, name = raw[5:].split(b"\0")[:2]
            self._statement = self._prepared.get(name.decode(), "?")
            await self._begin_kind(raw)
        elif kind == "Q":
            self._statement = _name_of(raw[5:].split(b"\0")[0].decode())
            if self._statement == "begin":
                self._kind = "begin"
            elif not self._in_transaction:
                self._kind = self._statement

    async def _begin_kind(self, bind: bytes) -> None:
        if not self._in_transaction:
            self._kind = self._statement
        elif self._kind in ("", "begin", "prepare") and self._statement not in LEAD_IN:
            self._kind = KINDS.get(self._statement, self._statement)
            if self._kind == "claim" and not await self._has_work(_first_text(bind)):
                self._kind = "poll"


def _name_of(text: str) -> str:
    """Return the name of a statement of ours, or its first words."""
    if found := _NAME.match(text):
        return found[1] if found[1] in statements() else "?"
    if "pg_type" in text or "typeinfo" in text or "'jit'" in text:
        return INTROSPECTION
    words = text.split(None, 3)
    known = {"SET": "keepalives", "COPY": "COPY", "COMMIT": "COMMIT", "ROLLBACK": "ROLLBACK"}
    head = words[0].rstrip(";").upper() if words else ""
    return known.get(head, head)


def _first_text(bind: bytes) -> str:
    """Return the first parameter of a Bind."""
    at = bind.index(b"\0", bind.index(b"\0", 5) + 1) + 1
    formats = int.from_bytes(bind[at : at + 2], "big")
    at += 2 + 2 * formats + 2
    size = int.from_bytes(bind[at : at + 4], "big")
    return bind[at + 4 : at + 4 + size].decode()


async def _messages(reader: asyncio.StreamReader, *, startup: bool = False) -> AsyncIterator[bytes]:
    """Yield messages until the end of the connection; the first of a client has no type."""
    buffer = b""
    at = 0
    try:
        while some := await reader.read(1 << 16):
            buffer = buffer[at:] + some
            at = 0
            while True:
                head = 0 if startup else 1
                if len(buffer) - at < head + 4:
                    break
                size = head + int.from_bytes(buffer[at + head : at + head + 4], "big")
                if len(buffer) - at < size:
                    break
                yield buffer[at : at + size]
                at += size
                startup = False
    except ConnectionError:
        return
