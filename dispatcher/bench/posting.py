"""Posts reports as fast as they are answered, with as little work of its own as may be.

Every connection is kept and has one post under way, as the provider's have.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import Final, cast
from urllib.parse import urlencode

from msgspec import Struct, json

from dispatcher.bench.results import percentile

PER_BATCH: Final = 500
SPREAD: Final = 20  # batches whose reports are under way at the same time


class Posted(Struct):
    """What came of it."""

    answered: int = 0  # with 200
    refused: int = 0
    seconds: float = 0.0
    p50: float = 0.0  # seconds from post to answer
    p99: float = 0.0


def order(batches: int) -> Iterator[int]:
    """Return the numbers of all messages, some batches in turn: carriers keep no order."""
    for first in range(0, batches, SPREAD):
        span = range(first, min(batches, first + SPREAD))
        for place in range(1, PER_BATCH + 1):
            for batch in span:
                yield batch * PER_BATCH + place


def post(number: int, path: str) -> bytes:
    """Return the whole request that reports message *number*."""
    body = urlencode(
        {
            "smsMsgId": f"bench-{number}",
            "total": "1",
            "sequence": "1",
            "status": "DELIVRD",
            "source": "2",
            "updateTime": "2026-11-22T06:31:46Z",
            "orgCode": "000",
            "extend": f"bench-{(number - 1) // PER_BATCH}",
            "to": f"+86138{number:08d}",
        }
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Run:
    """What all connections of a run share."""

    def __init__(self, requests: Iterator[bytes], seconds: float) -> None:
        self.requests = requests
        self.ends = monotonic() + seconds
        self.posted = Posted()
        self.waits: list[float] = []

    def next(self) -> bytes | None:
        """Return the next request, if there is time for one."""
        return next(self.requests, None) if monotonic() < self.ends else None


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._sent = 0.0
        self._got = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        request = self._run.next()
        if request is None:
            self._transport.close()
        else:
            self._sent = monotonic()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(b"}"):  # every answer is one JSON object
            return
        self._run.waits.append(monotonic() - self._sent)
        if self._got.startswith(b"HTTP/1.1 200 "):
            self._run.posted.answered += 1
        else:
            self._run.posted.refused += 1
        self._got = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(exc)


async def run(port: int, path: str, *, batches: int, seconds: float, connections: int) -> Posted:
    """Post until *seconds* are over or every message has been reported once."""
    requests = [post(number, path) for number in order(batches)]  # made before the clock runs
    print("ready", flush=True)  # noqa: T201 - the parent reads it
    shared = _Run(iter(requests), seconds)
    began = monotonic()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(shared), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.over for _, protocol in made))
    shared.posted.seconds = monotonic() - began
    shared.posted.p50 = percentile(shared.waits, 0.5)
    shared.posted.p99 = percentile(shared.waits, 0.99)
    return shared.posted


async def main(port: str, path: str, batches: str, seconds: str, connections: str) -> None:
    """Run once with arguments from a command line, and print what came of it as JSON."""
    posted = await run(
        int(port),
        path,
        batches=int(batches),
        seconds=float(seconds),
        connections=int(connections),
    )
    print(json.encode(posted).decode(), flush=True)  # noqa: T201 - the parent reads it
