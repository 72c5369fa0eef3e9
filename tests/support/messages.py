"""Messages to send: each has a number of its own unless a test wants otherwise."""

from collections.abc import Mapping, Sequence

import asyncpg

TEMPLATE = "8ff55eac1d0b478ab3c06c3c6a492300"
SENDER = "csms100000001"


async def insert(
    db: asyncpg.Connection,
    count: int,
    *,
    app: str = "default",
    template: str = TEMPLATE,
    params: Sequence[str] = ("062569",),
    first: int = 0,
    country: str = "+86138",
    priority: int = 5,
    lifetime: float | None = None,
) -> list[int]:
    """Insert *count* messages, to numbers from *first* on; return their ids.

    *lifetime*: seconds until they expire.
    """
    rows = await db.fetch(
        "INSERT INTO dispatcher.message"
        " (app, recipient, template_id, params, priority, expires_at)"
        " SELECT $1, $2 || lpad(n::text, 8, '0'), $3, $4, $5,"
        " clock_timestamp() + make_interval(secs => $8)"
        " FROM generate_series($6::int, $6 + $7 - 1) AS n RETURNING id",
        app,
        country,
        template,
        list(params),
        priority,
        first,
        count,
        lifetime,
    )
    return [row["id"] for row in rows]


async def take_out(db: asyncpg.Connection, ids: Sequence[int]) -> None:
    """Take messages from where they wait, as a claim does."""
    await db.execute("SELECT dispatcher.take_from_bulk(dispatcher.bulk_rows_with($1), $1)", ids)
    await db.execute("DELETE FROM dispatcher.queue WHERE id = ANY ($1)", ids)


async def states(db: asyncpg.Connection, app: str | None = None) -> dict[str, int]:
    """Return how many messages are in which state."""
    rows = await db.fetch(
        "SELECT state, count(*) FROM dispatcher.message_status"
        " WHERE $1::text IS NULL OR app = $1 GROUP BY state ORDER BY state",
        app,
    )
    return dict(rows)


async def of_each(db: asyncpg.Connection, ids: Sequence[int]) -> Mapping[int, asyncpg.Record]:
    """Return the rows of the view for *ids*."""
    rows = await db.fetch("SELECT * FROM dispatcher.message_status WHERE id = ANY ($1)", ids)
    return {row["id"]: row for row in rows}


async def is_idle(db: asyncpg.Connection) -> bool:
    """Tell whether nothing is due or on its way: what is left waits for a later time."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.queue WHERE due_at <= clock_timestamp())"
        " OR EXISTS (SELECT FROM dispatcher.bulk WHERE due_at <= clock_timestamp())"
        " OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
    )


async def finished(db: asyncpg.Connection) -> bool:
    """Tell whether every message has its end, or is unsure."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.queue) OR EXISTS (SELECT FROM dispatcher.bulk)"
        " OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
    )


async def idle(db: asyncpg.Connection) -> bool:
    """Tell whether nothing is on its way."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
    )
