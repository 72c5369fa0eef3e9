"""Answers plain POSTs on a few known addresses itself, and hands everything else over to aiohttp.

aiohttp's parser, router and response take longer than all that is done with a report. A plain POST
leaves nothing to interpret: its request line is known byte for byte, its head is complete when its
first bytes arrive, is ASCII, repeats no header, gives a length, and asks for nothing special. With
the first request that is not plain, the connection is aiohttp's for the rest of its life, from the
first byte of that request on. So all limits of aiohttp apply to what is odd.
"""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final, cast

import structlog
from aiohttp import web
from msgspec import Struct

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES: Final = 8000  # below the limits of aiohttp
MAX_PLAIN_BODY_BYTES: Final = 256 * 1024  # a longer one is aiohttp's to refuse
BODY_WAIT_SECONDS: Final = 1.0  # for a body that comes after its head; then aiohttp waits for it
MAX_UNREAD_BYTES: Final = 256 * 1024  # of requests behind the one that is being answered
UNREAD_ANSWERS_SECONDS: Final = 30.0  # until a client that reads no answers is cut off
KEEP_ALIVE_SECONDS: Final = 3630.0  # without a request; as aiohttp
DRAIN_POLL_SECONDS: Final = 0.02  # between two looks whether requests are still answered

# Names are tokens (RFC 9110, 5.6.2); values are printable ASCII.
_HEADERS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)+")
_NOT_PLAIN: Final = frozenset(("transfer-encoding", "content-encoding", "expect", "upgrade"))


class Post(Struct, frozen=True):
    """A POST that has arrived as a whole."""

    peer: str | None  # the address of the other end
    path: str  # as it was sent
    query: str  # as it was sent
    headers: Mapping[str, str]  # names in lower case; of a repeated one the last value
    forwarded: list[str]  # all values of X-Forwarded-For
    body: bytes


class Answer(Struct, frozen=True):
    """An answer in JSON."""

    status: int
    body: bytes


class DirectRoute(web.AbstractRouteDef):
    """A route whose plain POSTs to known paths are answered without aiohttp."""

    def __init__(
        self,
        paths: Iterable[str],
        answer: Callable[[Post], Awaitable[Answer]],
        *,
        otherwise: web.RouteDef,
    ) -> None:
        """Answer plain POSTs to *paths*; requests that are not plain go *otherwise*."""
        self.answer = answer
        self.request_lines = {path: f"POST {path} HTTP/1.1".encode() for path in paths}
        self._otherwise = otherwise

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        """Add what is not plain to the routes of aiohttp."""
        return self._otherwise.register(router)


class DirectServer:
    """Makes the protocol of each new connection, and knows those that are not aiohttp's yet."""

    def __init__(
        self, routes: Iterable[DirectRoute], fallback: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Serve *routes*; *fallback* makes the protocol for everything else."""
        self._routes = [
            (line, path, route) for route in routes for path, line in route.request_lines.items()
        ]
        self.fallback = fallback
        self.connections: set[DirectConnection] = set()
        self._date = (0, b"")  # the second, and its header

    def __call__(self) -> "DirectConnection":
        """Return the protocol of a new connection."""
        return DirectConnection(self)

    def route_of(self, request_line: bytes) -> tuple[str, DirectRoute] | None:
        """Return the path and the route of a request line; None if it is of no such route."""
        for line, path, route in self._routes:
            if hmac.compare_digest(line, request_line):  # a path holds a secret
                return path, route
        return None

    def date_header(self) -> bytes:
        """Return the Date header of an answer, made once a second."""
        now = int(time())
        if self._date[0] != now:
            self._date = now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._date[1]

    def close_silent(self, now: float, silent_seconds: float) -> None:
        """Close connections without a first answer for *silent_seconds*, or idle for an hour."""
        for connection in tuple(self.connections):
            limit = KEEP_ALIVE_SECONDS if connection.answered else silent_seconds
            if not connection.is_busy and now - connection.quiet_since > limit:
                connection.close()

    async def drain(self, seconds: float) -> None:
        """Close all connections, each after its current request, within *seconds*."""
        for connection in tuple(self.connections):
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(one.is_busy for one in self.connections):  # noqa: ASYNC110 - once, at a stop
                    await asyncio.sleep(DRAIN_POLL_SECONDS)


class DirectConnection(asyncio.Protocol):
    """One connection, until its first request that is not plain."""

    __slots__ = (
        "_closing",
        "_loop",
        "_peer",
        "_received",
        "_server",
        "_timer",
        "_transport",
        "_write_paused",
        "answered",
        "answering",
        "quiet_since",
    )

    def __init__(self, server: DirectServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._received = b""
        # Of a body that is on its way, or of answers that are not read: never of both.
        self._timer: asyncio.TimerHandle | None = None
        self._write_paused = False
        self._closing = False
        self.answered = False  # at least once
        self.answering: asyncio.Task[Answer] | None = None
        self.quiet_since = self._loop.time()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered, or its body is on its way."""
        return self.answering is not None or bool(self._received and not self._write_paused)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the other end."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else None
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; what is being stored is stored all the same."""
        del exc
        self._closing = True
        self._stop_timer()
        self._server.connections.discard(self)

    def pause_writing(self) -> None:
        """Read and answer no more for a client that does not read its answers; then cut it off."""
        self._write_paused = True
        self._transport.pause_reading()
        self._timer = self._loop.call_later(UNREAD_ANSWERS_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """Continue to answer and to read."""
        self._write_paused = False
        self._stop_timer()
        if not self._transport.is_closing():
            if self._received:
                self._serve_next()
            else:
                self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer the request that these bytes complete, unless one is being answered."""
        self._received = self._received + data if self._received else data
        if self.answering is None and not self._write_paused:
            self._serve_next()
        elif len(self._received) > MAX_UNREAD_BYTES:
            self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection, after the current request."""
        self._closing = True
        if self.is_busy:
            self._stop_timer()  # aiohttp reads no more of a body once it stops
        else:
            self._transport.close()

    def _serve_next(self) -> None:
        """Begin to answer the next plain request, or hand the connection over.

        Read on only while little waits: each read brings more than one short request.
        """
        data = self._received
        line = data[: data.find(b"\r\n")]
        found = self._server.route_of(line)
        if found is None:
            self._hand_over()
            return
        path, route = found
        head_end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        headers = read_headers(data[len(line) + 2 : head_end + 2]) if head_end > 0 else None
        if headers is None:
            self._hand_over()
            return
        begin = head_end + 4
        end = begin + int(headers["content-length"])
        if len(data) < end:
            self._transport.resume_reading()
            if self._timer is None and not self._closing:
                self._timer = self._loop.call_later(BODY_WAIT_SECONDS, self._hand_over)
            return
        self._stop_timer()
        self._received = data[end:]
        if len(self._received) <= MAX_UNREAD_BYTES:
            self._transport.resume_reading()
        forwarded = headers.get("x-forwarded-for")
        post = Post(
            self._peer,
            path,
            "",
            headers,
            [] if forwarded is None else [forwarded],
            data[begin:end],
        )
        self.answering = self._loop.create_task(_answer(route, post))
        self.answering.add_done_callback(self._write)

    def _write(self, task: asyncio.Task[Answer]) -> None:
        """Write the answer, and serve the request behind it."""
        self.answering = None
        self.answered = True
        self.quiet_since = self._loop.time()
        if task.cancelled() or (error := task.exception()) is not None:
            if not task.cancelled():
                log.error("a post failed", why=type(error).__name__, exc_info=error)
            answer = Answer(500, b"{}")
            self._closing = True
        else:
            answer = task.result()
        if self._transport.is_closing():
            return
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
            % (
                answer.status,
                HTTPStatus(answer.status).phrase.encode(),
                len(answer.body),
                self._server.date_header(),
                answer.body,
            )
        )
        if self._closing:
            self._transport.close()
        elif self._received and not self._write_paused:
            self._serve_next()

    def _hand_over(self) -> None:
        """Give the connection to aiohttp, with what has arrived of the next request."""
        self._stop_timer()
        self._server.connections.discard(self)
        protocol = cast("asyncio.Protocol", self._server.fallback())
        self._transport.resume_reading()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._received)
        self._received = b""

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _answer(route: DirectRoute, post: Post) -> Answer:
    return await route.answer(post)


def read_headers(head: bytes) -> dict[str, str] | None:
    """Return the headers of a plain request, names in lower case; None if it is not plain.

    *head* is what follows the request line, each header with its line end.
    """
    if _HEADERS.fullmatch(head) is None:
        return None
    lines = head.decode("ascii").split("\r\n")
    lines.pop()  # what follows the last line end
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    length = headers.get("content-length", "")
    if (
        len(headers) < len(lines)
        or "host" not in headers
        or not _NOT_PLAIN.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or not length.isdecimal()
        or len(length) > len(str(MAX_PLAIN_BODY_BYTES))
        or int(length) > MAX_PLAIN_BODY_BYTES
    ):
        return None
    return headers
