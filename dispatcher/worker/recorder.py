"""Records results, as many as wait at once; on disk while the database is unreachable."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import structlog
from msgspec.structs import replace

from dispatcher.core.circuit import CircuitLimits, UnknownShare
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.outcome import Resolved, UnknownResult
from dispatcher.core.result import BatchResult, deserialize, serialize
from dispatcher.db import record as records
from dispatcher.db import workers
from dispatcher.db.circuit import Circuits, paused_by_workers
from dispatcher.db.database import AdaptiveTimeout, Database
from dispatcher.db.errors import is_locked
from dispatcher.db.loop import wait_for_event
from dispatcher.db.record import Recorded
from dispatcher.db.spool import Spool, orphaned_files, size
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import InFlight

log = structlog.get_logger(__name__)

Found = TypeVar("Found")

MAX_TRANSACTION_RESULTS: Final = 64  # results in one transaction: at most 32,000 messages
LEFT_RETRY_SECONDS: Final = 10.0  # between two tries to write kept answers whose rows are held
MAX_WAITING_RESULTS: Final = 64  # more, and the claim loops stop claiming

# Time from one transaction until the next one begins, unless so many results wait before, or those
# of all requests. A transaction costs as much as some hundred of its rows, and COPY spends twice as
# much on its first thousand rows: of PostgreSQL's time, a message took 1.4 µs where 8 results of
# 500 messages were written together, 1.9 of 4, and 2.3 of one.
GATHER_SECONDS: Final = 0.1
GATHER_RESULTS: Final = 8

RETRY_SECONDS: Final = 0.5  # until a transaction is tried again
GRACE_SECONDS: Final = 5.0  # to write the last results before they are kept on disk
SPOOL_KIND: Final = "answers"  # of spool files, behind the id of the database they belong to


class ResultQueue:
    """The results of requests that wait to be recorded."""

    def __init__(self, in_flight: Sized = ()) -> None:
        """Gather results until no batch that is *in_flight* is without one."""
        self._in_flight = in_flight
        # Unbounded, so that even a cancelled request can add its result. What bounds it is
        # `wait_for_capacity`: nothing is claimed while too much waits.
        self._waiting: asyncio.Queue[BatchResult | None] = asyncio.Queue()
        self._capacity = asyncio.Event()
        self._capacity.set()
        self._enough = asyncio.Event()  # to record without waiting for more
        self._is_urgent = False  # one of them may stop further requests
        self._held = 0  # that were taken, and could not be written yet

    def put(self, result: BatchResult) -> None:
        """Add the result of a request."""
        self._waiting.put_nowait(result)
        self._is_urgent |= _stops_requests(result)
        if self._is_enough():
            self._enough.set()
        self._update_capacity()

    def hold(self, results: int) -> None:
        """Count *results* that were taken and could not be written yet as if they waited here."""
        self._held = results
        self._update_capacity()

    def _update_capacity(self) -> None:
        if self._waiting.qsize() + self._held < MAX_WAITING_RESULTS:
            self._capacity.set()
        else:
            self._capacity.clear()

    def close(self) -> None:
        """Note that no result will follow."""
        self._waiting.put_nowait(None)
        self._enough.set()

    def _is_enough(self) -> bool:
        enough = min(GATHER_RESULTS, len(self._in_flight))
        return self._is_urgent or self._waiting.qsize() >= enough

    async def gather(self) -> None:
        """Wait for GATHER_RESULTS, or those of all requests, at most GATHER_SECONDS.

        A result that may stop further requests waits for no others.
        """
        if not self._is_enough():
            await wait_for_event(self._enough, GATHER_SECONDS)

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be taken now."""
        return self._waiting.empty()

    def drain(self) -> list[BatchResult]:
        """Remove and return all results that wait; for a stop that cannot wait for the database."""
        waiting: list[BatchResult] = []
        while not self._waiting.empty():
            result = self._waiting.get_nowait()
            if result is not None:
                waiting.append(result)
        return waiting

    def lift_limit(self) -> None:
        """Let any number of results wait: nothing takes them any more."""
        self._capacity.set()

    async def wait_for_capacity(self) -> None:
        """Wait while too many results wait."""
        await self._capacity.wait()

    async def take(self) -> tuple[list[BatchResult], bool]:
        """Wait for at least one result; return those that wait, and whether they are the last."""
        taken: list[BatchResult] = []
        end = await self._waiting.get()
        while end is not None:
            taken.append(end)
            if len(taken) >= MAX_TRANSACTION_RESULTS or self._waiting.empty():
                break
            end = self._waiting.get_nowait()
        if self._waiting.empty():
            self._is_urgent = False
        if self._waiting.qsize() < GATHER_RESULTS and end is not None:
            self._enough.clear()
        self._update_capacity()
        return taken, end is None


def _stops_requests(result: BatchResult) -> bool:
    """Tell whether *result* may open a circuit, or pause the app or one of its countries."""
    verdict = result.verdict
    if not isinstance(verdict, Resolved):
        return True
    return verdict.refused or verdict.pause is not None or bool(verdict.countries)


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
        self._unwritten: list[
            BatchResult
        ] = []  # taken from the queue when the recorder was stopped
        self._blocked: list[BatchResult] = []  # another session holds a row of their app
        self._held: list[BatchResult] = []  # another session holds their own batch
        self.results = ResultQueue(in_flight)

    async def run(self) -> None:
        """Record until the queue is closed and empty."""
        last = False
        try:
            while not last:
                results: list[BatchResult] = []
                if not ((self._blocked or self._held) and self.results.is_empty):
                    results, last = await self.results.take()
                if results or self._blocked or self._held:
                    await self._record(results)
                    self.results.hold(len(self._blocked) + len(self._held))
                    await self.results.gather()
        finally:
            self._unwritten.extend((*self._blocked, *self._held))
            self.results.lift_limit()

    async def finish(self, recorder: asyncio.Task[None]) -> None:
        """Close the queue and wait for *recorder*, the task of `run`; keep the rest on disk."""
        self.results.close()
        _, late = await asyncio.wait([recorder], timeout=GRACE_SECONDS)
        if late:
            recorder.cancel()
            await asyncio.wait([recorder])
        if left := [*self._unwritten, *self.results.drain()]:
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
        while True:
            with orphaned_files(self._folder, self._spool_kind) as files:
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
                            continue
                        looked_up = partial(records.unknown_batches, self._database, results)
                        if unknown := await self._retry(looked_up):
                            file.damaged = True
                            log.error(
                                "a file of kept answers is set aside: the database has lost their"
                                " requests, as one that was restored",
                                path=str(file.path),
                                batches=len(unknown),
                            )
                        log.info("kept answers written", batches=len(results), new=written)
            self._has_left_files = any(file.stays for file in files)
            if self._has_left_files or not files:
                return

    async def _write_kept(self, results: Sequence[BatchResult]) -> int | None:
        """Write *results*; return how many are new, None if another session holds a row of some."""
        written = await self._write(results)
        if written is not None:
            return len(written)
        if len({result.batch.app for result in results}) > 1:
            for part in _by_app(results):
                await self._write(part)
        return None

    async def _record(self, results: Sequence[BatchResult]) -> None:
        began = monotonic()
        for result in results:
            unknown = isinstance(result.verdict, UnknownResult)
            if unknown or result.tries > 0:
                self._shares[result.batch.app].add(began, unknown=unknown)
        groups: list[list[BatchResult]] = [list(results)]
        try:
            groups = self._apart([*await self._take_released(), *results])
            while groups:
                written = await self._write(groups[-1])
                held = await self._held_of(groups[-1]) if written is None else frozenset()
                group = groups.pop()
                if written is not None:
                    self._finish(group, written, monotonic() - began)
                elif held:
                    self._held += (each for each in group if each.batch.id in held)
                    if others := [each for each in group if each.batch.id not in held]:
                        groups.append(others)
                elif len({result.batch.app for result in group}) > 1:
                    groups += _by_app(group)
                else:  # and so is the rest of this app
                    app = group[0].batch.app
                    self._blocked += group
                    self._blocked += (
                        each for one in groups for each in one if each.batch.app == app
                    )
                    groups = [[each for each in one if each.batch.app != app] for one in groups]
                    groups = [one for one in groups if one]
        except BaseException:  # cancelled, or an error that ends this worker
            self._unwritten.extend(result for group in groups for result in group)
            raise

    async def _held_of(self, results: Sequence[BatchResult]) -> frozenset[int]:
        """Return the batches of *results* that another session holds, as one that settles them."""
        try:
            return await records.held_batches(self._database, results)
        except DatabaseUnavailable:
            return frozenset()  # their next record says what is wrong

    async def _take_released(self) -> list[BatchResult]:
        """Return the results that were held, and are not any more."""
        if not self._held:
            return []
        held = await self._held_of(self._held)
        released = [each for each in self._held if each.batch.id not in held]
        self._held = [each for each in self._held if each.batch.id in held]
        return released

    def _apart(self, results: Sequence[BatchResult]) -> list[list[BatchResult]]:
        """Return *results* and those that were blocked, in groups that are written together.

        The last group is written first: what was not blocked before.
        """
        if not self._blocked:
            return [list(results)] if results else []
        apps = {result.batch.app for result in self._blocked}
        behind = [result for result in results if result.batch.app in apps]
        others = [result for result in results if result.batch.app not in apps]
        groups = _by_app([*self._blocked, *behind])
        self._blocked = []
        return [*groups, others] if others else groups

    def _finish(
        self, results: Sequence[BatchResult], written: frozenset[int], seconds: float
    ) -> None:
        """Note that *results* are recorded, of which the batches *written* were closed now."""
        self._metrics.recorded((each for each in results if each.batch.id in written), seconds)
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
                written=result.batch.id in written,
            )

    async def _write(self, results: Sequence[BatchResult]) -> frozenset[int] | None:
        """Write *results* until the database accepts them; return the batches written.

        Returns None if another session holds a row for seconds, perhaps of one app: a person's
        transaction on an app must not keep the answers of others waiting.
        """
        timeout = AdaptiveTimeout()
        in_doubt = False
        while True:
            try:
                recorded = await records.record(
                    self._database,
                    self._worker,
                    results,
                    seconds=timeout.seconds,
                    circuits=Circuits(self._limits, self._mostly_unknown()),
                )
                if in_doubt:
                    recorded = await self._with_lost_pauses(results, recorded)
            except DatabaseUnavailable as error:
                in_doubt = True
                timeout.failed()
                self._metrics.database_away("record")
                log.warning(
                    "answers wait: the database is away", batches=len(results), why=str(error)
                )
                if is_locked(error):
                    return None
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._tell_breakers(recorded)
                return recorded.written

    async def _with_lost_pauses(
        self, results: Sequence[BatchResult], recorded: Recorded
    ) -> Recorded:
        """Return *recorded* with the circuits that a call before has opened.

        It failed, and may have committed: then its batches are not written again, and nothing else
        says that what was claimed before is to be withheld.
        """
        apps = {each.batch.app for each in results if each.batch.id not in recorded.written}
        if not apps:
            return recorded
        opened = await paused_by_workers(self._database, apps)
        return replace(recorded, opened=recorded.opened | opened)

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
            log.warning("answers kept on disk: the database is away", batches=len(results))
        finally:
            spool.close()


def _by_app(results: Sequence[BatchResult]) -> list[list[BatchResult]]:
    """Return the results of each app, in groups that one transaction can take."""
    apps: defaultdict[str, list[BatchResult]] = defaultdict(list)
    for result in results:
        apps[result.batch.app].append(result)
    most = MAX_TRANSACTION_RESULTS
    return [of[first : first + most] for of in apps.values() for first in range(0, len(of), most)]
