"""Posts reports at a steady pace, each once, and remembers which were answered 200.

As the provider does: one form a post, over kept connections, and whatever happens to a post, it
is not sent again. Sending takes so little that the machine is left to whom it is about.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

Report = tuple[str, int, str]  # provider id, segment, status

TICK = 0.005  # seconds
AGAIN = 0.05  # seconds between two tries to connect


class _Connection(asyncio.Protocol):
    def __init__(self, sender: "SteadySender") -> None:
        self._sender = sender
        self._transport: asyncio.WriteTransport | None = None
        self._under_way: Report | None = None
        self._got = b""
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self._transport = transport
        self._sender.free.append(self)

    def post(self, report: Report, request: bytes) -> None:
        self._under_way = report
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(b"}"):  # every answer is one JSON object
            return
        self._sender.answered(self._under_way, self._got[9:12].decode())
        self._under_way, self._got = None, b""
        self._sender.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._under_way is not None:
            self._sender.answered(self._under_way, "cut")
        elif self in self._sender.free:
            self._sender.free.remove(self)
        if not self.gone.done():  # nobody waits for it when sending is over
            self.gone.set_result(exc)


class SteadySender:
    """Sends reports to one address."""

    def __init__(self, port: int, path: str, *, connections: int = 64) -> None:
        self._port = port
        self._path = path
        self._connections = connections
        self.free: deque[_Connection] = deque()
        self.connected = 0
        self.witness: dict[tuple[str, int], str] = {}  # status by provider id and segment
        self.answers: Counter[str] = Counter()

    def answered(self, report: Report, answer: str) -> None:
        """Note the result of a post."""
        self.answers[answer] += 1
        if answer == "200":
            self.witness[report[:2]] = report[2]

    async def send(
        self, count: int, rate: float, form: Callable[[int], tuple[Report, bytes]]
    ) -> float:
        """Post *count* forms, *rate* a second; return the rate that was kept.

        It begins with the first connection, which takes a while on a machine with other work.
        What is due while nobody can be reached is lost, and what is due while every connection
        is busy waits.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            kept = [tasks.create_task(self._keep_connected()) for _ in range(self._connections)]
            async with asyncio.timeout(60):
                while not self.connected:  # noqa: ASYNC110 - connecting sets no event
                    await asyncio.sleep(TICK)
            began, sent = loop.time(), 0
            while sent < count:
                due = min(count, int((loop.time() - began) * rate))
                while sent < due and (self.free or not self.connected):
                    report, body = form(sent)
                    if self.free:
                        self.free.popleft().post(report, self._request(body))
                    else:
                        self.answered(report, "refused")
                    sent += 1
                await asyncio.sleep(TICK)
            kept_rate = count / (loop.time() - began)
            async with asyncio.timeout(60):
                while self.answers.total() < count:  # noqa: ASYNC110 - answers tell no event
                    await asyncio.sleep(TICK)
            for each in kept:
                each.cancel()
        return kept_rate

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                transport, one = await loop.create_connection(
                    lambda: _Connection(self), "127.0.0.1", self._port
                )
            except OSError:
                await asyncio.sleep(AGAIN)
                continue
            self.connected += 1
            try:
                await one.gone
            finally:
                self.connected -= 1
                transport.close()

    def _request(self, body: bytes) -> bytes:
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
