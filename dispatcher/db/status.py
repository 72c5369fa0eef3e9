"""What the console, the command line and the metrics read.

Nothing here but the two functions for a demo counts rows of a big table: totals come from the
counters, and look-ups are bounded.
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Literal

import asyncpg
from msgspec.structs import replace

from dispatcher.core.message import spellings, to_e164
from dispatcher.core.number import fits_mask, forms_in_request, is_masked
from dispatcher.core.rules import RuleList, Suppressed
from dispatcher.core.status import (
    AppState,
    BatchStory,
    DeliveredMessage,
    EventCount,
    EventTotal,
    MessageHistory,
    MessageSummary,
    MinuteCount,
    MissingReports,
    OutcomeSummary,
    StatusSnapshot,
    StoppedCampaign,
    UnmatchedReport,
    UnsureBatch,
    WorkerState,
)
from dispatcher.db import cost
from dispatcher.db import reports as reports_of
from dispatcher.db import rules as rules_of
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.message_lists import NEWEST
from dispatcher.db.queries import sql

MOST = 200  # rows of one list
LISTED_BATCHES = 10  # unsure batches in an overview
SAMPLED_EVENTS = 50_000  # read for times of delivery
SAMPLED_MESSAGES = 5_000
LOOK_TIME = 20.0  # seconds for a search: the partition being filled may be read whole

SeriesPoint = tuple[datetime, str, int]  # beginning of the step, event, how often
Search = Literal["id", "recipient", "reference", "provider_id", "token"]


async def now(database: Database) -> StatusSnapshot:
    """Return the state of everything, small whatever the number of messages."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await snapshot(connection)


async def totals(database: Database) -> list[EventTotal]:
    """Return what happened in the last hour and the last day."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await event_totals(connection)


async def rules(database: Database) -> RuleList:
    """Return the operators' rules, of the suppressed numbers the newest."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        limits = await rules_of.limits(connection)
        limited = (app for app, each in limits.items() if each.daily_limit is not None)
        today = await rules_of.sent_today(connection, limited)
        return RuleList(
            await rules_of.templates(connection),
            limits,
            today,
            await rules_of.suppression(connection, limit=MOST),
            await cost.prices(connection),
            await rules_of.texts(connection),
        )


async def suppressions_of(database: Database, number: str) -> list[Suppressed]:
    """Return why a number, in canonical form, is suppressed; nothing if it is not."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await rules_of.suppressions_of(connection, number)


async def series(
    database: Database, app: str | None, span: float, step: float
) -> list[SeriesPoint]:
    """Return what happened in the last *span* seconds, counted in steps of *step* seconds."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        rows = await connection.fetch(sql("count_series"), app, span, step)
        return [tuple(row) for row in rows]


async def last_hour(database: Database) -> list[MinuteCount]:
    """Return what happened in each minute of the last hour, by app."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return [MinuteCount(*row) for row in await connection.fetch(sql("last_hour"))]


async def delivery_sample(
    database: Database, since: timedelta, until: timedelta
) -> list[DeliveredMessage]:
    """Return some of the messages that were reported between these times ago, the newest first."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        now = await connection.fetchval(sql("database_time"))
        arguments = (now - since, now - until, SAMPLED_EVENTS, SAMPLED_MESSAGES)
        rows = await connection.fetch(sql("delivery_sample"), *arguments)
        ids = [row["id"] for row in rows]
        messages = {row["id"]: row for row in await connection.fetch(sql("sampled_messages"), ids)}
        answered = dict(await connection.fetch(sql("sampled_outcomes"), ids))
    return [
        DeliveredMessage(
            message["app"],
            message["template_id"],
            message["recipient"],
            row["delivered"],
            max(0.0, (row["created_at"] - answered[row["id"]]).total_seconds()),
        )
        for row in rows
        # Retention may have dropped it.
        if (message := messages.get(row["id"])) is not None and row["id"] in answered
    ]


async def awaiting(database: Database) -> list[MissingReports]:
    """Return by app what of the accepted has no report yet."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await reports_of.awaiting(connection)


async def unmatched(database: Database) -> list[UnmatchedReport]:
    """Return the newest reports that belong to no message."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await reports_of.unmatched(connection, limit=MOST)


async def unsure(database: Database) -> list[UnsureBatch]:
    """Return the requests that may have been sent, oldest first."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return [UnsureBatch(*row) for row in await connection.fetch(sql("unsure_batches"), MOST)]


async def find(database: Database, by: Search, text: str) -> list[MessageSummary]:
    """Return the messages that *text* finds, the newest first, at most `MOST`."""
    async with database.acquire(seconds=LOOK_TIME) as connection:
        return await find_in(connection, by, text)


async def find_in(connection: Connection, by: Search, text: str) -> list[MessageSummary]:
    """Return the messages that *text* finds, as :func:`find`, over one connection."""
    if by == "id":
        return await _summaries(connection, [int(text)])
    if by == "recipient":
        numbers = spellings(to_e164(text))
        rows = await connection.fetch(sql("recipient_piece"), NEWEST, MOST, numbers)
    elif by == "reference":
        rows = await connection.fetch(sql("reference_piece"), NEWEST, MOST, text)
    elif by == "token":
        rows = await connection.fetch(sql("batch_message_ids"), text, MOST)
    else:
        rows = await connection.fetch(sql("id_of_provider_id"), text, MOST)
    return await _summaries(connection, [row["id"] for row in rows])


async def _summaries(connection: Connection, ids: list[int]) -> list[MessageSummary]:
    """Return the messages of *ids*, in this order."""
    rows = await connection.fetch(sql("message_summaries"), ids)
    return [MessageSummary(*row) for row in rows]


async def story(database: Database, message_id: int) -> MessageHistory | None:
    """Return everything known of a message, or None if there is no such message."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await message_history(connection, message_id)


async def batch(database: Database, token: str) -> BatchStory | None:
    """Return a request and its messages, or None if no request has this token."""
    async with (
        database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection,
        _snapshot(connection),
    ):
        row = await connection.fetchrow(sql("batch_story"), token)
        if row is None:
            return None
        fields = dict(row)
        return BatchStory(fields, await _summaries(connection, fields.pop("message_ids")))


async def snapshot(connection: Connection) -> StatusSnapshot:
    """Return the state of everything but what changes slowly, small whatever there is."""
    async with _snapshot(connection):
        return StatusSnapshot(
            await connection.fetchval(sql("database_time")),
            await _apps(connection),
            [WorkerState(*row) for row in await connection.fetch(sql("status_workers"))],
            [EventCount(*row) for row in await connection.fetch(sql("recent_counts"))],
            unreadable=await reports_of.unreadable_count(connection),
        )


async def _apps(connection: Connection) -> list[AppState]:
    apps = [AppState(*row) for row in await connection.fetch(sql("status_apps"))]
    names = [app.name for app in apps]
    due = dict(await connection.fetch(sql("due_counts"), names))
    stopped = defaultdict[str, list[StoppedCampaign]](list)
    for row in await connection.fetch(sql("stopped_in_front"), names):
        stopped[row["app"]].append(StoppedCampaign(row["name"], row["state"], row["reason"]))
    beside = await connection.fetch(sql("oldest_due_beside"), list(stopped)) if stopped else []
    oldest = {app.name: app.oldest_due_at for app in apps} | dict(beside)
    return [
        replace(
            app,
            due=due[app.name],
            oldest_due_at=oldest[app.name],
            stopped_campaigns=stopped[app.name],
        )
        for app in apps
    ]


async def event_totals(connection: Connection) -> list[EventTotal]:
    """Return what happened in the last hour and the last day."""
    return [EventTotal(*row) for row in await connection.fetch(sql("status_totals"))]


async def overview(connection: Connection, *, reports: bool = False) -> StatusSnapshot:
    """Return the state of everything; with *reports*, also which are missing."""
    awaiting = await reports_of.awaiting(connection) if reports else []
    seen = await snapshot(connection)
    rows = await connection.fetch(sql("unsure_batches"), LISTED_BATCHES)
    return replace(
        seen,
        totals=await event_totals(connection),
        awaiting=awaiting,
        unsure=[UnsureBatch(*row) for row in rows],
    )


async def message_history(connection: Connection, message_id: int) -> MessageHistory | None:
    """Return everything known of a message, or None if there is no such message."""
    async with _snapshot(connection):
        message = await connection.fetchrow(sql("show_message"), message_id)
        if message is None:
            return None
        batches = await connection.fetch(
            sql("show_batches"),
            message_id,
            message["app"],
            message["queued_at"],
            message["outcome_at"],
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
    forms = forms_in_request(report["recipient"]) if report["recipient"] else []
    if not forms:
        return report["unmatched"] is not None
    number = to_e164(message["recipient"])
    return any(fits_mask(number, form) if is_masked(form) else form == number for form in forms)


async def app_names(connection: Connection) -> list[str]:
    """Return the apps that a worker or an operator has named so far."""
    return [row["name"] for row in await connection.fetch(sql("app_names"))]


async def outcome_summary(connection: Connection) -> list[OutcomeSummary]:
    """Return how many messages are in which state and why; reads every message."""
    return [OutcomeSummary(*row) for row in await connection.fetch(sql("outcome_summary"))]


async def outcome_counts(connection: Connection) -> dict[str, int]:
    """Return how many messages are finished, by state; reads every outcome."""
    return {row["state"]: row["messages"] for row in await connection.fetch(sql("outcome_counts"))}


def _snapshot(connection: Connection) -> asyncpg.transaction.Transaction:
    return connection.transaction(isolation="repeatable_read", readonly=True)


async def states_of(connection: Connection, ids: list[int]) -> dict[int, str]:
    """Return the state of each message of *ids*; ``unknown`` for one that does not exist."""
    rows = await connection.fetch(sql("states_of"), ids)
    return dict.fromkeys(ids, "unknown") | {row["id"]: row["state"] for row in rows}
