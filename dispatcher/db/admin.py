"""What operators ask and do: the state of things, one message's story, cancel, requeue, settle."""

from typing import Final

import asyncpg
from msgspec.structs import replace

from dispatcher.core.message import to_e164
from dispatcher.core.number import fits_mask, is_masked, possible_forms
from dispatcher.core.status import (
    AppState,
    EventCount,
    EventTotal,
    MessageHistory,
    OutcomeSummary,
    StatusSnapshot,
    UnsureBatch,
    WorkerState,
)
from dispatcher.db import reports as reports_of
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

LISTED: Final = 10  # unsure batches


async def now(connection: Connection) -> StatusSnapshot:
    """Return the state of everything but what changes slowly, small whatever there is."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return StatusSnapshot(
            await connection.fetchval(sql("database_time")),
            [AppState(*row) for row in await connection.fetch(sql("status_apps"))],
            [WorkerState(*row) for row in await connection.fetch(sql("status_workers"))],
            [EventCount(*row) for row in await connection.fetch(sql("console_recent"))],
            unreadable=await reports_of.unreadable_count(connection),
        )


async def totals(connection: Connection) -> list[EventTotal]:
    """Return what happened in the last hour and the last day."""
    return [EventTotal(*row) for row in await connection.fetch(sql("status_totals"))]


async def overview(connection: Connection, *, reports: bool = False) -> StatusSnapshot:
    """Return the state of everything; with *reports*, also which are missing."""
    awaiting = await reports_of.awaiting(connection) if reports else []
    seen = await now(connection)
    unsure = [UnsureBatch(*row) for row in await connection.fetch(sql("console_unsure"), LISTED)]
    return replace(seen, totals=await totals(connection), awaiting=awaiting, unsure=unsure)


async def story(connection: Connection, message_id: int) -> MessageHistory | None:
    """Return everything known of a message, or None if there is no such message."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        message = await connection.fetchrow(sql("show_message"), message_id)
        if message is None:
            return None
        batches = await connection.fetch(
            sql("show_batches"), message_id, message["app"], message["queued_at"]
        )
        reports = await connection.fetch(
            sql("show_reports"),
            message["provider_id"],
            [batch["token"] for batch in batches],
        )
        about = [dict(report) for report in reports if _is_about(report, message)]
        return MessageHistory(dict(message), list(map(dict, batches)), about)


def _is_about(report: asyncpg.Record, message: asyncpg.Record) -> bool:
    """Tell whether *report*, found under a request of *message*, may be about it."""
    if report["provider_id"] == message["provider_id"]:
        return True
    forms = possible_forms(report["recipient"]) if report["recipient"] else []
    if not forms:
        return report["unmatched"] is not None
    number = to_e164(message["recipient"])
    return any(fits_mask(number, form) if is_masked(form) else form == number for form in forms)


async def cancel(connection: Connection, ids: list[int]) -> int:
    """Cancel what still waits of *ids*; return how many."""
    return int(await connection.fetchval(sql("operator_cancel"), ids))


async def requeue(connection: Connection, ids: list[int]) -> int:
    """Send the rejected and expired of *ids* again; return how many."""
    return int(await connection.fetchval(sql("operator_requeue"), ids))


async def settle(connection: Connection, token: str, how: str) -> int | None:
    """Settle an unsure batch as ``sent`` or ``resend``; return how many messages it settled.

    None if no unsure batch has this token.
    """
    try:
        async with connection.transaction():  # so that a caller's own goes on after a refusal
            return int(await connection.fetchval(sql("operator_settle"), token, how))
    except asyncpg.NoDataFoundError:
        return None


async def pause(connection: Connection, app: str, reason: str) -> None:
    """Stop claiming for *app* until :func:`resume`."""
    await connection.execute(sql("operator_pause"), app, reason)


async def resume(connection: Connection, app: str) -> None:
    """Claim for *app* again."""
    await connection.execute(sql("operator_resume"), app)


async def app_names(connection: Connection) -> list[str]:
    """Return the apps that anybody has named so far."""
    return [row["name"] for row in await connection.fetch(sql("app_names"))]


async def outcome_summary(connection: Connection) -> list[OutcomeSummary]:
    """Return what became of all messages; reads every one there is."""
    return [OutcomeSummary(*row) for row in await connection.fetch(sql("outcome_summary"))]


async def outcome_counts(connection: Connection) -> dict[str, int]:
    """Return how many messages are finished, by state; reads every outcome there is."""
    return {row["state"]: row["messages"] for row in await connection.fetch(sql("outcome_counts"))}
