"""Operators' actions: one SQL function each, which acts and writes the audit in one transaction.

Each takes the *actor*, who does it. The same functions are there for psql (0002_functions.sql), and
the audit is written there too.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import asyncpg
from msgspec import Struct

from dispatcher.core.message import spellings, to_e164
from dispatcher.core.rules import Limits
from dispatcher.core.status import AuditEntry
from dispatcher.core.templates import Template
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql


class ActionResult(Struct, frozen=True):
    """The result of an operator's action."""

    count: int | None  # messages, numbers or definitions concerned; None: there is no such thing
    said: str  # in one line, as in the audit


class Forgotten(Struct, frozen=True):
    """The result of erasing a person's messages."""

    erased: list[int]
    left: list[int]  # may be on their way
    suppressed: bool  # the number is still suppressed


async def pause(connection: Connection, actor: str, app: str, reason: str) -> ActionResult:
    """Stop claiming for *app*; status shows the reason and the actor."""
    await connection.execute(sql("pause"), app, reason, actor)
    return ActionResult(1, "paused")


async def resume(connection: Connection, actor: str, app: str) -> ActionResult:
    """Claim for *app* again."""
    await connection.execute(sql("resume"), app, actor)
    for waits in ("end_country_waits", "end_refusal_waits"):
        while await connection.fetchval(sql(waits), app):
            pass  # in steps, each its own transaction: claims go on
    return ActionResult(1, "resumed")


async def cancel(connection: Connection, actor: str, ids: list[int]) -> ActionResult:
    """Cancel those of *ids* that still wait."""
    count = await connection.fetchval(sql("cancel"), ids, actor)
    return ActionResult(count, f"{count} of {len(ids)} cancelled")


async def requeue(connection: Connection, actor: str, ids: list[int]) -> ActionResult:
    """Return the rejected and expired of *ids* to the queue."""
    count = await connection.fetchval(sql("requeue"), ids, actor)
    return ActionResult(count, f"{count} of {len(ids)} wait again")


async def find_by_code(connection: Connection, code: str, since: datetime) -> list[int]:
    """Return the messages that may be requeued and have had *code* since then, by id.

    Rejected and expired ones by the code of their outcome; of the accepted ones those that the
    platform refused by that status in their reports, before anything was sent. None of a cancelled
    campaign.
    """
    rows = await connection.fetch(sql("requeueable"), code, since)
    return [row["message_id"] for row in rows]


async def of_cancelled_campaigns(connection: Connection, ids: list[int]) -> set[int]:
    """Return which of *ids* are of cancelled campaigns: they cannot be requeued."""
    return {row["id"] for row in await connection.fetch(sql("of_cancelled_campaigns"), ids)}


async def settle_lost(connection: Connection, actor: str, ids: list[int], how: str) -> ActionResult:
    """Settle those of *ids* that a fail-over has lost as ``sent`` or ``resend``."""
    count = await connection.fetchval(sql("settle_lost"), ids, how, actor)
    return ActionResult(count, f"{count} of {len(ids)} settled")


async def settle(connection: Connection, actor: str, token: str, how: str) -> ActionResult:
    """Settle an unsure batch as ``sent`` or ``resend``.

    The count is None if no unsure batch has this token. The SQL function raises then and writes
    nothing, so the refusal is written to the audit here.
    """
    try:
        async with connection.transaction():  # so that a caller's own goes on after a refusal
            count = await connection.fetchval(sql("settle"), token, how, actor)
    except asyncpg.NoDataFoundError:
        said = "not settled: the batch is not unsure, or not any more"
        await connection.execute(sql("append_audit"), actor, "settle", f"batch {token}", how, said)
        return ActionResult(None, said)
    return ActionResult(count, f"{count} {'taken as sent' if how == 'sent' else 'wait again'}")


class UnsureBatches(Struct, frozen=True):
    """Which unsure batches an operator settles together; None: any."""

    app: str | None = None
    code: str | None = None
    since: datetime | None = None  # when they became unsure
    until: datetime | None = None


async def count_unsure(connection: Connection, chosen: UnsureBatches) -> tuple[int, int]:
    """Return how many batches and messages *chosen* are."""
    row = await connection.fetchrow(
        sql("count_unsure"), chosen.app, chosen.code, chosen.since, chosen.until
    )
    return (row["batches"], row["messages"]) if row else (0, 0)


async def settle_batches(
    connection: Connection, actor: str, chosen: UnsureBatches, how: str
) -> ActionResult:
    """Settle all *chosen* batches, a thousand in a transaction; the count is of messages.

    Not those that become unsure after its begin: one that it has resent may be among them.
    """
    messages = 0
    until = chosen.until or await connection.fetchval(sql("database_time"))
    while True:
        row = await connection.fetchrow(
            sql("settle_batches"), chosen.app, chosen.code, chosen.since, until, how, actor
        )
        if row is None or row["batches"] == 0:
            said = f"{messages} {'taken as sent' if how == 'sent' else 'wait again'}"
            return ActionResult(messages, said)
        messages += row["messages"]


async def record_reveal(
    connection: Connection, actor: str, message_id: int, what: str = ""
) -> ActionResult:
    """Write to the audit that *actor* was shown the number and the variables of a message."""
    target = f"message {message_id}"
    await connection.execute(sql("append_audit"), actor, "reveal", target, what, "")
    return ActionResult(1, "")


async def message_as_stored(connection: Connection, message_id: int, tokens: Sequence[str]) -> str:
    """Return the rows of a message, its requests with *tokens*, and its reports, as JSON."""
    text: str = await connection.fetchval(sql("message_as_stored"), message_id, tokens)
    return text


async def record_export(connection: Connection, actor: str, what: str) -> None:
    """Write to the audit that *actor* exported whole numbers of messages."""
    await connection.execute(sql("append_audit"), actor, "export", what, "", "whole numbers")


async def suppress(
    connection: Connection,
    actor: str,
    numbers: Sequence[str],
    reason: str,
    *,
    app: str = "",
    promotional: bool = False,
) -> ActionResult:
    """Never send to *numbers* any more. The audit has how many, and no number.

    *app* and *promotional* narrow it to messages of one app, and to promotional ones.
    """
    count = await connection.fetchval(sql("suppress"), numbers, reason, app, promotional, actor)
    return ActionResult(count, f"{_numbers(count)} new")


async def unsuppress(
    connection: Connection,
    actor: str,
    numbers: Sequence[str],
    *,
    app: str = "",
    promotional: bool = False,
) -> ActionResult:
    """Send to *numbers* again; with *app* or *promotional* end only what was suppressed so."""
    count = await connection.fetchval(sql("unsuppress"), numbers, app, promotional, actor)
    return ActionResult(count, f"{_numbers(count)} freed")


async def define_template(
    connection: Connection, actor: str, template: Template, note: str, text: str | None = None
) -> ActionResult:
    """Define what variables a template takes, or define it anew; *text* counts segments."""
    await connection.execute(
        sql("define_template"),
        template.template_id,
        template.kinds,
        note,
        text,
        template.promotional,
        actor,
    )
    return ActionResult(1, "defined")


async def drop_template(connection: Connection, actor: str, template_id: str) -> ActionResult:
    """Check the variables of a template no more."""
    if await connection.fetchval(sql("drop_template"), template_id, actor):
        return ActionResult(1, "removed")
    return ActionResult(None, "there is no such template")


async def set_limits(connection: Connection, actor: str, app: str, limits: Limits) -> ActionResult:
    """Set the limits of *app*, all at once."""
    await connection.execute(
        sql("set_limits"),
        app,
        limits.per_minute,
        limits.per_day,
        limits.same_per_minute,
        limits.same_per_hour,
        limits.daily_limit,
        limits.quiet_from,
        limits.quiet_until,
        actor,
    )
    return ActionResult(1, "set")


async def set_price(
    connection: Connection, actor: str, country: str, price: Decimal, currency: str
) -> ActionResult:
    """Set what a segment to *country* costs."""
    await connection.execute(sql("set_price"), country, price, currency, actor)
    return ActionResult(1, "set")


async def forget(connection: Connection, actor: str, number: str) -> Forgotten:
    """Erase the person with *number*. The audit has which messages, and no number.

    A suppressed number stays suppressed, for that is what its owner wants; the reason, which may
    identify the owner, is deleted.
    """
    row = await connection.fetchrow(sql("forget"), spellings(to_e164(number)), actor)
    if row is None:  # it always returns one
        return Forgotten([], [], suppressed=False)
    return Forgotten(row["erased"], row["left_alone"], suppressed=row["suppressed"])


async def export(connection: Connection, number: str) -> list[str]:
    """Return everything stored of the person with *number*, a JSON text each."""
    messages = await connection.fetch(sql("export_messages"), spellings(to_e164(number)))
    listed = await connection.fetch(sql("export_suppression"), to_e164(number))
    replies = await connection.fetch(sql("export_replies"), to_e164(number))
    return [row[0] for row in (*messages, *replies, *listed)]


async def audit_entries(connection: Connection, limit: int) -> list[AuditEntry]:
    """Return the newest entries of the audit, the newest first."""
    return [AuditEntry(*row) for row in await connection.fetch(sql("audit_list"), limit)]


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count:,} numbers"
