"""Sends each status report once when it is due, and records the answers."""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

import aiohttp
from msgspec import Struct

from dispatcher.simulator.billing import Bill
from dispatcher.simulator.ledger import AcceptedRequest
from dispatcher.simulator.listener import ChangeSignal
from dispatcher.simulator.options import ReportOptions
from dispatcher.simulator.reports import (
    ReplyPost,
    ReportPost,
    make_posts,
    make_replies,
    plan_reports,
)

Post = ReportPost | ReplyPost


class AcknowledgedReport(Struct, frozen=True, gc=False, rename="camel"):
    """A report that was answered with 200: the receiver must have stored it."""

    sms_msg_id: str
    sequence: int
    status: str


class ReportSender:
    """Sends the platform's status reports. It sends none until options are set."""

    def __init__(self, *, changes: ChangeSignal, wall: Callable[[], float] = time.time) -> None:
        self.options: ReportOptions | None = None
        self.answers: Counter[str] = Counter()  # reports by HTTP status or error
        self.sent = 0  # reports sent, with any result
        self.lost = 0  # reports dropped because of the option `lost`
        self.replies: Counter[str] = Counter()  # by HTTP status or error
        self.bill = Bill()
        self._acknowledged: list[tuple[str, str, str]] = []
        self._changes = changes
        self._wall = wall
        # A heap by due time: (due, serial, request, callback).
        self._scheduled: list[tuple[float, int, AcceptedRequest, str | None]] = []
        self._scheduled_changed = asyncio.Event()
        self._queue: asyncio.Queue[Post] = asyncio.Queue(maxsize=1)
        self._in_flight = 0  # posts not yet answered
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    @property
    def waiting(self) -> int:
        """The number of requests whose reports are not due yet."""
        return len(self._scheduled)

    @property
    def idle(self) -> bool:
        """Whether every report is answered or given up, and none is scheduled."""
        return not self._scheduled and not self._in_flight

    def acknowledged(self) -> Iterator[AcknowledgedReport]:
        """Yield the reports that were answered with 200, in the order of the answers."""
        for sms_msg_id, sequence, status in self._acknowledged:
            yield AcknowledgedReport(sms_msg_id, int(sequence), status)

    async def schedule(self, accepted: AcceptedRequest, callback: str | None) -> None:
        """Schedule the reports of a request, or send them now if the options say before_answer."""
        options = self.options
        if options is None or (callback or options.batch_url or options.reply_url) is None:
            return
        self._start(options)
        random = self._random(accepted, options, "when")
        if options.before_answer and random.random() < options.before_answer:
            posts = self._make_posts(accepted, callback, options)
            self._in_flight += len(posts)
            await asyncio.gather(*[self._send(post, options) for post in posts])
            return
        due = time.monotonic() + random.uniform(*options.delay)
        heapq.heappush(self._scheduled, (due, accepted.serial, accepted, callback))
        self._scheduled_changed.set()

    async def stop(self) -> None:
        """Stop sending and drop the reports that are left."""
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
        self._tasks = [asyncio.create_task(self._release_due())]
        self._tasks += [
            asyncio.create_task(self._send_queued()) for _ in range(options.connections)
        ]

    async def _release_due(self) -> None:
        """Queue the posts of each request when they are due."""
        while True:
            wait = self._scheduled[0][0] - time.monotonic() if self._scheduled else None
            if wait is None or wait > 0:
                self._scheduled_changed.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._scheduled_changed.wait()
                except TimeoutError:
                    pass
                continue
            _, _, accepted, callback = self._scheduled[0]
            if self.options is None:  # switched off in the meantime
                heapq.heappop(self._scheduled)
                self._changes.notify()
                continue
            posts = self._make_posts(accepted, callback, self.options)
            self._in_flight += len(posts)
            heapq.heappop(self._scheduled)  # after the count, so that idle is never true too early
            for post in posts:
                await self._queue.put(post)
            self._changes.notify()

    async def _send_queued(self) -> None:
        while True:
            post = await self._queue.get()
            await self._send(post, self.options or ReportOptions())

    async def _send(self, post: Post, options: ReportOptions) -> None:
        """Send *post* once and record the answer; it is never sent again."""
        if self._session is None:
            return
        body = post.body()
        # The wait for a free connection does not count: the receiver does not cause it.
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
        if isinstance(post, ReplyPost):
            self.replies[answer] += 1
        else:
            self._count(post, answer)
        self._in_flight -= 1
        self._changes.notify()

    def _count(self, post: ReportPost, answer: str) -> None:
        self.sent += len(post.reports)
        self.answers[answer] += len(post.reports)
        if answer == "200":
            self._acknowledged += [
                (report.sms_msg_id, report.sequence, report.status) for report in post.reports
            ]

    def _make_posts(
        self, accepted: AcceptedRequest, callback: str | None, options: ReportOptions
    ) -> list[Post]:
        updated = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        random = self._random(accepted, options, "what")
        plan = plan_reports(accepted, options, random, updated=updated)
        self.lost += plan.lost
        for row, status in plan.final:
            self.bill.note(row, status)
        replies = make_replies(accepted, options, self._random(accepted, options, "reply"))
        return [*make_posts(callback, plan.reports, options), *replies]

    def _random(self, accepted: AcceptedRequest, options: ReportOptions, purpose: str) -> Random:
        return Random(f"{options.seed}:{accepted.serial}:{purpose}")
