"""One worker: two claim loops for each app, one recorder, heartbeat, recovery and listener."""

import asyncio
import random
import secrets
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog

from dispatcher.core.country import country
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import Batch
from dispatcher.core.result import BatchResult
from dispatcher.core.signing import AppKey
from dispatcher.db import workers
from dispatcher.db.claim import Wanted
from dispatcher.db.database import Database, OwnConnection, connect
from dispatcher.db.loop import attempt
from dispatcher.db.workers import listen_urgent
from dispatcher.provider.client import Account, Client
from dispatcher.settings import AppSettings, Settings
from dispatcher.telemetry import Metrics
from dispatcher.telemetry.traces import Trace
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.claim_loop import Lane, RequestSlots, run_lane
from dispatcher.worker.claimer import Claims
from dispatcher.worker.in_flight import InFlight, Lease
from dispatcher.worker.maintenance import run_maintenance
from dispatcher.worker.recorder import Answers
from dispatcher.worker.recovery import run_recovery
from dispatcher.worker.sender import Ways, deliver

log = structlog.get_logger(__name__)

TOKEN_BYTES = 16  # 128 bits: nobody guesses the token of a batch
HEARTBEATS_PER_LEASE = 6
SPOOL = "spool"  # folder in the data directory
CLAIM_SLOTS = 4  # request slots filled by one claim, at most: 2,000 messages


class Worker:
    """One worker: what its parts share."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        vital: Database,
        worker: int,
        stop: asyncio.Event,
        metrics: Metrics,
        trace: Trace | None = None,
    ) -> None:
        self.settings = settings
        self.trace = trace
        self.vital = vital  # connections that no claim can use up: heartbeat and rescue
        self.id = worker
        self.stop = stop
        self._heartbeat_interval = settings.lease / HEARTBEATS_PER_LEASE
        self.flight = InFlight(partial(secrets.token_hex, TOKEN_BYTES))
        self.lease = Lease(settings.lease, monotonic)
        self.reach = {name: CircuitBreaker(name) for name in settings.apps}
        self.answers = Answers(
            database=database,
            worker=worker,
            flight=self.flight,
            folder=settings.data_dir / SPOOL,
            metrics=metrics,
            cut_off=lambda app, why: self.reach[app].lose(why),
        )
        self.claims = Claims(
            database=database,
            worker=worker,
            flight=self.flight,
            callback=settings.callback_url,
            token_length=2 * TOKEN_BYTES,
            metrics=metrics,
            cut_off=lambda app: self.reach[app].lost,
        )
        self.wakes: dict[tuple[str, bool], asyncio.Event] = {}

    async def work(self) -> None:
        """Work until asked to stop, then finish."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as background:
            beat = background.create_task(self._beat())
            listen = background.create_task(listen_urgent(self._connect, self._urgent))
            rescue = background.create_task(
                run_recovery(
                    self.vital,
                    self.id,
                    self.flight,
                    interval=self._heartbeat_interval,
                    stop=self.stop,
                )
            )
            keep = background.create_task(run_maintenance(self.settings, self.vital.dsn, self.stop))
            recorder = background.create_task(self.answers.run())
            lanes = background.create_task(self._run_lanes(stack))
            await self.stop.wait()
            for wake in self.wakes.values():
                wake.set()
            _, late = await asyncio.wait([lanes], timeout=self.settings.shutdown_timeout)
            if late:
                log.warning("requests cut off by the shutdown time-out", batches=len(self.flight))
                lanes.cancel()
                await asyncio.wait([lanes])
            await self.answers.finish(recorder)
            for task in (beat, listen, rescue, keep):
                task.cancel()
        await self._leave()

    async def _leave(self) -> None:
        """Put back what was claimed and never known here, and sign off."""
        try:
            await workers.release_unsent(self.vital, self.id, self.flight)
            await workers.worker_stopped(self.vital, self.id)
        except DatabaseUnavailable as error:
            log.warning("not signed off: the database is away", why=str(error))

    async def _run_lanes(self, stack: AsyncExitStack) -> None:
        async with asyncio.TaskGroup() as scouts:
            ways_back = []
            async with asyncio.TaskGroup() as lanes:
                for name, app in self.settings.apps.items():
                    client = await stack.enter_async_context(
                        Client(account(app), clock=_utc_now, nonce=secrets.token_hex)
                    )
                    ways_back.append(scouts.create_task(self.reach[name].run(client.probe)))
                    slots = RequestSlots(app.concurrency, kept=1)
                    ways = self._ways(name, app, client)
                    for urgent in (False, True):
                        lane = self._lane(name, app, slots, ways, urgent=urgent)
                        lanes.create_task(run_lane(lane))
            for task in ways_back:
                task.cancel()

    def _lane(
        self, name: str, app: AppSettings, slots: RequestSlots, ways: Ways, *, urgent: bool
    ) -> Lane:
        wake = self.wakes[name, urgent] = asyncio.Event()
        return Lane(
            app=name,
            urgent=urgent,
            slots=slots,
            claim=partial(
                self.claims.claim,
                Wanted(
                    name,
                    last_priority=1 if urgent else 9,
                    sender=app.sender,
                    probe_wait=app.timeout,
                    all_slots=app.concurrency,
                ),
            ),
            deliver=partial(deliver, ways=ways),
            room=self.answers.outbox.room,
            wake=wake,
            stopping=self.stop.is_set,
            poll=self.settings.poll_interval,
            most_slots=CLAIM_SLOTS,
        )

    def _ways(self, name: str, app: AppSettings, client: Client) -> Ways:
        reach = self.reach[name]

        def still_ours(batch: Batch) -> bool:
            return not self.stop.is_set() and not reach.lost and self.lease.covers(batch.claimed_at)

        return Ways(
            post=client.post,
            split=self.claims.split,
            hand_over=self.answers.outbox.put if self.trace is None else self._hand_over,
            still_ours=still_ours,
            now=_utc_now,
            jitter=random.random,
            country=country,
            another_time=self.claims.another_time,
            callback=self.settings.callback_url,
            max_attempts=app.max_attempts,
        )

    def _hand_over(self, closing: BatchResult) -> None:
        if self.trace is not None:
            self.trace(closing)
        self.answers.outbox.put(closing)

    async def _beat(self) -> None:
        while True:
            began = monotonic()
            await attempt(self._heartbeat, unavailable="no heartbeat: the database is away")
            await asyncio.sleep(max(0.0, self._heartbeat_interval - (monotonic() - began)))

    async def _heartbeat(self) -> None:
        asked_at = monotonic()
        cut_off = [name for name, reach in self.reach.items() if reach.lost]
        silence = await workers.heartbeat(
            self.vital, self.id, cut_off=cut_off, seconds=self._heartbeat_interval
        )
        if silence is None:
            raise UnknownWorkerError(self.id)
        self.lease.renew(asked_at, silence)

    async def _connect(self) -> OwnConnection:
        direct = self.settings.database_direct_url
        return await connect(direct.get_secret_value() if direct else self.vital.dsn)

    def _urgent(self, app: str) -> None:
        wake = self.wakes.get((app, True))
        if wake is not None:
            wake.set()


class UnknownWorkerError(Exception):
    """The database does not know this worker: its row was deleted under it."""

    def __init__(self, worker: int) -> None:
        super().__init__(f"worker {worker} is gone from dispatcher.worker; start it again")


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
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)
