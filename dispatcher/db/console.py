"""What the console and the metrics look up, and what operators do there, written down.

Nothing here counts rows of a big table: totals come from the counters, and look-ups are bounded.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

import asyncpg

from dispatcher.core.message import canonical
from dispatcher.core.overview import (
    AppState,
    Awaiting,
    BatchStory,
    Count,
    Deed,
    Found,
    Now,
    Story,
    Total,
    Unmatched,
    UnsureBatch,
    WorkerState,
)
from dispatcher.db import admin, reports
from dispatcher.db.pool import Connection, Pool
from dispatcher.db.statements import sql

MOST = 200  # rows of one list
LOOK_TIME = 20.0  # seconds for a search: the partition being filled may be read whole
INDEX_TIME = 3600.0  # seconds for one index; it holds nobody up
HOME = "+86"  # a mainland number may be written with it or without

Step = tuple[datetime, str, int]  # beginning of the step, event, how often
Search = Literal["id", "recipient", "reference", "provider_id"]


async def now(pool: Pool) -> Now:
    """Return the state of everything, small whatever the number of messages."""
    async with pool.acquire() as connection, _snapshot(connection):
        return Now(
            await connection.fetchval(sql("database_time")),
            [AppState(*row) for row in await connection.fetch(sql("status_apps"))],
            [WorkerState(*row) for row in await connection.fetch(sql("status_workers"))],
            [Count(*row) for row in await connection.fetch(sql("console_recent"))],
        )


async def totals(pool: Pool) -> list[Total]:
    """Return what happened in the last hour and the last day."""
    return [Total(*row) for row in await pool.fetch(sql("status_totals"))]


async def series(pool: Pool, app: str | None, span: float, step: float) -> list[Step]:
    """Return what happened in the last *span* seconds, counted in steps of *step* seconds."""
    return [tuple(row) for row in await pool.fetch(sql("console_series"), app, span, step)]


async def awaiting(pool: Pool) -> list[Awaiting]:
    """Return by app what of the accepted has no report yet."""
    async with pool.acquire() as connection:
        return await reports.awaiting(connection)


async def unmatched(pool: Pool) -> list[Unmatched]:
    """Return the newest reports that belong to no message."""
    async with pool.acquire() as connection:
        return await reports.unmatched(connection, limit=MOST)


async def unsure(pool: Pool) -> list[UnsureBatch]:
    """Return the requests that may have been sent, oldest first."""
    return [UnsureBatch(*row) for row in await pool.fetch(sql("console_unsure"), MOST)]


async def find(pool: Pool, by: Search, text: str) -> list[Found]:
    """Return the messages that *text* finds, the newest first, at most `MOST`."""
    wanted: object = text
    if by == "id":
        wanted = int(text)
    elif by == "recipient":
        number = canonical(text)
        wanted = [number, number.removeprefix(HOME)] if number.startswith(HOME) else [number]
    rows = await pool.fetch(sql(f"find_by_{by}"), wanted, MOST, timeout=LOOK_TIME)
    return [Found(*row) for row in rows]


async def story(pool: Pool, message_id: int) -> Story | None:
    """Return everything known of a message, or None if there is no such message."""
    async with pool.acquire() as connection:
        return await admin.story(connection, message_id)


async def batch(pool: Pool, token: str) -> BatchStory | None:
    """Return a request and its messages, or None if no request has this token."""
    async with pool.acquire() as connection, _snapshot(connection):
        row = await connection.fetchrow(sql("batch_story"), token)
        if row is None:
            return None
        messages = await connection.fetch(sql("batch_messages"), row["id"])
        return BatchStory(dict(row), [Found(*message) for message in messages])


async def deeds(pool: Pool) -> list[Deed]:
    """Return what operators did, the newest first."""
    return [Deed(*row) for row in await pool.fetch(sql("audit_list"), MOST)]


async def look_closely(pool: Pool, who: str, message_id: int) -> None:
    """Write down that *who* was shown the number and the variables of a message."""
    await pool.execute(sql("audit"), who, "reveal", f"message {message_id}", "", "")


async def pause(pool: Pool, who: str, app: str, reason: str) -> str:
    """Stop claiming for *app*; return what came of it."""

    async def act(connection: Connection) -> str:
        await admin.pause(connection, app, f"{reason or 'no reason given'} ({who})")
        return "paused"

    return await _do(pool, who, act, action="pause", target=app, detail=reason)


async def resume(pool: Pool, who: str, app: str) -> str:
    """Claim for *app* again; return what came of it."""

    async def act(connection: Connection) -> str:
        await admin.resume(connection, app)
        return "resumed"

    return await _do(pool, who, act, action="resume", target=app)


async def cancel(pool: Pool, who: str, ids: list[int]) -> str:
    """Cancel what still waits of *ids*; return what came of it."""

    async def act(connection: Connection) -> str:
        return f"{await admin.cancel(connection, ids)} of {len(ids)} cancelled"

    return await _do(pool, who, act, action="cancel", target=_messages(ids), detail=_listed(ids))


async def requeue(pool: Pool, who: str, ids: list[int]) -> str:
    """Send the rejected and expired of *ids* again; return what came of it."""

    async def act(connection: Connection) -> str:
        return f"{await admin.requeue(connection, ids)} of {len(ids)} wait again"

    return await _do(pool, who, act, action="requeue", target=_messages(ids), detail=_listed(ids))


async def settle(pool: Pool, who: str, token: str, how: str) -> str:
    """Settle an unsure batch as ``sent`` or ``resend``; return what came of it."""

    async def act(connection: Connection) -> str:
        settled = await admin.settle(connection, token, how)
        if settled is None:
            return "not settled: the batch is not unsure, or not any more"
        return f"{settled} {'taken as sent' if how == 'sent' else 'wait again'}"

    return await _do(pool, who, act, action="settle", target=f"batch {token}", detail=how)


async def index_full_partitions(pool: Pool) -> int:
    """Make the indexes that full partitions lack, one after the other; return how many.

    Only the owner of the tables can: for others they stay as they are, and searches take longer.
    """
    done = 0
    async with pool.acquire() as connection:
        while statements := await connection.fetch(sql("missing_indexes")):
            try:
                await connection.execute(statements[0][0], timeout=INDEX_TIME)
            except asyncpg.InsufficientPrivilegeError:
                break
            done += 1
    return done


async def _do(
    pool: Pool,
    who: str,
    act: Callable[[Connection], Awaitable[str]],
    *,
    action: str,
    target: str,
    detail: str = "",
) -> str:
    """Do something and write it down, both or neither."""
    async with pool.acquire() as connection, connection.transaction():
        result = await act(connection)
        await connection.execute(sql("audit"), who, action, target, detail, result)
        return result


def _snapshot(connection: Connection) -> asyncpg.transaction.Transaction:
    return connection.transaction(isolation="repeatable_read", readonly=True)


def _messages(ids: list[int]) -> str:
    return f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages"


def _listed(ids: list[int]) -> str:
    return " ".join(map(str, ids)) if len(ids) > 1 else ""
