"""Campaigns: what operators do with them, their progress, and the export of messages."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import asyncpg
from msgspec import Struct

from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

STEP_MESSAGES: Final = 10_000  # requeued in one transaction
RATE_SECONDS: Final = 600  # over which the rate of a campaign is taken
MAX_NAME_CHARACTERS: Final = 100  # as the database has it
MAX_LISTED: Final = 1_000  # campaigns
PREFETCHED_ROWS: Final = 2_000  # of an export, in memory


class CampaignError(Exception):
    """The campaign does not exist, or cannot be changed so; the text says which."""


class Campaign(Struct, frozen=True):
    """A campaign as it is now."""

    name: str
    state: str  # running, paused or cancelled
    reason: str | None
    file: str | None
    created_by: str
    created_at: datetime
    changed_by: str | None
    changed_at: datetime | None
    waiting: int
    imported: int | None  # from files


class CampaignState(Struct, frozen=True):
    """How many messages of a campaign are in one state, with one code."""

    state: str
    code: str | None
    reason: str | None
    messages: int
    segments: int
    recent: int  # accepted in the last RATE_SECONDS


async def pause(connection: Connection, actor: str, name: str, reason: str) -> None:
    """Stop claiming messages of a campaign. Raises CampaignError."""
    await _change(connection, "pause_campaign", name, reason, actor)


async def resume(connection: Connection, actor: str, name: str) -> None:
    """Claim messages of a campaign again. Raises CampaignError."""
    await _change(connection, "resume_campaign", name, actor)


async def cancel(connection: Connection, actor: str, name: str, reason: str) -> None:
    """Claim no message of a campaign any more. Raises CampaignError."""
    await _change(connection, "cancel_campaign", name, reason, actor)


async def cancel_step(connection: Connection) -> int:
    """Write the outcomes of some messages of cancelled campaigns; return how many."""
    return int(await connection.fetchval(sql("cancel_campaign_step")))


async def requeue(connection: Connection, actor: str, name: str) -> int:
    """Return the rejected and expired messages of a campaign to the queue; return how many."""
    if await find(connection, name) is None:
        raise CampaignError(f"there is no campaign {name}")
    total, last = 0, 0
    while True:
        row = await connection.fetchrow(
            sql("requeue_campaign_step"), name, last, STEP_MESSAGES, actor
        )
        if row is None or row["last_id"] is None:
            return total
        total, last = total + row["requeued"], row["last_id"]


async def begin(connection: Connection, actor: str, name: str, file: str) -> bool:
    """Begin a campaign for *file*; return False if the name is taken."""
    return await connection.fetchval(sql("campaign_claim_name"), name, file, actor) is not None


async def stop_at(connection: Connection, name: str, share: float) -> None:
    """Let a campaign pause by itself when *share* of its finished messages has failed."""
    await connection.execute(sql("campaign_stop_at"), name, share)


async def campaigns(connection: Connection) -> list[Campaign]:
    """Return the campaigns, the newest first."""
    return [Campaign(*row) for row in await connection.fetch(sql("campaigns"), MAX_LISTED)]


async def find(connection: Connection, name: str) -> Campaign | None:
    """Return one campaign; None if there is none of this name."""
    row = await connection.fetchrow(sql("campaign"), name)
    return Campaign(*row) if row else None


async def states(connection: Connection, name: str) -> list[CampaignState]:
    """Return how many messages are in each state; reads every message of the campaign."""
    rows = await connection.fetch(sql("campaign_states"), name, RATE_SECONDS, timeout=None)
    return [CampaignState(*row) for row in rows]


async def export(
    connection: Connection,
    *,
    campaign: str | None = None,
    app: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
) -> AsyncIterator[tuple[Any, ...]]:
    """Yield the messages that all of the conditions fit, oldest first, with few in memory."""
    first = await connection.fetchval(sql("export_from"), campaign)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(sql("plan_for_all_rows"))
        cursor = connection.cursor(
            sql("export_rows"), campaign, app, state, since, first, prefetch=PREFETCHED_ROWS,
            timeout=None,
        )  # fmt: skip
        async for row in cursor:
            yield tuple(row)


async def _change(connection: Connection, statement: str, *arguments: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(sql(statement), *arguments)
    except (asyncpg.NoDataFoundError, asyncpg.ObjectNotInPrerequisiteStateError) as error:
        raise CampaignError(error.message or "the campaign cannot be changed") from None
