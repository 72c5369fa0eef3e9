"""Claims, rollbacks, returns, deferrals and cancels at one time lose and double no message."""

import asyncio
import itertools
from collections import Counter
from random import Random
from time import monotonic

import pytest
from support.claims import arrange

from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.core.outcome import Accepted, Deferred, Resolved
from dispatcher.core.result import BatchResult
from dispatcher.db.claim import claim
from dispatcher.db.database import connect
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.record import record

MESSAGES = 40_000
INSERTERS, CLAIMERS, CANCELLERS = 2, 4, 2
TIMEOUT_SECONDS = 240.0
INSERT = (
    "INSERT INTO dispatcher.message (recipient, template_id, priority, send_at)"
    " SELECT '+8613' || lpad((n + $2)::text, 9, '0'), 't', $3 + n % $4,"
    " now() + random() * $5 * interval '0.2 s'"
    " FROM generate_series(1, $1::int) AS n"
)

UNFINISHED = (
    "SELECT EXISTS (SELECT FROM dispatcher.queue) OR EXISTS (SELECT FROM dispatcher.bulk)"
    " OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
)


class RolledBackError(Exception):
    """Raised within a claim."""


class Stress:
    """What all actors of one run share."""

    def __init__(self, database, dsn, seed) -> None:
        self.database, self.dsn, self.random = database, dsn, Random(seed)
        self.inserted = 0
        self.all_inserted = False
        self.sent: Counter[int] = Counter()  # as the provider would count
        self.cancelled = 0
        self.tokens = itertools.count()

    async def insert(self) -> None:
        """Insert messages, from one to more than two blocks in a statement."""
        connection = await connect(self.dsn)
        while self.inserted < MESSAGES:
            count = self.random.choice([1, 1, 5, 19, 20, 60, 499, 500, 1200])
            first, self.inserted = self.inserted, self.inserted + count
            priority, spread = self.random.choice([0, 5]), self.random.choice([1, 1, 1, 3])
            await connection.execute(
                INSERT, count, first, priority, spread, self.random.choice([0, 0, 0, 1])
            )
            await asyncio.sleep(0)
        await connection.close()

    async def cancel(self) -> None:
        """Cancel some messages here and there, and some whole ranges."""
        connection = await connect(self.dsn)
        while not self.all_inserted:
            end = await connection.fetchval("SELECT last_value FROM dispatcher.message_id")
            first = self.random.randint(max(1, end - 3000), end)
            step = self.random.choice([1, 7, 170])
            ids = range(first, first + step * self.random.randint(1, 30), step)
            cancelled = await connection.fetchval("SELECT dispatcher.cancel($1)", list(ids))
            self.cancelled += cancelled
            await asyncio.sleep(0.02)
        await connection.close()

    async def work(self, worker) -> None:
        """Claim; roll back a few claims; accept, return or defer what was claimed."""
        cursor = ClaimCursor(monotonic)
        connection = await connect(self.dsn)
        while not self.all_inserted or await connection.fetchval(UNFINISHED):
            request = ClaimRequest(
                "default",
                sender="csms100000001",
                slots=self.random.choice([1, 2, 8]),
                per_request=self.random.choice([1, 33, 400, 500]),
                last_priority=self.random.choice([1, 9, 9, 9]),
            )
            try:
                claimed = await claim(
                    self.database,
                    worker,
                    request,
                    arrange=self.arrange,
                    token=lambda: f"token-{next(self.tokens)}",
                    cursor=cursor,
                )
            except RolledBackError:
                continue
            for batch in claimed.batches:
                self.sent.update(await self.send(worker, batch))
            if not claimed.messages:
                await asyncio.sleep(0.1)
        await connection.close()

    def arrange(self, messages, countries, most, decided):
        """Pack as a worker does, or fail."""
        if self.random.random() < 0.1:
            raise RolledBackError
        return arrange(messages, countries, most, decided)

    async def send(self, worker, batch) -> list[int]:
        """Record an answer of some kind; return the messages that were accepted."""
        kind = self.random.random()
        accepted = [m for m in batch.messages if kind < 0.8 or (kind < 0.9 and m.id % 2)]
        outcomes = [Accepted(m, f"{m.id}-{m.attempt}", 1) for m in accepted]
        others = [m for m in batch.messages if kind >= 0.8 and not (kind < 0.9 and m.id % 2)]
        outcomes += [Deferred(m, "E200015", 0.1, counted=bool(m.id % 3)) for m in others]
        result = BatchResult(
            batch,
            Resolved(outcomes),
            http_status=200,
            code="000000",
            description="",
            tries=1,
            seconds=0.1,
        )
        recorded = await record(self.database, worker, [result])
        assert recorded.written == {batch.token}
        return [message.id for message in accepted]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_storm_on_bulk_rows_loses_and_doubles_nothing(db, database, dsn, seed):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    stress = Stress(database, dsn, seed)
    async with asyncio.timeout(TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
        inserters = [group.create_task(stress.insert()) for _ in range(INSERTERS)]
        for worker in range(CLAIMERS):
            group.create_task(stress.work(worker + 1))
        for _ in range(CANCELLERS):
            group.create_task(stress.cancel())
        await asyncio.gather(*inserters)
        stress.all_inserted = True
    states = dict(
        await db.fetch("SELECT state, count(*) FROM dispatcher.message_status GROUP BY state")
    )
    assert states == {"accepted": len(stress.sent), "cancelled": stress.cancelled}
    assert sum(states.values()) == stress.inserted
    assert set(stress.sent.values()) == {1}
    for table in ("queue", "bulk"):
        assert await db.fetchval(f"SELECT count(*) FROM dispatcher.{table}") == 0
