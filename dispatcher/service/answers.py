"""Answers on their way into the database: recorded, or kept on disk while it is away."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import structlog

from dispatcher.core.closing import Closing, freeze, thaw
from dispatcher.db import record as records
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.pool import Pool
from dispatcher.db.session import Patience
from dispatcher.metrics import Metrics
from dispatcher.pipeline.flight import Flight
from dispatcher.pipeline.recording import Outbox, run_recorder
from dispatcher.spool import Spool, left_behind

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
        flight: Flight,
        folder: Path,
        metrics: Metrics,
        cut_off: Callable[[str, str], None],
    ) -> None:
        """*cut_off* is told of apps for which this host cannot send, and why."""
        self._cut_off = cut_off
        self._dsn = dsn
        self._pool = pool
        self._worker = worker
        self._flight = flight
        self._folder = folder
        self._metrics = metrics
        self._unwritten: list[Closing] = []  # in the recorder's hands when it was stopped
        self.outbox = Outbox()

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

    async def take_up(self) -> None:
        """Write the answers that an earlier worker of this machine kept on disk."""
        while True:
            with left_behind(self._folder, KIND) as files:
                for file in files:
                    closings = [one for one in map(thaw, file.records) if one is not None]
                    file.damaged = file.damaged or len(closings) < len(file.records)
                    if file.damaged:
                        path = str(file.path)
                        log.error("a file of kept answers is damaged, and set aside", path=path)
                    if closings:
                        written = await self._write(closings)
                        log.info("kept answers written", batches=len(closings), new=len(written))
            if not files:
                return

    async def _record(self, closings: Sequence[Closing]) -> None:
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

    async def _write(self, closings: Sequence[Closing]) -> frozenset[int]:
        """Write until the database takes it: an answer is never thrown away."""
        patience = Patience()
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

    def _keep(self, closings: Sequence[Closing]) -> None:
        """Keep answers that the database cannot take on disk, for the next start."""
        spool = Spool(self._folder, KIND)
        try:
            spool.append(freeze(closing) for closing in closings)
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
