"""One worker: two claim loops for each app, one recorder, heartbeat, recovery and listener."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog

from dispatcher.core.allowed import AllowedNumbers
from dispatcher.core.circuit import CircuitLimits
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.signing import AppKey
from dispatcher.core.wire import TOKEN_BYTES
from dispatcher.db import workers
from dispatcher.db.database import Database, OwnConnection, connect
from dispatcher.db.dsn import direct_address
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.last_heartbeat import HeartbeatFile, LastHeartbeat
from dispatcher.db.loop import FailingParts, StoppingTaskGroup, attempt
from dispatcher.db.workers import listen_urgent
from dispatcher.provider.client import Account, Client
from dispatcher.settings import AppSettings, Settings
from dispatcher.telemetry import Metrics
from dispatcher.telemetry.traces import Trace
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claim_loop import ClaimLoop, RequestSlots
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.in_flight import InFlight, Lease
from dispatcher.worker.maintenance import run_maintenance
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.recovery import ClockWaits, run_recovery
from dispatcher.worker.sender import Sender

log = structlog.get_logger(__name__)

HEARTBEATS_PER_LEASE = 6
HEARTBEAT_RETRY_SECONDS = 1.0  # after one that failed: nothing is claimed when the lease has ended
SPOOL = "spool"  # folder in the data directory


class Worker:
    """One worker: what its parts share."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        vital: Database,
        registration: workers.Registration,
        stop: asyncio.Event,
        metrics: Metrics,
        failing: FailingParts,
        trace: Trace | None = None,
    ) -> None:
        """*failing* has the parts of this process that fail; each heartbeat writes them."""
        self.settings = settings
        self.failing = failing
        self.trace = trace
        self.vital = vital  # connections that no claim can use up: heartbeat and recovery
        self.id = registration.id
        self.stop = stop
        self._heartbeat_interval = settings.lease / HEARTBEATS_PER_LEASE
        self._heartbeat_file = HeartbeatFile(settings.data_dir)
        self.in_flight = InFlight(partial(secrets.token_hex, TOKEN_BYTES))
        self.lease = Lease(settings.lease, monotonic, registration.started)
        self.clock_waits = ClockWaits()
        self.breakers = {name: CircuitBreaker(name) for name in settings.apps}
        self.recorder = Recorder(
            database,
            worker=self.id,
            in_flight=self.in_flight,
            folder=settings.data_dir / SPOOL,
            metrics=metrics,
            breakers=self.breakers,
            limits={
                name: CircuitLimits(app.circuit_unknown, app.circuit_refused)
                for name, app in settings.apps.items()
            },
        )
        self.claimer = Claimer(
            database,
            worker=self.id,
            in_flight=self.in_flight,
            lease=self.lease,
            callback=settings.callback_url,
            token_length=2 * TOKEN_BYTES,
            metrics=metrics,
            breakers=self.breakers,
            allowed={
                name: allowed
                for name, app in settings.apps.items()
                if not (allowed := allowed_numbers(app)).all
            },
            failing=failing,
        )
        self.loops: dict[tuple[str, bool], ClaimLoop] = {}  # by app, and whether it is urgent

    async def work(self) -> None:
        """Work until asked to stop, then finish.

        An error of any part stops the claiming too: what is on its way is finished, its results
        are recorded, or kept on disk, and then the error is raised.
        """
        try:
            await self._work()
        finally:
            await self._leave()

    async def _work(self) -> None:
        self._keep_heartbeat()
        async with AsyncExitStack() as stack, StoppingTaskGroup(self.stop) as background:
            beat = background.create_task(self._beat())
            listen = background.create_task(listen_urgent(self._connect, self._urgent))
            recovery = background.create_task(
                run_recovery(
                    self.vital,
                    self.id,
                    self.in_flight,
                    self.lease,
                    self.clock_waits,
                    interval=self._heartbeat_interval,
                    spool=self.settings.data_dir / SPOOL,
                    stop=self.stop,
                    failing=self.failing,
                )
            )
            maintenance = background.create_task(
                run_maintenance(self.settings, self.vital.dsn, self.stop, self.failing)
            )
            recorder = background.create_task(self.recorder.run())
            replay = background.create_task(self.recorder.replay_left())
            recalls = background.create_task(self.recorder.run_recalls())
            loops = background.create_task(self._run_loops(stack))
            await self.stop.wait()
            self.recorder.results.lift_limit()  # a loop that waits for it sees the stop
            for loop in self.loops.values():
                loop.wake.set()
            _, late = await asyncio.wait([loops], timeout=self.settings.shutdown_timeout)
            if late:
                log.warning(
                    "requests cut off by the shutdown time-out", batches=len(self.in_flight)
                )
                loops.cancel()
                await asyncio.wait([loops])
            await self.recorder.finish(recorder)
            for task in (beat, listen, recovery, maintenance, replay, recalls):
                task.cancel()

    async def _leave(self) -> None:
        """Return batches of lost claims to the queue, and mark this worker as stopped."""
        try:
            await workers.release_unsent(
                self.vital,
                self.id,
                self.in_flight.tokens,
                self.in_flight.unconfirmed,
                self.lease.started,
            )
            await workers.worker_stopped(self.vital, self.id, self.lease.started)
        except DatabaseUnavailable as error:
            log.warning("not signed off: the database is away", why=str(error))

    async def _run_loops(self, stack: AsyncExitStack) -> None:
        async with StoppingTaskGroup(self.stop) as probes:
            probing = []
            try:
                async with StoppingTaskGroup(self.stop) as loops:
                    for name, app in self.settings.apps.items():
                        client = await stack.enter_async_context(
                            Client(account(app), clock=_utc_now, nonce=secrets.token_hex)
                        )
                        probing.append(probes.create_task(self.breakers[name].run(client)))
                        slots = RequestSlots(app.concurrency, reserved=1)
                        sender = self._sender(name, app, client)
                        for urgent in (False, True):
                            loop = self._claim_loop(name, app, slots, sender, urgent=urgent)
                            self.loops[name, urgent] = loop
                            loops.create_task(loop.run())
            finally:
                for task in probing:
                    task.cancel()

    def _sender(self, name: str, app: AppSettings, client: Client) -> Sender:
        return Sender(
            client=client,
            claimer=self.claimer,
            results=self.recorder.results,
            breaker=self.breakers[name],
            lease=self.lease,
            stop=self.stop,
            callback=self.settings.callback_url,
            max_attempts=app.max_attempts,
            trace=self.trace,
        )

    def _claim_loop(
        self, name: str, app: AppSettings, slots: RequestSlots, sender: Sender, *, urgent: bool
    ) -> ClaimLoop:
        wanted = ClaimRequest(
            name,
            last_priority=1 if urgent else 9,
            sender=app.sender,
            probe_wait=app.timeout,
            all_slots=app.concurrency,
        )
        return ClaimLoop(
            wanted,
            urgent=urgent,
            slots=slots,
            claimer=self.claimer,
            sender=sender,
            results=self.recorder.results,
            stop=self.stop,
            poll_interval=self.settings.poll_interval,
        )

    async def _beat(self) -> None:
        while True:
            began = monotonic()
            written = await attempt(
                self._heartbeat, unavailable="no heartbeat: the database is away"
            )
            interval = self._heartbeat_interval
            if not written:
                interval = min(interval, HEARTBEAT_RETRY_SECONDS)
            await asyncio.sleep(max(0.0, interval - (monotonic() - began)))

    async def _heartbeat(self) -> bool:
        """Renew the lease; return true if the database has confirmed it."""
        asked_at = monotonic()
        cut_off = [name for name, breaker in self.breakers.items() if breaker.is_open]
        beat = await workers.heartbeat(
            self.vital,
            self.id,
            cut_off=cut_off,
            failing=[f"{part}: {why}" for part, why in sorted(self.failing.items())],
            last_at=self.lease.heartbeat_at,
            started=self.lease.started,
            seconds=self._heartbeat_interval,
        )
        if beat.paused:
            log.error("paused: the database has gone back in time", apps=beat.paused, why=beat.why)
        if beat.silence is None:
            raise UnknownWorkerError(self.id)
        self.lease.renew(asked_at, beat.silence, beat.at, beat.started)
        self._keep_heartbeat()
        if beat.silence < -workers.SET_BACK_SECONDS:
            self.clock_waits.jumps += 1
            log.warning("the database's clock was set back", seconds=round(-beat.silence))
        return True

    def _keep_heartbeat(self) -> None:
        """Keep the last heartbeat on disk, where that is possible: a restored database lacks it."""
        database, lease = self.recorder.database_id, self.lease
        if database and lease.started is not None and lease.heartbeat_at is not None:
            last = LastHeartbeat(database, self.id, lease.started, lease.heartbeat_at)
            self._heartbeat_file.keep(last)

    async def _connect(self) -> OwnConnection:
        return await connect(direct_address(self.settings) or self.vital.dsn)

    def _urgent(self, app: str) -> None:
        loop = self.loops.get((app, True))
        if loop is not None:
            loop.wake.set()


class UnknownWorkerError(Exception):
    """The database has no row of this worker: it was deleted."""

    def __init__(self, worker: int) -> None:
        super().__init__(f"worker {worker} is gone from dispatcher.worker; start it again")


def allowed_numbers(app: AppSettings) -> AllowedNumbers:
    """Return the numbers that the settings of *app* allow."""
    words = app.only_to
    return AllowedNumbers(
        None if words is None else frozenset(word for word in words if not word.endswith("*")),
        tuple(word[:-1] for word in words or () if word.endswith("*")),
        app.countries,
    )


def account(app: AppSettings) -> Account:
    """Return the provider account of a configured app."""
    return Account(
        endpoint=app.endpoint,
        key=AppKey(app.app_key, app.app_secret.get_secret_value()),
        auth=app.auth,
        wsse_digest=app.wsse_digest,
        timeout=app.timeout,
        connect_timeout=app.connect_timeout,
        ca_bundle=app.ca_bundle,
        proxy=app.proxy.get_secret_value() if app.proxy else None,
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)
