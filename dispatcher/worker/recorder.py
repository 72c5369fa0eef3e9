"""Records results, as many as wait at once; on disk while the database is unreachable."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic

import structlog

from dispatcher.core.result import BatchResult, deserialize, serialize
from dispatcher.db import record as records
from dispatcher.db.database import AdaptiveTimeout, Pool
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.spool import Spool, orphaned_files
from dispatcher.telemetry import Metrics
from dispatcher.worker.in_flight import InFlight

MOST_AT_ONCE = 64  # closings in one transaction: at most 32,000 messages
MOST_WAITING = 64  # closings; more, and the lanes stop claiming

# Seconds after a transaction until the next one begins, unless so many closings wait before. A
# transaction costs as much as some hundred of its rows: one for each request took a fifth more of
# the processors.
GATHER = 0.02
ENOUGH = 4


class ResultQueue:
    """The ends of requests that wait to be recorded."""

    def __init__(self) -> None:
        # Unbounded, so that even a cancelled request can put its end in. What bounds it is
        # `room`: no lane claims while too much waits.
        self._waiting: asyncio.Queue[BatchResult | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._enough = asyncio.Event()  # to record without waiting for more

    def put(self, closing: BatchResult) -> None:
        """Add the end of a request."""
        self._waiting.put_nowait(closing)
        if self._waiting.qsize() >= ENOUGH:
            self._enough.set()
        if self._waiting.qsize() >= MOST_WAITING:
            self._room.clear()

    def close(self) -> None:
        """Say that nothing more will come."""
        self._waiting.put_nowait(None)
        self._enough.set()

    async def gather(self) -> None:
        """Wait until enough is waiting, or for as long as it may wait for more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER):
                await self._enough.wait()

    def rest(self) -> list[BatchResult]:
        """Take whatever is still waiting; for a stop that cannot wait for the database."""
        waiting: list[BatchResult] = []
        while not self._waiting.empty():
            closing = self._waiting.get_nowait()
            if closing is not None:
                waiting.append(closing)
        return waiting

    async def room(self) -> None:
        """Wait while too much is waiting."""
        await self._room.wait()

    async def take(self) -> tuple[list[BatchResult], bool]:
        """Wait for at least one closing; return what has gathered, and whether it was the last."""
        taken: list[BatchResult] = []
        end = await self._waiting.get()
        while end is not None:
            taken.append(end)
            if len(taken) >= MOST_AT_ONCE or self._waiting.empty():
                break
            end = self._waiting.get_nowait()
        if self._waiting.qsize() < ENOUGH and end is not None:
            self._enough.clear()
        if self._waiting.qsize() < MOST_WAITING:
            self._room.set()
        return taken, end is None


async def run_recorder(
    outbox: ResultQueue, record: Callable[[Sequence[BatchResult]], Awaitable[None]]
) -> None:
    """Record until the outbox is closed and empty. *record* returns when it is done."""
    last = False
    while not last:
        closings, last = await outbox.take()
        if closings:
            await record(closings)
            await outbox.gather()


log = structlog.get_logger(__name__)

AWAY_WAIT = 0.5  # seconds until a database that is away is asked again
GRACE = 5.0  # seconds to write the last answers before they are kept on disk
KIND = "answers"  # of spool files


class Answers:
    """The recorder of one worker. No answer is thrown away."""

    def __init__(
        self,
        *,
        dsn: str,
        pool: Pool,
        worker: int,
        flight: InFlight,
        folder: Path,
        metrics: Metrics,
        cut_off: Callable[[str, str], None],
    ) -> None:
        """*cut_off* gets the apps for which this host cannot send, and why."""
        self._cut_off = cut_off
        self._dsn = dsn
        self._pool = pool
        self._worker = worker
        self._flight = flight
        self._folder = folder
        self._metrics = metrics
        self._unwritten: list[BatchResult] = []  # in the recorder's hands when it was stopped
        self.outbox = ResultQueue()

    async def run(self) -> None:
        """Record until the outbox is closed and empty."""
        await run_recorder(self.outbox, self._record)

    async def finish(self, recorder: asyncio.Task[None]) -> None:
        """Close the outbox and wait for *recorder*; what it cannot write is kept on disk."""
        self.outbox.close()
        _, late = await asyncio.wait([recorder], timeout=GRACE)
        if late:
            recorder.cancel()
            await asyncio.wait([recorder])
            self._keep([*self._unwritten, *self.outbox.rest()])

    async def replay_spool(self) -> None:
        """Write the answers that an earlier worker of this machine kept on disk."""
        while True:
            with orphaned_files(self._folder, KIND) as files:
                for file in files:
                    closings = [one for one in map(deserialize, file.records) if one is not None]
                    file.damaged = file.damaged or len(closings) < len(file.records)
                    if file.damaged:
                        path = str(file.path)
                        log.error("a file of kept answers is damaged, and set aside", path=path)
                    if closings:
                        written = await self._write(closings)
                        log.info("kept answers written", batches=len(closings), new=len(written))
            if not files:
                return

    async def _record(self, closings: Sequence[BatchResult]) -> None:
        began = monotonic()
        try:
            written = await self._write(closings)
        except asyncio.CancelledError:
            self._unwritten.extend(closings)
            raise
        self._metrics.recorded(
            (closing for closing in closings if closing.batch.id in written), monotonic() - began
        )
        for closing in closings:
            self._flight.over(closing.batch.token)
            log.info(
                "batch sent",
                app=closing.batch.app,
                batch=closing.batch.token,
                messages=len(closing.batch.messages),
                verdict=type(closing.verdict).__name__,
                code=closing.code,
                http_status=closing.http_status,
                tries=closing.tries,
                seconds=round(closing.seconds, 3),
                written=closing.batch.id in written,
            )

    async def _write(self, closings: Sequence[BatchResult]) -> frozenset[int]:
        """Write until the database takes it: an answer is never thrown away."""
        patience = AdaptiveTimeout()
        while True:
            try:
                with naming_absence(self._dsn):
                    recorded = await records.record(
                        self._pool, self._worker, closings, seconds=patience.seconds
                    )
            except DatabaseAwayError as error:
                patience.failed()
                self._metrics.database_away("record")
                log.warning(
                    "answers wait: the database is away", batches=len(closings), why=str(error)
                )
                await asyncio.sleep(AWAY_WAIT)
            else:
                for app, why in recorded.cut_off.items():
                    self._cut_off(app, why)
                return recorded.written

    def _keep(self, closings: Sequence[BatchResult]) -> None:
        """Keep answers that the database cannot take on disk, for the next start."""
        spool = Spool(self._folder, KIND)
        try:
            spool.append(serialize(closing) for closing in closings)
        except OSError as error:
            log.error(  # noqa: TRY400 - a full disk needs no traceback
                "answers are lost, their batches become unsure: the spool cannot be written",
                folder=str(self._folder),
                batches=len(closings),
                why=error.strerror,
            )
        else:
            log.warning("answers kept on disk: the database is away", batches=len(closings))
        finally:
            spool.close()
