"""Rows to begin with, as a worker would have left them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.messages import take_out


class Rows:
    """Writes the rows of one test's database."""

    def __init__(self, db) -> None:
        self._db = db

    async def messages(self, count: int = 1, *, app: str = "default") -> list[int]:
        """Insert messages; return their ids."""
        rows = await self._db.fetch(
            "INSERT INTO dispatcher.message (app, recipient, template_id) "
            "SELECT $2, '+86131' || lpad(i::text, 8, '0'), 't' FROM generate_series(1, $1) i "
            "RETURNING id",
            count,
            app,
        )
        return [row["id"] for row in rows]

    async def batch(self, ids: list[int], *, state: str = "open", token: str = "token1") -> int:
        """Take messages from the queue into a batch, as a claim does; return the batch's id."""
        async with self._db.transaction():
            await take_out(self._db, ids)
            return await self._db.fetchval(
                "INSERT INTO dispatcher.batch "
                "(token, app, worker, message_ids, attempts, state, bytes, unsure_at, code) "
                "VALUES ($2, 'default', 1, $1::bigint[], "
                "array_fill(1::smallint, ARRAY[cardinality($1::bigint[])]), $3, 100, "
                "CASE WHEN $3 = 'unsure' THEN now() END, "
                "CASE WHEN $3 = 'unsure' THEN 'timeout' END) RETURNING id",
                ids,
                token,
                state,
            )

    async def outcome(self, message: int, state: str, **columns: object) -> None:
        """Append the outcome of a message, and delete it from the queue."""
        row = {"message_id": message, "state": state, "attempts": 1} | columns
        async with self._db.transaction():
            await take_out(self._db, [message])
            await self._db.execute(
                f"INSERT INTO dispatcher.outcome ({', '.join(row)}) "
                f"VALUES ({', '.join(f'${i}' for i in range(1, len(row) + 1))})",
                *row.values(),
            )

    async def report(
        self, provider_id: str, status: str, state: str, *, segment: int = 1, total: int = 1
    ) -> None:
        """Write one status report."""
        await self._db.execute(
            "INSERT INTO dispatcher.report (provider_id, status, state, segment, total) "
            "VALUES ($1, $2, $3, $4, $5)",
            provider_id,
            status,
            state,
            segment,
            total,
        )

    async def tally(self) -> dict[tuple[str, str, str], int]:
        """Return what was counted: by app, event and code."""
        rows = await self._db.fetch(
            "SELECT app, event, code, sum(count)::bigint AS count FROM dispatcher.event_count "
            "GROUP BY app, event, code"
        )
        return {(row["app"], row["event"], row["code"]): row["count"] for row in rows}


@pytest.fixture
def rows(db) -> Rows:
    """Writes rows over the test's own connection."""
    return Rows(db)


@pytest.fixture
def until_it_waits() -> Callable[..., Awaitable[None]]:
    """Waits until the server process of a connection waits for a lock."""

    async def wait(db, pid: int, *, deadline: float = 60) -> None:
        async with asyncio.timeout(deadline):
            while not await db.fetchval(  # noqa: ASYNC110 - PostgreSQL has no event for it
                "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", pid
            ):
                await asyncio.sleep(0.01)

    return wait
