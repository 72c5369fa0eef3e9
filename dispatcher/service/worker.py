"""One worker: two claiming lanes for each app, one recorder, heartbeat, rescue and listener.

Here the rooms meet: each part is handed what it calls as a function.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog
from msgspec.structs import replace

from dispatcher.core.admit import Arranged, arrange
from dispatcher.core.closing import Closing
from dispatcher.core.country import country
from dispatcher.core.message import Batch, Message, Packed
from dispatcher.core.signing import AppKey
from dispatcher.db import claim as claims
from dispatcher.db import record as records
from dispatcher.db import workers
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.listen import listen_urgent
from dispatcher.db.pool import OwnConnection, Pool, connect
from dispatcher.pipeline.flight import Flight
from dispatcher.pipeline.lanes import Claim, Lane, run_lane
from dispatcher.pipeline.lease import Lease
from dispatcher.pipeline.recording import Outbox, run_recorder
from dispatcher.pipeline.sending import Ways, deliver
from dispatcher.pipeline.slots import Slots
from dispatcher.provider.client import Account, Client
from dispatcher.rescue import Rounds, run_rescue
from dispatcher.settings import AppSettings, Settings

log = structlog.get_logger(__name__)

TOKEN_BYTES = 16  # 128 bits: nobody guesses the token of a batch
TOKEN_LENGTH = 2 * TOKEN_BYTES
HEARTBEATS_PER_LEASE = 6
AWAY_WAIT = 0.5  # seconds until a database that is away is asked again
CLAIM_SLOTS = 4  # request slots filled by one claim, at most: 2,000 messages


class Worker:
    """One worker: what its parts share."""

    def __init__(
        self,
        settings: Settings,
        *,
        dsn: str,
        pool: Pool,
        vital: Pool,
        worker: int,
        stop: asyncio.Event,
    ) -> None:
        self.settings = settings
        self.dsn = dsn
        self.pool = pool
        self.vital = vital  # connections that no claim can use up: heartbeat and rescue
        self.id = worker
        self.stop = stop
        self.flight = Flight(partial(secrets.token_hex, TOKEN_BYTES))
        self.lease = Lease(settings.lease, monotonic)
        self.outbox = Outbox()
        self.wakes: dict[tuple[str, bool], asyncio.Event] = {}

    async def work(self) -> None:
        """Work until asked to stop, then finish."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as background:
            beat = background.create_task(self._beat())
            listen = background.create_task(listen_urgent(self._connect, self._urgent))
            rescue = background.create_task(self._rescue())
            recorder = background.create_task(run_recorder(self.outbox, self._record))
            lanes = background.create_task(self._run_lanes(stack))
            await self.stop.wait()
            for wake in self.wakes.values():
                wake.set()
            _, late = await asyncio.wait([lanes], timeout=self.settings.shutdown_timeout)
            if late:
                log.warning("requests cut off by the shutdown time-out", batches=len(self.flight))
                lanes.cancel()
                await asyncio.wait([lanes])
            self.outbox.close()
            await asyncio.wait([recorder])
            for task in (beat, listen, rescue):
                task.cancel()
        await workers.worker_stopped(self.vital, self.id)

    async def _run_lanes(self, stack: AsyncExitStack) -> None:
        async with asyncio.TaskGroup() as lanes:
            for name, app in self.settings.apps.items():
                client = await stack.enter_async_context(
                    Client(account(app), clock=_utc_now, nonce=secrets.token_hex)
                )
                slots = Slots(app.concurrency, kept=1)
                ways = self._ways(app, client)
                for urgent in (False, True):
                    lanes.create_task(run_lane(self._lane(name, app, slots, ways, urgent=urgent)))

    def _lane(self, name: str, app: AppSettings, slots: Slots, ways: Ways, *, urgent: bool) -> Lane:
        wake = self.wakes[name, urgent] = asyncio.Event()
        return Lane(
            app=name,
            urgent=urgent,
            slots=slots,
            claim=partial(
                self._claim,
                claims.Wanted(
                    name,
                    last_priority=1 if urgent else 9,
                    sender=app.sender,
                    probe_wait=app.timeout,
                ),
            ),
            deliver=partial(deliver, ways=ways),
            room=self.outbox.room,
            wake=wake,
            stopping=self.stop.is_set,
            poll=self.settings.poll_interval,
            most_slots=CLAIM_SLOTS,
        )

    def _ways(self, app: AppSettings, client: Client) -> Ways:
        return Ways(
            post=client.post,
            split=self._split,
            hand_over=self.outbox.put,
            still_ours=lambda batch: not self.stop.is_set() and self.lease.covers(batch.claimed_at),
            now=_utc_now,
            jitter=random.random,
            country=country,
            callback=self.settings.callback_url,
            max_attempts=app.max_attempts,
        )

    @contextmanager
    def _tokens(self) -> Iterator[Callable[[], str]]:
        """Give out tokens for batches; they are forgotten again if writing the batches fails.

        A failed call may have committed: open batches of this worker with forgotten tokens were
        never sent, and the rescue puts them back.
        """
        made: list[str] = []

        def token() -> str:
            made.append(self.flight.token())
            return made[-1]

        try:
            with naming_absence(self.dsn):
                yield token
        except BaseException:
            for each in made:
                self.flight.over(each)
            raise

    async def _claim(self, wanted: claims.Wanted, slots: int, per_request: int) -> Claim | None:
        wanted = replace(wanted, slots=slots, per_request=per_request)
        try:
            with self._tokens() as token:
                claimed = await claims.claim(
                    self.pool, self.id, wanted, arrange=self._arrange, token=token
                )
        except DatabaseAwayError as error:
            log.warning("no claim: the database is away", app=wanted.app, why=str(error))
            return None
        return Claim(
            claimed.batches, claimed.messages, claimed.requests, claimed.more, claimed.wait
        )

    def _arrange(self, messages: list[Message], countries: list[str]) -> Arranged:
        return arrange(
            messages,
            callback=self.settings.callback_url,
            token_length=TOKEN_LENGTH,
            paused_countries=countries,
            country=country,
        )

    async def _split(
        self,
        batch: Batch,
        parts: list[Packed],
        *,
        code: str,
        description: str,
        http_status: int | None,
        tries: int,
    ) -> list[Batch]:
        try:
            with self._tokens() as token:
                children = await records.split(
                    self.pool,
                    self.id,
                    batch,
                    parts,
                    code=code,
                    description=description,
                    http_status=http_status,
                    tries=tries,
                    token=token,
                )
        except DatabaseAwayError as error:
            log.warning("not divided: the database is away", app=batch.app, why=str(error))
            return []
        if children:
            self.flight.over(batch.token)
        return children

    async def _record(self, closings: Sequence[Closing]) -> None:
        written = await self._write(closings)
        for closing in closings:
            self.flight.over(closing.batch.token)
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
        while True:
            try:
                with naming_absence(self.dsn):
                    return await records.record(self.pool, self.id, closings)
            except DatabaseAwayError as error:
                log.warning(
                    "answers wait: the database is away", batches=len(closings), why=str(error)
                )
                await asyncio.sleep(AWAY_WAIT)

    async def _beat(self) -> None:
        every = self.settings.lease / HEARTBEATS_PER_LEASE
        while True:
            asked_at = monotonic()
            try:
                with naming_absence(self.dsn):
                    async with asyncio.timeout(every):
                        known = await workers.heartbeat(self.vital, self.id)
            except DatabaseAwayError as error:
                log.warning("no heartbeat: the database is away", why=str(error))
            else:
                if not known:
                    raise UnknownWorkerError(self.id)
                self.lease.renew(asked_at)
            await asyncio.sleep(max(0.0, every - (monotonic() - asked_at)))

    async def _rescue(self) -> None:
        rounds = Rounds(
            rescue=self._named(partial(workers.rescue, self.vital, self.id)),
            resend=self._named(partial(workers.resend_unsure, self.vital, self.id)),
            abandon=self._named(partial(workers.abandon, self.vital, self.id, self.flight)),
        )
        every = self.settings.lease / HEARTBEATS_PER_LEASE
        await run_rescue(rounds, every=every, stop=self.stop)

    def _named(
        self, act: Callable[[], Awaitable[tuple[int, int]]]
    ) -> Callable[[], Awaitable[tuple[int, int] | str]]:
        """Make a database that is away a value, which the rescue can name."""

        async def named() -> tuple[int, int] | str:
            try:
                with naming_absence(self.dsn):
                    return await act()
            except DatabaseAwayError as error:
                return str(error)

        return named

    async def _connect(self) -> OwnConnection:
        direct = self.settings.database_direct_url
        return await connect(direct.get_secret_value() if direct else self.dsn)

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
