"""Sends status reports when they are due, once each, and remembers what was answered."""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

import aiohttp
from msgspec import Struct

from dispatcher.simulator.bell import Bell
from dispatcher.simulator.ledger import Accepted
from dispatcher.simulator.reports.options import ReportOptions
from dispatcher.simulator.reports.plan import plan_reports
from dispatcher.simulator.reports.post import Post, posts


class Answered(Struct, frozen=True, gc=False, rename="camel"):
    """One report that was answered with 200: the receiver must have it."""

    sms_msg_id: str
    sequence: int
    status: str


class Reporter:
    """The platform's side of status reports. Off until options are set."""

    def __init__(self, *, bell: Bell, wall: Callable[[], float] = time.time) -> None:
        self.options: ReportOptions | None = None
        self.answers: Counter[str] = Counter()  # reports by HTTP status, or by what went wrong
        self.sent = 0  # reports that left, whatever became of them
        self.lost = 0  # reports that were never sent, as the options want it
        self._witness: list[tuple[str, str, str]] = []
        self._bell = bell
        self._wall = wall
        self._waves: list[tuple[float, int, Accepted, str | None]] = []  # a heap, by due time
        self._woken = asyncio.Event()
        self._queue: asyncio.Queue[Post] = asyncio.Queue(maxsize=1)
        self._under_way = 0  # posts between plan and answer
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    @property
    def waiting(self) -> int:
        """How many requests still have reports to come."""
        return len(self._waves)

    @property
    def idle(self) -> bool:
        """Whether every report that was due or planned has been answered or given up."""
        return not self._waves and not self._under_way

    def witness(self) -> Iterator[Answered]:
        """Each report that was answered with 200, in that order."""
        for sms_msg_id, sequence, status in self._witness:
            yield Answered(sms_msg_id, int(sequence), status)

    async def accept(self, accepted: Accepted, callback: str | None) -> None:
        """Plan the reports of a request; if they go before its answer, send them first."""
        options = self.options
        if options is None or (callback or options.batch_url) is None:
            return
        self._start(options)
        dice = self._dice(accepted, options, "when")
        if options.before_answer and dice.random() < options.before_answer:
            made = self._make(accepted, callback, options)
            self._under_way += len(made)
            await asyncio.gather(*[self._send(post, options) for post in made])
            return
        due = time.monotonic() + dice.uniform(*options.delay)
        heapq.heappush(self._waves, (due, accepted.serial, accepted, callback))
        self._woken.set()

    async def stop(self) -> None:
        """Drop what has not been sent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _start(self, options: ReportOptions) -> None:
        if self._session is not None:
            return
        connector = aiohttp.TCPConnector(limit=options.connections)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        self._queue = asyncio.Queue(maxsize=options.connections)
        self._tasks = [asyncio.create_task(self._release())]
        self._tasks += [asyncio.create_task(self._work()) for _ in range(options.connections)]

    async def _release(self) -> None:
        """Hand out the waves as they fall due."""
        while True:
            wait = self._waves[0][0] - time.monotonic() if self._waves else None
            if wait is None or wait > 0:
                self._woken.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                continue
            _, _, accepted, callback = self._waves[0]
            if self.options is None:  # switched off meanwhile
                heapq.heappop(self._waves)
                self._bell.ring()
                continue
            made = self._make(accepted, callback, self.options)
            self._under_way += len(made)
            heapq.heappop(self._waves)  # only now, so that idle never tells too early
            for post in made:
                await self._queue.put(post)
            self._bell.ring()

    async def _work(self) -> None:
        while True:
            post = await self._queue.get()
            await self._send(post, self.options or ReportOptions())

    async def _send(self, post: Post, options: ReportOptions) -> None:
        """Post it once; whatever is answered, it is not sent again."""
        if self._session is None:
            return
        body = post.body()
        # Not from when it waits for a free connection: that is no fault of who is to answer.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=options.timeout, sock_read=options.timeout
        )
        try:
            headers = post.headers(body, options, now=self._wall())
            async with self._session.post(
                post.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                await response.read()
                answer = str(response.status)
        except TimeoutError:
            answer = "timeout"
        except (ValueError, aiohttp.NonHttpUrlClientError):  # a callback may be any text
            answer = "no address"
        except aiohttp.ClientConnectorError:
            answer = "refused"
        except aiohttp.ClientError:
            answer = "cut"
        self.sent += len(post.reports)
        self.answers[answer] += len(post.reports)
        if answer == "200":
            self._witness += [
                (report.sms_msg_id, report.sequence, report.status) for report in post.reports
            ]
        self._under_way -= 1
        self._bell.ring()

    def _make(self, accepted: Accepted, callback: str | None, options: ReportOptions) -> list[Post]:
        updated = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        dice = self._dice(accepted, options, "what")
        plan = plan_reports(accepted, options, dice, updated=updated)
        self.lost += plan.lost
        return posts(callback, plan.reports, options)

    def _dice(self, accepted: Accepted, options: ReportOptions, purpose: str) -> Random:
        return Random(f"{options.seed}:{accepted.serial}:{purpose}")
