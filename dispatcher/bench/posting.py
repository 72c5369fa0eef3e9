"""Load generator: posts status reports as fast as they are answered.

``python -m dispatcher.bench.posting PORT PATH FIRST_BATCH BATCHES SECONDS CONNECTIONS`` prints a
line when it starts and a PostResult as JSON when it ends. It does as little work as possible:
requests are encoded before it starts, and each kept connection has one request in flight, as the
provider's connections have.
"""

import asyncio
import sys
from collections.abc import Iterator
from hashlib import md5
from time import monotonic
from typing import Final, cast
from urllib.parse import urlencode
from uuid import UUID

import uvloop
from msgspec import Struct, field, json

from dispatcher.service.run import collect_rarely

REPORTS_PER_BATCH: Final = 500
INTERLEAVED_BATCHES: Final = 20  # whose reports arrive mixed


class PostResult(Struct):
    """Answers to the reports of one or more runs."""

    answered: int = 0  # with 200
    refused: int = 0
    seconds: float = 0.0
    wait_counts: dict[int, int] = field(default_factory=dict)  # by milliseconds to the answer
    answered_by_second: list[int] = []

    def wait_percentile(self, share: float) -> int:
        """Return the milliseconds within which *share* of the reports were answered."""
        left = share * sum(self.wait_counts.values())
        for milliseconds, count in sorted(self.wait_counts.items()):
            left -= count
            if left <= 0:
                return milliseconds
        return 0

    def add(self, more: "PostResult") -> None:
        """Add the result of another run."""
        self.answered += more.answered
        self.refused += more.refused
        self.seconds += more.seconds
        for milliseconds, count in more.wait_counts.items():
            self.wait_counts[milliseconds] = self.wait_counts.get(milliseconds, 0) + count
        self.answered_by_second += more.answered_by_second


def report_order(first: int, batches: int) -> Iterator[int]:
    """Yield the message numbers of *batches* from batch *first* on.

    Reports of several batches are interleaved, because carriers keep no order.
    """
    end = first + batches
    for begin in range(first, end, INTERLEAVED_BATCHES):
        span = range(begin, min(end, begin + INTERLEAVED_BATCHES))
        for place in range(1, REPORTS_PER_BATCH + 1):
            for batch in span:
                yield batch * REPORTS_PER_BATCH + place


def provider_id(number: int) -> str:
    """Return the provider id of message *number* (see query load_accepted_batches)."""
    return f"{UUID(bytes=md5(str(number).encode(), usedforsecurity=False).digest())}_1"


def encode_request(number: int, path: str) -> bytes:
    """Return the HTTP request that reports message *number*."""
    body = urlencode(
        {
            "smsMsgId": provider_id(number),
            "total": "1",
            "sequence": "1",
            "status": "DELIVRD",
            "source": "2",
            "updateTime": "2026-11-22T06:31:46Z",
            "orgCode": "000",
            "extend": f"bench-{(number - 1) // REPORTS_PER_BATCH}",
            "to": f"+86138{number:08d}",
        }
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Run:
    """State shared by all connections of a run."""

    def __init__(self, requests: Iterator[bytes], seconds: float) -> None:
        self.requests = requests
        self.started_at = monotonic()
        self.ends_at = self.started_at + seconds
        self.posted = PostResult(answered_by_second=[0] * max(1, int(seconds)))

    def next_request(self) -> bytes | None:
        """Return the next request, or None when the time or the requests are over."""
        return next(self.requests, None) if monotonic() < self.ends_at else None

    def record_answer(self, waited: float, now: float) -> None:
        """Record an answer with status 200 after *waited* seconds."""
        milliseconds = round(waited * 1000)
        self.posted.wait_counts[milliseconds] = self.posted.wait_counts.get(milliseconds, 0) + 1
        self.posted.answered += 1
        second = int(now - self.started_at)
        if second < len(self.posted.answered_by_second):
            self.posted.answered_by_second[second] += 1


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._sent_at = 0.0
        self._received = b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        request = self._run.next_request()
        if request is None:
            self._transport.close()
        else:
            self._sent_at = monotonic()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"}"):  # every answer is one JSON object
            return
        now = monotonic()
        if self._received.startswith(b"HTTP/1.1 200 "):
            self._run.record_answer(now - self._sent_at, now)
        else:
            self._run.posted.refused += 1
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)


async def run(
    port: int, path: str, *, first: int, batches: int, seconds: float, connections: int
) -> PostResult:
    """Post until *seconds* are over or every message of *batches* is reported once."""
    requests = [
        encode_request(number, path) for number in report_order(first, batches)
    ]  # before the clock runs
    print("ready", flush=True)  # noqa: T201 - the parent reads it
    shared = _Run(iter(requests), seconds)
    began = monotonic()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(shared), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.closed for _, protocol in made))
    shared.posted.seconds = monotonic() - began
    return shared.posted


async def main(port: str, path: str, *numbers: str) -> None:
    """Run with the arguments of a command line; print the result as JSON."""
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
    await asyncio.to_thread(sys.stdin.read)  # its processor time is read now


if __name__ == "__main__":
    collect_rarely()
    uvloop.run(main(*sys.argv[1:]))
