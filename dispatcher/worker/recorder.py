"""Records results, as many as wait at once; on disk while the database is unreachable."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import structlog

from dispatcher.core.circuit import CircuitLimits, UnknownShare
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.outcome import UnknownResult
from dispatcher.core.result import BatchResult, deserialize, serialize
from dispatcher.db import record as records
from dispatcher.db import workers
from dispatcher.db.circuit import Circuits, stopped_apps
from dispatcher.db.database import AdaptiveTimeout, Database
from dispatcher.db.errors import is_locked
from dispatcher.db.record import Recorded
from dispatcher.db.spool import Spool, orphaned_files, size
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import InFlight
from dispatcher.worker.result_queue import (
    MAX_TRANSACTION_RESULTS,
    MAX_WAITING_RESULTS,
    ResultQueue,
)

log = structlog.get_logger(__name__)

Found = TypeVar("Found")

LEFT_RETRY_SECONDS: Final = 10.0  # between two tries to write kept answers whose rows are held
RETRY_SECONDS: Final = 0.5  # until a transaction is tried again
LOCKED_RETRY_SECONDS: Final = 5.0  # the same where another session holds a row
LOCK_TIMEOUT: Final = "200ms"  # of what is known to meet such a row
GRACE_SECONDS: Final = 5.0  # to write the last results before they are kept on disk
SPOOL_KIND: Final = "answers"  # of spool files, behind the id of the database they belong to


class Recorder:
    """Records the results of one worker's requests. No result is thrown away."""

    def __init__(
        self,
        database: Database,
        *,
        worker: int,
        in_flight: InFlight,
        folder: Path,
        metrics: Metrics,
        breakers: Mapping[str, CircuitBreaker],
        limits: Mapping[str, CircuitLimits],
    ) -> None:
        """Set what one worker needs: *breakers* and *limits* of circuits are by app."""
        self._limits = limits
        self._shares: defaultdict[str, UnknownShare] = defaultdict(UnknownShare)
        self._breakers = breakers
        self._database = database
        self._worker = worker
        self._in_flight = in_flight
        self._folder = folder
        self._has_left_files = False  # kept answers whose rows another session holds
        self.database_id = ""  # known once the spool was replayed
        self._spool_kind = SPOOL_KIND
        self._metrics = metrics
        self._unwritten: list[BatchResult] = []  # taken from the queue
        # Another session holds the rows of these apps and batches; when they are tried again.
        self._locked_apps: dict[str, float] = {}
        self._held_batches: frozenset[int] = frozenset()
        self._held_until = 0.0
        self._in_doubt: set[int] = set()  # batches that a call may have written that failed
        self._refused: frozenset[int] = frozenset()  # batches whose results the database refuses
        # Answers that take back messages which another session holds, by batch: see `run_recalls`.
        self._recalls: dict[int, BatchResult] = {}
        self._has_recalls = asyncio.Event()
        self.results = ResultQueue(in_flight)

    async def run(self) -> None:
        """Record until the queue is closed and empty."""
        last = False
        try:
            while not last:
                results, last = await self.results.take(self._seconds_to_retry())
                began = monotonic()
                for result in results:
                    unknown = isinstance(result.verdict, UnknownResult)
                    if unknown or result.tries > 0:
                        self._shares[result.batch.app].add(began, unknown=unknown)
                self._unwritten += results
                await self._record(began)
                self.results.keep_waiting(self._apps_that_wait(), len(self._unwritten))
                await self.results.gather()
        finally:
            self.results.lift_limit()

    async def run_recalls(self) -> None:
        """Write the answers that take back messages which other sessions hold.

        Each waits for them in a transaction of its own, and so takes them before a claim does: it
        would send again what is known to be accepted. Of several answers one waits.
        """
        while True:
            await self._has_recalls.wait()
            for result in list(self._recalls.values()):
                if any(each is result for each in self._unwritten):
                    await self._write_group([result], waits=True)
                    self.results.keep_waiting(self._apps_that_wait(), len(self._unwritten))
                else:  # it was kept on disk, and is written from there once more
                    await self._write([result], waits=True)

    def _apps_that_wait(self) -> set[str]:
        """Return the apps that claim nothing while so much of them cannot be written."""
        waiting = Counter(each.batch.app for each in self._unwritten)
        many = [app for app, results in waiting.items() if results >= MAX_WAITING_RESULTS]
        return {*self._locked_apps, *many}

    def _seconds_to_retry(self) -> float | None:
        times = [*self._locked_apps.values(), *([self._held_until] if self._held_batches else [])]
        return max(0.0, min(times) - monotonic()) if times else None

    async def finish(self, recorder: asyncio.Task[None]) -> None:
        """Close the queue and wait for *recorder*, the task of `run`; keep the rest on disk."""
        self.results.close()
        _, late = await asyncio.wait([recorder], timeout=GRACE_SECONDS)
        if late:
            recorder.cancel()
            await asyncio.wait([recorder])
        if left := self._unwritten + self.results.drain():
            self._keep(left)

    async def replay_spool(self) -> None:
        """Write the results that an earlier worker of this machine kept on disk.

        Only those of this database: in another one, their batches are other requests. What needs
        a row that another session holds stays on disk for `replay_left`.
        """
        self.database_id = await self._retry(partial(workers.database_id, self._database))
        self._spool_kind = f"{self.database_id}.{SPOOL_KIND}"
        await self._replay()
        if foreign := size(self._folder, SPOOL_KIND)[0] - size(self._folder, self._spool_kind)[0]:
            log.warning(
                "kept answers of another database stay on disk: start a worker on that one",
                folder=str(self._folder),
                files=foreign,
            )

    async def replay_left(self) -> None:
        """Write what `replay_spool` has left on disk, as soon as nobody holds its rows."""
        while self._has_left_files:
            await asyncio.sleep(LEFT_RETRY_SECONDS)
            await self._replay()

    async def _retry(self, step: Callable[[], Awaitable[Found]]) -> Found:
        """Return what *step* returns, as soon as the database is available."""
        while True:
            try:
                return await step()
            except DatabaseUnavailable as error:
                log.warning("no start: the database is away", why=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _replay(self) -> None:
        stayed: set[Path] = set()
        while True:
            with orphaned_files(self._folder, self._spool_kind, left_out=stayed) as files:
                for file in files:
                    results = [one for one in map(deserialize, file.records) if one is not None]
                    file.damaged = file.damaged or len(results) < len(file.records)
                    if file.damaged:
                        path = str(file.path)
                        log.error("a file of kept answers is damaged, and set aside", path=path)
                    if results:
                        written = await self._write_kept(results)
                        file.stays = written is None
                        if written is None:
                            self._has_left_files = True
                            stayed.add(file.path)
                            continue
                        looked_up = partial(records.unknown_batches, self._database, results)
                        if unknown := await self._retry(looked_up):
                            file.damaged = True
                            log.error(
                                "a file of kept answers is set aside: the database has their"
                                " requests no more (restored, or older than RETENTION)",
                                path=str(file.path),
                                batches=len(unknown),
                            )
                        log.info("kept answers written", batches=len(results), new=written)
            if not files:
                self._has_left_files = bool(stayed)
                return

    async def _write_kept(self, results: Sequence[BatchResult]) -> int | None:
        """Write *results*; return how many are new.

        None: another session holds a row of some, or the database refuses some; the others are
        written all the same. After the first file that stays, no lock is waited for.
        """
        written = await self._write(results, LOCK_TIMEOUT if self._has_left_files else None)
        if written is not None:
            repeated = self._refused.union(self._recalls)
            stays = not repeated.isdisjoint(each.batch.id for each in results)
            return None if stays else len(written)
        for app in {result.batch.app for result in results}:
            of_app = [each for each in results if each.batch.app == app]
            if await self._write(of_app, LOCK_TIMEOUT) is None:
                held = await self._held_of(of_app)
                free = [each for each in of_app if each.batch.id not in held]
                if held and free:
                    await self._write(free, LOCK_TIMEOUT)
        return None

    async def _record(self, began: float) -> None:
        """Write what waits in one transaction; after a lock that is held, apart.

        A person's transaction on one app, or on one request, keeps only its answers waiting: they
        are tried alone, and seldom.
        """
        if self._held_batches and self._held_until <= began:
            held = [each for each in self._unwritten if each.batch.id in self._held_batches]
            self._hold(await self._held_of(held))
        free = [
            each
            for each in self._unwritten
            if each.batch.app not in self._locked_apps and not self._waits_apart(each)
        ]
        apart = [app for app, retry_at in self._locked_apps.items() if retry_at <= began]
        for first in range(0, len(free), MAX_TRANSACTION_RESULTS):
            group = free[first : first + MAX_TRANSACTION_RESULTS]
            if not await self._write_group(group):
                apart += [result.batch.app for result in group]
        for app in dict.fromkeys(apart):
            await self._record_app(app)

    async def _record_app(self, app: str) -> None:
        """Write what waits of *app*, in parts, without waiting for a lock."""
        while group := [
            each
            for each in self._unwritten
            if each.batch.app == app and not self._waits_apart(each)
        ][:MAX_TRANSACTION_RESULTS]:
            if await self._write_group(group, LOCK_TIMEOUT):
                continue
            if held := await self._held_of(group):
                self._hold(self._held_batches | held)
            else:
                self._locked_apps[app] = monotonic() + LOCKED_RETRY_SECONDS
                return
        self._locked_apps.pop(app, None)

    def _waits_apart(self, result: BatchResult) -> bool:
        return result.batch.id in self._held_batches or result.batch.id in self._recalls

    def _hold(self, batches: frozenset[int]) -> None:
        self._held_batches = batches
        self._held_until = monotonic() + LOCKED_RETRY_SECONDS

    async def _held_of(self, results: Sequence[BatchResult]) -> frozenset[int]:
        """Return the batches of *results* that another session holds, as one that settles them."""
        try:
            return await records.held_batches(self._database, results)
        except DatabaseUnavailable:
            return frozenset()  # their next record says what is wrong

    async def _write_group(
        self,
        results: Sequence[BatchResult],
        lock_timeout: str | None = None,
        *,
        waits: bool = False,
    ) -> bool:
        """Write *results*; return whether they are, as another session may hold a row of them.

        One that the database refuses in every form waits, and is tried again; so does one that
        takes back messages which another session holds, in `run_recalls`.
        """
        began = monotonic()
        written = await self._write(results, lock_timeout, waits=waits)
        if written is None:
            return False
        refused = self._refused.intersection(each.batch.id for each in results)
        if refused:
            self._hold(self._held_batches | refused)
        results = [each for each in results if not self._waits_apart(each)]
        self._finish(results, written, monotonic() - began)
        done = set(map(id, results))
        self._unwritten = [each for each in self._unwritten if id(each) not in done]
        return True

    def _finish(
        self, results: Sequence[BatchResult], written: frozenset[str], seconds: float
    ) -> None:
        """Note that *results* are recorded, of which those *written* were closed now."""
        self._metrics.recorded((each for each in results if each.batch.token in written), seconds)
        for result in results:
            self._in_flight.finish(result.batch.token)
            # Also of what was not written now: an answer whose commit was not confirmed, or a batch
            # that another worker took over, ends the trial of this host all the same.
            self._breakers[result.batch.app].record(result)
            log.info(
                "batch sent",
                app=result.batch.app,
                batch=result.batch.token,
                messages=len(result.batch.messages),
                verdict=type(result.verdict).__name__,
                code=result.code,
                http_status=result.http_status,
                tries=result.tries,
                seconds=round(result.seconds, 3),
                written=result.batch.token in written,
            )

    async def _write(
        self,
        results: Sequence[BatchResult],
        lock_timeout: str | None = None,
        *,
        waits: bool = False,
    ) -> frozenset[str] | None:
        """Write *results* until the database accepts them; return the tokens of those written.

        Returns None if another session holds a row for as long as *lock_timeout*, else for seconds.
        A message that is taken back is such a row only if the result *waits*.
        """
        timeout = AdaptiveTimeout()
        batches = {each.batch.id for each in results}
        written: frozenset[str] = frozenset()
        while True:
            try:
                recorded = await records.record(
                    self._database,
                    self._worker,
                    results,
                    seconds=timeout.seconds,
                    circuits=Circuits(self._limits, self._mostly_unknown()),
                    lock_timeout=lock_timeout,
                    waits=waits,
                )
                written |= recorded.written
                self._tell_breakers(recorded)
                if not self._in_doubt.isdisjoint(batches):
                    self._tell_breakers(await self._lost_stops(results, recorded))
                    self._in_doubt -= batches
            except DatabaseUnavailable as error:
                self._in_doubt |= batches  # of its parts, some may be written
                if is_locked(error):
                    log.warning(
                        "answers wait: another session holds a lock",
                        apps=sorted({each.batch.app for each in results}),
                        batches=len(results),
                        why=str(error),
                    )
                    return None
                timeout.failed()
                self._metrics.database_away("record")
                log.warning(
                    "answers wait: the database is away", batches=len(results), why=str(error)
                )
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._refused = (self._refused - batches) | recorded.refused
                self._note_recalls(results, recorded.held)
                if recorded.held:
                    log.warning(
                        "answers wait: another session holds messages that they show to be sent",
                        apps=sorted({r.batch.app for r in results if r.batch.id in recorded.held}),
                        batches=len(recorded.held),
                    )
                if recorded.refused:
                    log.error(
                        "answers wait: the database refuses them; correct the trigger or constraint"
                        " on dispatcher.batch",
                        apps=sorted(
                            {r.batch.app for r in results if r.batch.id in recorded.refused}
                        ),
                        batches=len(recorded.refused),
                    )
                return written

    def _note_recalls(self, results: Sequence[BatchResult], held: Collection[int]) -> None:
        for each in results:
            if each.batch.id in held:
                self._recalls[each.batch.id] = each
            else:
                self._recalls.pop(each.batch.id, None)
        if self._recalls:
            self._has_recalls.set()
        else:
            self._has_recalls.clear()

    async def _lost_stops(self, results: Sequence[BatchResult], recorded: Recorded) -> Recorded:
        """Return the circuits that a call before has opened, and the apps it has cut off.

        It failed, and may have committed: then its batches are not written again, and nothing else
        says that what was claimed before is to be withheld.
        """
        before = [each for each in results if each.batch.token not in recorded.written]
        if not before:
            return Recorded(frozenset(), {})
        apps = {each.batch.app for each in before}
        opened, cut_off = await stopped_apps(self._database, self._worker, apps)
        unknown = {each.batch.app for each in before if isinstance(each.verdict, UnknownResult)}
        why = "an answer before was lost, and other workers get theirs"
        return Recorded(frozenset(), {}, opened, dict.fromkeys(cut_off & unknown, why))

    def _tell_breakers(self, recorded: Recorded) -> None:
        """Stop claims and requests, as far as what was recorded asks for it.

        An app that has no breaker is of answers that another start had kept.
        """
        for app, why in recorded.cut_off.items():
            if app in self._breakers:
                self._breakers[app].open(why)
        for app, why in recorded.lost_answers.items():
            self._shares.pop(app, None)
            if app in self._breakers:
                self._breakers[app].open(why, loses_answers=True)
        for app, why in recorded.opened.items():
            self._shares.pop(app, None)
            if app in self._breakers:
                self._breakers[app].withhold(monotonic(), why)

    def _mostly_unknown(self) -> list[str]:
        limits = self._limits
        return [
            app
            for app, share in self._shares.items()
            if share.is_high(limits.get(app, CircuitLimits()).unknown)
        ]

    def _keep(self, results: Sequence[BatchResult]) -> None:
        """Keep results that the database cannot accept on disk, for the next start."""
        spool = Spool(self._folder, self._spool_kind)
        try:
            spool.append(serialize(result) for result in results)
        except OSError as error:
            log.error(  # noqa: TRY400 - a full disk needs no traceback
                "answers are lost, their batches become unsure: the spool cannot be written",
                folder=str(self._folder),
                batches=len(results),
                why=error.strerror,
            )
        else:
            log.warning("answers kept on disk: they could not be written", batches=len(results))
        finally:
            spool.close()
