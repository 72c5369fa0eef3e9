"""What the console and the metrics look up.

Nothing here counts rows of a big table: totals come from the counters, and look-ups are bounded.
"""

from datetime import datetime
from typing import Literal

import asyncpg

from dispatcher.core.message import to_e164
from dispatcher.core.rules import RuleList
from dispatcher.core.status import (
    BatchStory,
    EventTotal,
    MessageHistory,
    MessageSummary,
    MissingReports,
    StatusSnapshot,
    UnmatchedReport,
    UnsureBatch,
)
from dispatcher.db import admin, cost, reports
from dispatcher.db import rules as rules_of
from dispatcher.db.database import Connection, Pool
from dispatcher.db.queries import sql

MOST = 200  # rows of one list
LOOK_TIME = 20.0  # seconds for a search: the partition being filled may be read whole
HOME = "+86"  # a mainland number may be written with it or without

SeriesPoint = tuple[datetime, str, int]  # beginning of the step, event, how often
Search = Literal["id", "recipient", "reference", "provider_id"]


async def now(pool: Pool) -> StatusSnapshot:
    """Return the state of everything, small whatever the number of messages."""
    async with pool.acquire() as connection:
        return await admin.now(connection)


async def totals(pool: Pool) -> list[EventTotal]:
    """Return what happened in the last hour and the last day."""
    async with pool.acquire() as connection:
        return await admin.totals(connection)


async def rules(pool: Pool) -> RuleList:
    """Return the operators' rules, of the suppressed numbers the newest."""
    async with pool.acquire() as connection:
        limits = await rules_of.limits(connection)
        today = {
            app: await rules_of.sent_today(connection, app)
            for app, each in limits.items()
            if each.ceiling is not None
        }
        return RuleList(
            await rules_of.templates(connection),
            limits,
            today,
            await rules_of.suppression(connection, limit=MOST),
            await cost.prices(connection),
        )


async def series(pool: Pool, app: str | None, span: float, step: float) -> list[SeriesPoint]:
    """Return what happened in the last *span* seconds, counted in steps of *step* seconds."""
    return [tuple(row) for row in await pool.fetch(sql("console_series"), app, span, step)]


async def awaiting(pool: Pool) -> list[MissingReports]:
    """Return by app what of the accepted has no report yet."""
    async with pool.acquire() as connection:
        return await reports.awaiting(connection)


async def unmatched(pool: Pool) -> list[UnmatchedReport]:
    """Return the newest reports that belong to no message."""
    async with pool.acquire() as connection:
        return await reports.unmatched(connection, limit=MOST)


async def unsure(pool: Pool) -> list[UnsureBatch]:
    """Return the requests that may have been sent, oldest first."""
    return [UnsureBatch(*row) for row in await pool.fetch(sql("console_unsure"), MOST)]


async def find(pool: Pool, by: Search, text: str) -> list[MessageSummary]:
    """Return the messages that *text* finds, the newest first, at most `MOST`."""
    wanted: object = text
    if by == "id":
        wanted = int(text)
    elif by == "recipient":
        number = to_e164(text)
        wanted = [number, number.removeprefix(HOME)] if number.startswith(HOME) else [number]
    rows = await pool.fetch(sql(f"find_by_{by}"), wanted, MOST, timeout=LOOK_TIME)
    return [MessageSummary(*row) for row in rows]


async def story(pool: Pool, message_id: int) -> MessageHistory | None:
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
        return BatchStory(dict(row), [MessageSummary(*message) for message in messages])


def _snapshot(connection: Connection) -> asyncpg.transaction.Transaction:
    return connection.transaction(isolation="repeatable_read", readonly=True)
