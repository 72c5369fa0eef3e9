"""Stores reports and replies before they are answered: in the database, or on disk if it is away.

Reports that arrive together share one commit: while a commit runs, the next reports gather. If the
database is unavailable they go to the spool, synced to disk, and from there into the database
later; no post waits longer than one commit may take.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.reply import UplinkReply
from dispatcher.core.report import Report
from dispatcher.db import replies, reports
from dispatcher.db.database import Database, UnstorableError
from dispatcher.db.replies import ReceivedReply
from dispatcher.db.reports import REPORTS_PATH
from dispatcher.db.spool import REPORTS_KIND, Spool, SpoolFile, orphaned_files
from dispatcher.telemetry import ReportMetrics

log = structlog.get_logger(__name__)

SPOOL_KIND: Final = REPORTS_KIND
MAX_COMMIT_REPORTS: Final = 1000  # in one commit
MAX_COMMITS: Final = 2  # at a time, if they are slow; the next waits for a fast one
SLOW_COMMIT_SECONDS: Final = 0.01
MAX_WAITING_POSTS: Final = 2000  # in the queue; more wait for room in it
QUEUE_TIMEOUT_SECONDS: Final = 20.0  # for a post to get into the queue
RETRY_SECONDS: Final = 1.0  # until a database that was unavailable is tried again
REPLAY_INTERVAL_SECONDS: Final = 1.0  # between two searches for spooled reports


class ReceivedReport(Struct, frozen=True, gc=False):
    """A report and when it arrived, by this machine's clock."""

    report: Report
    at: float  # seconds since 1970

    @property
    def raw(self) -> str:
        """All fields as a JSON object."""
        return self.report.raw


Received = ReceivedReport | ReceivedReply


class ReceivedPush(Struct, frozen=True):
    """A push that cannot be read, as it came, and when."""

    body: bytes
    content_type: str
    reason: str
    at: float  # seconds since 1970
    path: str = REPORTS_PATH  # where it came, without the token


class Stored(Struct, frozen=True):
    """The reports are safe."""


class NotStored(Struct, frozen=True):
    """The reports are not safe, and must not be answered as if they were."""

    why: str
    status: int = 503


class _Post(Struct):
    arrived: list[Received]
    result: asyncio.Future[Stored | NotStored]


class Intake:
    """Stores reports and replies: `run` writes them, `keep` adds those of one post."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        metrics: ReportMetrics | None = None,
        *,
        verified: bool = False,
    ) -> None:
        """Store in *database*, or in *folder*; *verified*: the receiver takes nothing else."""
        self._database = database
        self._metrics = metrics or ReportMetrics()
        self._folder = folder
        self._verified = verified
        self._spool = Spool(folder, SPOOL_KIND)
        self._spool_lock = asyncio.Lock()  # a file is not closed while it is being written
        self._waiting: asyncio.Queue[_Post] = asyncio.Queue(MAX_WAITING_POSTS)
        self._unreadable_lock = asyncio.Lock()
        self._retry_at = 0.0
        self._committing = 0
        self._took = 0.0  # seconds for the last commit

    async def keep(self, received: Sequence[Report]) -> Stored | NotStored:
        """Return when *received* are stored, or cannot be."""
        now = time.time()
        return await self._keep([ReceivedReport(report, now) for report in received])

    async def keep_replies(self, received: Sequence[UplinkReply], app: str) -> Stored | NotStored:
        """Return when *received* are stored, or cannot be; *app* is the one of their address."""
        now = time.time()
        return await self._keep(
            [ReceivedReply(reply, app, now, self._verified) for reply in received]
        )

    async def _keep(self, arrived: list[Received]) -> Stored | NotStored:
        result: asyncio.Future[Stored | NotStored] = asyncio.get_running_loop().create_future()
        post = _Post(arrived, result)
        if self._waiting.full():
            try:
                async with asyncio.timeout(QUEUE_TIMEOUT_SECONDS):
                    await self._waiting.put(post)
            except TimeoutError:
                return NotStored("Too many reports wait to be stored.")
        else:
            self._waiting.put_nowait(post)
        # No time-out here, it would cost as much as all of this: the transaction has one.
        return await result

    async def keep_unreadable(
        self, body: bytes, content_type: str, reason: str, path: str = REPORTS_PATH
    ) -> Stored | NotStored:
        """Return when a push that cannot be read is stored as it came, or cannot be."""
        push = ReceivedPush(body, content_type, reason, time.time(), path)
        async with self._unreadable_lock:  # a flood of them must not take the reports' connections
            try:
                await self._write_push(push)
            except DatabaseUnavailable:
                return await self._write_spool([push])
        self._metrics.unreadable()
        return Stored()

    async def _write_push(self, push: ReceivedPush) -> None:
        if time.monotonic() < self._retry_at:
            raise DatabaseUnavailable("the database was away a moment ago")
        age = max(0.0, time.time() - push.at)
        await reports.keep_unreadable(
            self._database, push.body, push.content_type, push.reason, age=age, path=push.path
        )

    async def run(self) -> None:
        """Store the reports that gather, and those that were spooled; never ends."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replay_for_ever())
            for _ in range(MAX_COMMITS):
                tasks.create_task(self._store_for_ever())

    async def _store_for_ever(self) -> None:
        while True:
            posts = [await self._waiting.get()]
            if self._committing and self._took < SLOW_COMMIT_SECONDS:
                await asyncio.sleep(SLOW_COMMIT_SECONDS)
            count = len(posts[0].arrived)
            while count < MAX_COMMIT_REPORTS and not self._waiting.empty():
                posts.append(self._waiting.get_nowait())
                count += len(posts[-1].arrived)
            began = time.monotonic()
            self._committing += 1
            await self._store(posts)
            self._committing -= 1
            self._took = time.monotonic() - began

    async def _store(self, posts: list[_Post]) -> None:
        arrived = [one for post in posts for one in post.arrived]
        try:
            await self._write(arrived)
        except DatabaseUnavailable:
            result = await self._write_spool(arrived)
            if isinstance(result, NotStored):
                _answer(posts, result)
            else:
                self._answer_stored(posts, "disk")
        except UnstorableError as error:
            if len(posts) > 1:  # one bad report must not keep the others from being stored
                for post in posts:
                    await self._store([post])
            else:
                _answer(posts, await self._keep_refused(posts[0].arrived, str(error)))
        else:
            self._answer_stored(posts, "database")

    async def _keep_refused(self, arrived: Sequence[Received], why: str) -> Stored | NotStored:
        """Store the reports of a post that the database refuses, each by itself, else as text."""
        if len(arrived) == 1:
            raw = arrived[0].raw.encode(errors="replace")
            return await self.keep_unreadable(raw, "application/json", why, _path(arrived[0]))
        for one in arrived:
            try:
                await self._write([one])
                kept: Stored | NotStored = Stored()
            except UnstorableError as error:
                kept = await self._keep_refused([one], str(error))
            except DatabaseUnavailable:
                kept = await self._write_spool([one])
            if isinstance(kept, NotStored):
                return kept
        return Stored()

    def _answer_stored(self, posts: Sequence[_Post], place: str) -> None:
        _answer(posts, Stored())
        now = time.time()
        arrived = [one for post in posts for one in post.arrived]
        answers = sum(isinstance(one, ReceivedReply) for one in arrived)
        waits = [now - post.arrived[0].at for post in posts]
        self._metrics.taken(place, len(arrived) - answers, answers, waits)
        self._metrics.carried(
            one.at - one.report.updated_at.timestamp()
            for one in arrived
            if isinstance(one, ReceivedReport) and one.report.updated_at is not None
        )

    async def _write(self, arrived: Sequence[Received]) -> None:
        if time.monotonic() < self._retry_at:
            raise DatabaseUnavailable("the database was away a moment ago")
        try:
            now = time.time()
            aged = [
                (one.report, max(0.0, now - one.at))
                for one in arrived
                if isinstance(one, ReceivedReport)
            ]
            news = await reports.store(self._database, aged)
            if len(aged) < len(arrived):
                answered = [one for one in arrived if isinstance(one, ReceivedReply)]
                news += await replies.store(self._database, answered, now=now)
        except DatabaseUnavailable as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            log.warning("reports go to disk: the database is away", why=str(error))
            raise
        self._metrics.repeated(len(arrived) - news)

    async def _write_spool(self, arrived: Sequence[Received | ReceivedPush]) -> Stored | NotStored:
        records = [msgspec.json.encode(one) for one in arrived]
        try:
            async with self._spool_lock:
                await asyncio.to_thread(self._spool.append, records)
        except OSError as error:
            why = error.strerror
        else:
            return Stored()
        log.error(
            "reports are refused: neither database nor disk can take them",
            folder=str(self._folder),
            reports=len(records),
            why=why,
        )
        return NotStored("Neither the database nor the disk can take reports now.")

    async def _replay_for_ever(self) -> None:
        while True:
            if time.monotonic() >= self._retry_at:
                await self.replay_spool()
            await asyncio.sleep(REPLAY_INTERVAL_SECONDS)

    async def replay_spool(self) -> None:
        """Store what this process, or a dead one, has spooled."""
        async with self._spool_lock:
            self._spool.close()
        try:
            while await self._replay_files():
                pass
        except DatabaseUnavailable:
            pass  # the files stay
        except OSError as error:
            log.warning("spooled reports cannot be read", folder=str(self._folder), why=str(error))

    async def _replay_files(self) -> int:
        with orphaned_files(self._folder, SPOOL_KIND) as files:
            for file in files:
                await self._replay_file(file)
        return len(files)

    async def _replay_file(self, file: SpoolFile) -> None:
        decoded = [one for one in map(_decode, file.records) if one is not None]
        file.damaged = file.damaged or len(decoded) < len(file.records)
        arrived = [one for one in decoded if not isinstance(one, ReceivedPush)]
        if file.damaged:
            log.error("a file of spooled reports is damaged, and set aside", path=str(file.path))
        for push in decoded:
            if isinstance(push, ReceivedPush):
                await self._write_push(push)
        for start in range(0, len(arrived), MAX_COMMIT_REPORTS):
            await self._replay_reports(arrived[start : start + MAX_COMMIT_REPORTS])
        if arrived:
            log.info("spooled reports stored", reports=len(arrived))

    async def _replay_reports(self, arrived: Sequence[Received]) -> None:
        try:
            await self._write(arrived)
        except UnstorableError as error:
            if len(arrived) == 1:
                (one,) = arrived
                raw = one.raw.encode(errors="replace")
                await self._write_push(
                    ReceivedPush(raw, "application/json", str(error), one.at, _path(one))
                )
                return
            for one in arrived:
                await self._replay_reports([one])


def _path(one: Received) -> str:
    """Return where it came, without the token."""
    if isinstance(one, ReceivedReport):
        return REPORTS_PATH
    return f"{replies.REPLIES_PATH}/{one.app}" if one.app else replies.REPLIES_PATH


def _decode(record: bytes) -> Received | ReceivedPush | None:
    """Decode a record; None if it is not one of this release."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(record, type=ReceivedReport)
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(record, type=ReceivedReply)
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(record, type=ReceivedPush)
    return None


def _answer(posts: Sequence[_Post], result: Stored | NotStored) -> None:
    for post in posts:
        if not post.result.done():  # it may have waited too long
            post.result.set_result(result)
