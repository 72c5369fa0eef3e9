"""Keeps reports before they are answered: in the database, else on disk, else not at all.

Reports that come together share one commit: while some are under way the next gather. If the
database cannot take them they go to the spool, synced to disk, and from there into the database
when it is back; nobody waits for it longer than one commit may take.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report import Report
from dispatcher.db import reports
from dispatcher.db.database import Database
from dispatcher.db.reports import UnfitError
from dispatcher.db.spool import Spool, SpoolFile, orphaned_files
from dispatcher.telemetry import ReportMetrics

log = structlog.get_logger(__name__)

KIND: Final = "reports"  # of the spool files
MOST: Final = 1000  # reports in one commit
AT_ONCE: Final = 2  # commits under way, where they are slow; a fast one is waited for
SLOW: Final = 0.01  # seconds
MOST_WAITING: Final = 2000  # posts; more wait before they are even noted
LONGEST_WAIT: Final = 20.0  # seconds a post waits to be noted
AWAY_FOR: Final = 1.0  # seconds a database that was away is not asked again
TAKE_UP_EVERY: Final = 1.0  # seconds between two looks for spooled reports


class ReceivedReport(Struct, frozen=True, gc=False):
    """A report and when it came, by this machine's clock."""

    report: Report
    at: float  # seconds since 1970


class Stored(Struct, frozen=True):
    """The reports are safe."""


class NotStored(Struct, frozen=True):
    """The reports are not safe, and must not be answered as if they were."""

    why: str
    status: int = 503


class _Post(Struct):
    arrived: list[ReceivedReport]
    result: asyncio.Future[Stored | NotStored]


class Intake:
    """What a receiver does with sound reports. `run` works; `keep` is called for each post."""

    def __init__(
        self, database: Database, folder: Path, metrics: ReportMetrics | None = None
    ) -> None:
        self._database = database
        self._metrics = metrics or ReportMetrics()
        self._folder = folder
        self._spool = Spool(folder, KIND)
        self._spool_lock = asyncio.Lock()  # a file is not given up while it is being written
        self._waiting: asyncio.Queue[_Post] = asyncio.Queue(MOST_WAITING)
        self._away_until = 0.0
        self._committing = 0
        self._took = 0.0  # seconds, by the last commit

    async def keep(self, received: Sequence[Report]) -> Stored | NotStored:
        """Return when *received* are safe, or will not be."""
        now = time.time()
        result: asyncio.Future[Stored | NotStored] = asyncio.get_running_loop().create_future()
        post = _Post([ReceivedReport(report, now) for report in received], result)
        if self._waiting.full():
            try:
                async with asyncio.timeout(LONGEST_WAIT):
                    await self._waiting.put(post)
            except TimeoutError:
                return NotStored("Too many reports wait to be stored.")
        else:
            self._waiting.put_nowait(post)
        # Without a time-out, which would cost as much as all of this: the store has one.
        return await result

    async def run(self) -> None:
        """Keep what gathers, and take up what was spooled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_up_for_ever())
            for _ in range(AT_ONCE):
                tasks.create_task(self._keep_for_ever())

    async def _keep_for_ever(self) -> None:
        while True:
            posts = [await self._waiting.get()]
            if self._committing and self._took < SLOW:
                await asyncio.sleep(SLOW)
            count = len(posts[0].arrived)
            while count < MOST and not self._waiting.empty():
                posts.append(self._waiting.get_nowait())
                count += len(posts[-1].arrived)
            began = time.monotonic()
            self._committing += 1
            await self._keep(posts)
            self._committing -= 1
            self._took = time.monotonic() - began

    async def _keep(self, posts: list[_Post]) -> None:
        arrived = [one for post in posts for one in post.arrived]
        try:
            await self._write(arrived)
        except DatabaseUnavailable:
            result = await self._spooled(arrived)
            if isinstance(result, NotStored):
                _tell(posts, result)
            else:
                self._tell_kept(posts, "disk")
        except UnfitError as error:
            if len(posts) == 1:
                _tell(posts, NotStored(str(error), 400))
                return
            # One bad report must not take the others with it.
            for post in posts:
                await self._keep([post])
        else:
            self._tell_kept(posts, "database")

    def _tell_kept(self, posts: Sequence[_Post], place: str) -> None:
        _tell(posts, Stored())
        now = time.time()
        count = sum(len(post.arrived) for post in posts)
        self._metrics.taken(place, count, (now - post.arrived[0].at for post in posts))
        self._metrics.carried(
            one.at - one.report.updated_at.timestamp()
            for post in posts
            for one in post.arrived
            if one.report.updated_at is not None
        )

    async def _write(self, arrived: Sequence[ReceivedReport]) -> None:
        if time.monotonic() < self._away_until:
            raise DatabaseUnavailable("the database was away a moment ago")
        try:
            now = time.time()
            aged = [(one.report, max(0.0, now - one.at)) for one in arrived]
            news = await reports.store(self._database, aged)
        except DatabaseUnavailable as error:
            self._away_until = time.monotonic() + AWAY_FOR
            log.warning("reports go to disk: the database is away", why=str(error))
            raise
        self._metrics.repeated(len(arrived) - news)

    async def _spooled(self, arrived: Sequence[ReceivedReport]) -> Stored | NotStored:
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

    async def _take_up_for_ever(self) -> None:
        while True:
            if time.monotonic() >= self._away_until:
                await self.replay_spool()
            await asyncio.sleep(TAKE_UP_EVERY)

    async def replay_spool(self) -> None:
        """Store what this process, or one that is dead, has spooled."""
        async with self._spool_lock:
            self._spool.close()
        try:
            while await self._take_up_files():
                pass
        except DatabaseUnavailable:
            pass  # the files stay
        except OSError as error:
            log.warning("spooled reports cannot be read", folder=str(self._folder), why=str(error))

    async def _take_up_files(self) -> int:
        with orphaned_files(self._folder, KIND) as files:
            for file in files:
                await self._take_up_file(file)
        return len(files)

    async def _take_up_file(self, file: SpoolFile) -> None:
        arrived = [one for one in map(_thawed, file.records) if one is not None]
        file.damaged = file.damaged or len(arrived) < len(file.records)
        if file.damaged:
            log.error("a file of spooled reports is damaged, and set aside", path=str(file.path))
        for start in range(0, len(arrived), MOST):
            await self._take_up_some(arrived[start : start + MOST])
        if arrived:
            log.info("spooled reports stored", reports=len(arrived))

    async def _take_up_some(self, arrived: Sequence[ReceivedReport]) -> None:
        try:
            await self._write(arrived)
        except UnfitError as error:
            if len(arrived) == 1:
                log.error(  # noqa: TRY400 - the refusal is known, a traceback says no more
                    "a spooled report is dropped: the database refuses it", why=str(error)
                )
                return
            for one in arrived:
                await self._take_up_some([one])


def _thawed(record: bytes) -> ReceivedReport | None:
    """Read a record again; None if it is none of ours, or another release's."""
    try:
        return msgspec.json.decode(record, type=ReceivedReport)
    except msgspec.DecodeError:
        return None


def _tell(posts: Sequence[_Post], result: Stored | NotStored) -> None:
    for post in posts:
        if not post.result.done():  # it may have waited too long
            post.result.set_result(result)
