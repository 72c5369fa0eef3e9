"""Posts reports as fast as they are answered, with as little work of its own as may be.

Every connection is kept and has one post under way, as the provider's have.
"""

import asyncio
from collections.abc import Iterator
from hashlib import md5
from time import monotonic
from typing import Final, cast
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct, field, json

PER_BATCH: Final = 500
SPREAD: Final = 20  # batches whose reports are under way at the same time


class Posted(Struct):
    """What came of it."""

    answered: int = 0  # with 200
    refused: int = 0
    seconds: float = 0.0
    waits: dict[int, int] = field(default_factory=dict)  # how many by milliseconds to the answer
    each: list[int] = []  # answered in each whole second

    def wait(self, share: float) -> int:
        """Return the milliseconds within which *share* of the reports were answered."""
        left = share * sum(self.waits.values())
        for milliseconds, count in sorted(self.waits.items()):
            left -= count
            if left <= 0:
                return milliseconds
        return 0

    def add(self, more: "Posted") -> None:
        """Add what another run came to."""
        self.answered += more.answered
        self.refused += more.refused
        self.seconds += more.seconds
        for milliseconds, count in more.waits.items():
            self.waits[milliseconds] = self.waits.get(milliseconds, 0) + count
        self.each += more.each


def order(first: int, batches: int) -> Iterator[int]:
    """Return the numbers of the messages of so many batches from batch *first* on.

    Some batches in turn: carriers keep no order.
    """
    end = first + batches
    for begin in range(first, end, SPREAD):
        span = range(begin, min(end, begin + SPREAD))
        for place in range(1, PER_BATCH + 1):
            for batch in span:
                yield batch * PER_BATCH + place


def provider_id(number: int) -> str:
    """Return the id of message *number*, as random as the provider's (see load_reported.sql)."""
    return f"{UUID(bytes=md5(str(number).encode(), usedforsecurity=False).digest())}_1"


def post(number: int, path: str) -> bytes:
    """Return the whole request that reports message *number*."""
    body = urlencode(
        {
            "smsMsgId": provider_id(number),
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
        self.began = monotonic()
        self.ends = self.began + seconds
        self.posted = Posted(each=[0] * max(1, int(seconds)))

    def next(self) -> bytes | None:
        """Return the next request, if there is time for one."""
        return next(self.requests, None) if monotonic() < self.ends else None

    def answered(self, waited: float, now: float) -> None:
        """Note a report that was taken, after so many seconds."""
        milliseconds = round(waited * 1000)
        self.posted.waits[milliseconds] = self.posted.waits.get(milliseconds, 0) + 1
        self.posted.answered += 1
        second = int(now - self.began)
        if second < len(self.posted.each):
            self.posted.each[second] += 1


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
        now = monotonic()
        if self._got.startswith(b"HTTP/1.1 200 "):
            self._run.answered(now - self._sent, now)
        else:
            self._run.posted.refused += 1
        self._got = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(exc)


async def run(
    port: int, path: str, *, first: int, batches: int, seconds: float, connections: int
) -> Posted:
    """Post until *seconds* are over or every message of *batches* has been reported once."""
    requests = [post(number, path) for number in order(first, batches)]  # before the clock runs
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
    return shared.posted


async def main(port: str, path: str, *numbers: str) -> None:
    """Run once with arguments from a command line, and print what came of it as JSON."""
    first, batches, seconds, connections = numbers
    posted = await run(
        int(port),
        path,
        first=int(first),
        batches=int(batches),
        seconds=float(seconds),
        connections=int(connections),
    )
    print(json.encode(posted).decode(), flush=True)  # noqa: T201 - the parent reads it
