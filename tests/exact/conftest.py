"""One worker's hands: claims and records without sending, so that a test can stand in between."""

import itertools
from collections.abc import Sequence

import pytest
from world.messages import insert

from dispatcher.core.country import country
from dispatcher.core.message import Batch
from dispatcher.core.outcome import Resolved, ReturnAll, UnknownResult
from dispatcher.core.prepare import prepare
from dispatcher.core.result import BatchResult
from dispatcher.db import workers
from dispatcher.db.claim import Wanted, claim
from dispatcher.db.record import record
from dispatcher.worker.in_flight import InFlight


class Hands:
    """A worker that does only what it is told."""

    def __init__(self, db, pool) -> None:
        self.db = db
        self.pool = pool
        self.id = 0
        numbers = itertools.count(1)
        self.flight = InFlight(lambda: f"token-{next(numbers):04d}")

    async def begin(self, *, on_unsure: str = "hold", resend_after: float = 3600.0) -> None:
        """Announce the worker and its app."""
        await workers.register_app(
            self.pool,
            "default",
            numbers_per_second=None,
            on_unsure=on_unsure,
            resend_after=resend_after,
        )
        self.id = await workers.register_worker(
            self.pool, host="here", pid=1, version="0", apps=["default"], lease=60.0
        )

    async def insert(self, count: int, **more) -> list[int]:
        """Insert messages; return their ids."""
        return await insert(self.db, count, **more)

    async def claim(self) -> list[Batch]:
        """Claim what is due."""

        def sort_out(messages, countries, most, decided):
            return prepare(
                messages,
                callback=None,
                token_length=32,
                paused_countries=countries,
                country=country,
                most=most,
                decided=decided,
            )

        claimed = await claim(
            self.pool,
            self.id,
            Wanted("default", slots=4, sender="csms100000001"),
            arrange=sort_out,
            token=self.flight.token,
        )
        return claimed.batches

    async def record(self, batch: Batch, verdict: Resolved | ReturnAll | UnknownResult) -> bool:
        """Write how a request ended; return whether it was written."""
        closing = BatchResult(
            batch, verdict, http_status=200, code="000000", description="", tries=1, seconds=0.1
        )
        recorded = await record(self.pool, self.id, [closing])
        return batch.id in recorded.written

    async def queue(self) -> list[int]:
        """Return what waits."""
        rows = await self.db.fetch("SELECT id FROM dispatcher.queue ORDER BY id")
        return [row["id"] for row in rows]

    async def batches(self) -> Sequence[tuple[str, str]]:
        """Return the state and the code of every batch, in their order."""
        rows = await self.db.fetch("SELECT state, code FROM dispatcher.batch ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.fixture
def hands(db, pool) -> Hands:
    """A worker's hands on this test's database."""
    return Hands(db, pool)
