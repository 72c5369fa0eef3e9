"""A worker driven step by step, and scenes: one app for each fault, served by one worker."""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fault_scenes import NUMBERS, PARAMS, Play, Scene, quiet
from support.claims import arrange
from support.messages import TEMPLATE, insert
from support.provider import app_at, provider
from support.waiting import until

from dispatcher.core.message import Batch
from dispatcher.core.outcome import Resolved, ReturnAll, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.db import workers
from dispatcher.db.claim import claim
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.record import record
from dispatcher.telemetry import Metrics
from dispatcher.worker.circuit_breaker import CircuitBreaker
from dispatcher.worker.in_flight import InFlight
from dispatcher.worker.recorder import Recorder


class Hands:
    """A worker whose steps a test calls one by one."""

    def __init__(self, db, database) -> None:
        self.db = db
        self.database = database
        self.id = 0
        numbers = itertools.count(1)
        self.flight = InFlight(lambda: f"token-{next(numbers):04d}")

    async def begin(self, *, on_unsure: str = "hold", resend_after: float = 3600.0) -> None:
        """Announce the worker and its app."""
        await workers.register_app(
            self.database,
            "default",
            numbers_per_second=None,
            on_unsure=on_unsure,
            resend_after=resend_after,
        )
        self.id = (
            await workers.register_worker(
                self.database, host="here", pid=1, version="0", apps=["default"], lease=60.0
            )
        ).id

    async def insert(self, count: int, **more) -> list[int]:
        """Insert messages; return their ids."""
        return await insert(self.db, count, **more)

    async def claim(
        self,
        slots: int = 4,
        heartbeat_at: float | None = None,
        started: float | None = None,
        app: str = "default",
    ) -> list[Batch]:
        """Claim what is due, for as many requests as there are *slots*."""
        claimed = await claim(
            self.database,
            self.id,
            ClaimRequest(app, slots=slots, sender="csms100000001"),
            arrange=arrange,
            token=self.flight.new_token,
            heartbeat_at=heartbeat_at,
            started=started,
        )
        return claimed.batches

    async def record(self, batch: Batch, verdict: Resolved | ReturnAll | UnknownResult) -> bool:
        """Write how a request ended; return whether it was written."""
        http_status = None if isinstance(verdict, UnknownResult) else 200
        closing = BatchResult(batch, verdict, http_status, "000000", "", tries=1, seconds=0.1)
        recorded = await record(self.database, self.id, [closing])
        return batch.token in recorded.written

    def recorder(self, folder: Path, *apps: str) -> Recorder:
        """Return a recorder of this worker's results, with a circuit breaker for each of *apps*."""
        return Recorder(
            self.database,
            worker=self.id,
            in_flight=self.flight,
            folder=folder,
            metrics=Metrics(),
            breakers={app: CircuitBreaker(app) for app in apps},
            limits={},
        )

    async def queue(self) -> list[int]:
        """Return what waits."""
        rows = await self.db.fetch(
            "SELECT id FROM dispatcher.queue UNION ALL"
            " SELECT generate_series(lower(r), upper(r) - 1)"
            " FROM (SELECT unnest(ids) AS r FROM dispatcher.bulk) AS b ORDER BY id"
        )
        return [row["id"] for row in rows]

    async def batches(self) -> Sequence[tuple[str, str]]:
        """Return the state and the code of every batch, in their order."""
        rows = await self.db.fetch("SELECT state, code FROM dispatcher.batch ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.fixture
def hands(db, database) -> Hands:
    """A worker's hands on this test's database."""
    return Hands(db, database)


@pytest.fixture
async def play(db, workers) -> AsyncIterator[Play]:
    """Play scenes by their names, each with its faults, until each has come to rest."""
    async with AsyncExitStack() as stack:

        async def run(faults: Mapping[str, Sequence[object]], **app: object) -> Mapping[str, Scene]:
            scenes = {}
            for name, rules in faults.items():
                sim = await stack.enter_async_context(provider(faults=rules))
                scenes[name] = Scene(name, sim, db)
            await db.executemany(
                "INSERT INTO dispatcher.message (app, recipient, template_id, params)"
                " SELECT $1, n, $2, ARRAY[p] FROM unnest($3::text[], $4::text[]) AS u (n, p)",
                [(name, TEMPLATE, list(NUMBERS), list(PARAMS)) for name in scenes],
            )
            apps = {name: app_at(scene.sim.url, **app) for name, scene in scenes.items()}
            await workers.start(apps)
            await until(lambda: quiet(db), deadline=60, what="the scenes come to rest")
            return scenes

        yield run
