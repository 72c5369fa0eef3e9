"""What operators ask and do: the state of things, one message's story, cancel, requeue, settle."""

from datetime import datetime
from typing import Any

import asyncpg
from msgspec import Struct

from dispatcher.db.pool import OwnConnection as Connection
from dispatcher.db.statements import sql

WAITING_COUNTED = 10_000  # more than this many waiting messages are not counted one by one


class AppState(Struct, frozen=True):
    """One app, now."""

    name: str
    known: bool  # False: messages wait for it, and no worker was ever configured for it
    paused_at: datetime | None
    paused_by: str | None
    pause_code: str | None
    pause_reason: str | None
    probe_at: datetime | None
    numbers_per_second: float | None  # as configured
    rate: float | None  # as it is now
    waiting: int  # WAITING_COUNTED + 1 means more than that
    oldest_due_at: datetime | None
    sending: int
    unsure_batches: int
    paused_countries: list[str]


class WorkerState(Struct, frozen=True):
    """One worker that runs, or that died without saying so."""

    id: int
    host: str
    pid: int
    version: str
    apps: list[str]
    started_at: datetime
    silent_seconds: float
    alive: bool


class Total(Struct, frozen=True):
    """How often something happened."""

    app: str
    event: str
    code: str
    hour: int
    day: int


class Overview(Struct, frozen=True):
    """The state of everything, small whatever the number of messages."""

    apps: list[AppState]
    workers: list[WorkerState]
    totals: list[Total]


class Story(Struct, frozen=True):
    """One message, its requests and its reports, as the database has them."""

    message: dict[str, Any]
    batches: list[dict[str, Any]]
    reports: list[dict[str, Any]]


async def overview(connection: Connection) -> Overview:
    """Return the state of everything."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return Overview(
            [AppState(*row) for row in await connection.fetch(sql("status_apps"))],
            [WorkerState(*row) for row in await connection.fetch(sql("status_workers"))],
            [Total(*row) for row in await connection.fetch(sql("status_totals"))],
        )


async def story(connection: Connection, message_id: int) -> Story | None:
    """Return everything known of a message, or None if there is no such message."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        message = await connection.fetchrow(sql("show_message"), message_id)
        if message is None:
            return None
        batches = await connection.fetch(
            sql("show_batches"), message_id, message["app"], message["queued_at"]
        )
        reports = await connection.fetch(sql("show_reports"), message["provider_id"])
        return Story(dict(message), list(map(dict, batches)), list(map(dict, reports)))


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


async def outcome_summary(connection: Connection) -> list[tuple[str, str | None, str | None, int]]:
    """Return state, code, reason and number of messages; reads every message there is."""
    return [tuple(row) for row in await connection.fetch(sql("outcome_summary"))]


async def outcome_counts(connection: Connection) -> dict[str, int]:
    """Return how many messages are finished, by state; reads every outcome there is."""
    return {row["state"]: row["messages"] for row in await connection.fetch(sql("outcome_counts"))}
