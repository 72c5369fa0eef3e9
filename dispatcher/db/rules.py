"""The operators' own rules: read for the workers, set by the operators."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from dispatcher.core.codes import number_code
from dispatcher.core.delays import seconds_until_midnight
from dispatcher.core.message import Message, to_e164
from dispatcher.core.outcome import Outcome
from dispatcher.core.rules import (
    ClaimFacts,
    Limits,
    RecipientUsage,
    Rules,
    Suppressed,
    evaluate_rules,
    text_digest,
)
from dispatcher.core.templates import Template
from dispatcher.db.database import PATIENCE, Connection, Pool, borrowed
from dispatcher.db.queries import sql

Row = TypeVar("Row")


async def read_rules(pool: Pool, *, seconds: float = PATIENCE) -> Rules:
    """Return all rules; small, whatever the number of suppressed numbers."""
    async with borrowed(pool, seconds=seconds) as connection:
        templates = await connection.fetch(sql("rule_templates"))
        limits = await connection.fetch(sql("rule_limits"))
        suppressing = await connection.fetchval(sql("rule_suppressing"))
    return Rules(
        {row["template_id"]: Template(*row) for row in templates},
        {row["app"]: Limits(*tuple(row)[1:]) for row in limits},
        suppressing,
    )


async def apply_rules(
    connection: Connection,
    app: str,
    messages: Sequence[Message],
    rules: Rules,
    *,
    now: datetime,
    country: Callable[[str], str],
) -> dict[int, Outcome]:
    """Return what becomes of those of *messages* that must not be sent now, by id.

    In the transaction of their claim: what goes out is noted there, and an app that reaches its
    ceiling is paused there. *now* is in UTC.
    """
    limits = rules.limits.get(app, Limits())
    facts = await _facts(connection, app, messages, rules, limits)
    decided = evaluate_rules(messages, rules, limits, facts, now=now, country=country)
    if limits.by_number:
        sent = [message for message in messages if message.id not in decided]
        await connection.execute(
            sql("rule_use"),
            app,
            [message.id for message in sent],
            [to_e164(message.recipient) for message in sent],
            [text_digest(message) for message in sent],
        )
    if facts.left is not None and facts.left < len(messages):
        row = number_code("ceiling")
        reason = f"{row.meaning} {row.advice}"
        await connection.execute(
            sql("rule_ceiling"), app, row.code, reason, seconds_until_midnight(now)
        )
    return decided


async def _facts(
    connection: Connection, app: str, messages: Sequence[Message], rules: Rules, limits: Limits
) -> ClaimFacts:
    numbers = list({to_e164(message.recipient) for message in messages})
    suppressed: frozenset[str] = frozenset()
    used: dict[str, RecipientUsage] = {}
    left = None
    if rules.suppressing:
        rows = await connection.fetch(sql("rule_suppressed"), numbers)
        suppressed = frozenset(row["recipient"] for row in rows)
    if limits.by_number or limits.ceiling is not None:
        await connection.execute(sql("rule_lock"), app)
    if limits.by_number:
        ids = [message.id for message in messages]
        for row in await connection.fetch(sql("rule_used"), app, numbers, ids):
            one = used.setdefault(row["recipient"], RecipientUsage())
            one.minute += row["minute"]
            one.day += row["day"]
            one.same_minute[row["text"]] = row["minute"]
            one.same_hour[row["text"]] = row["hour"]
    if limits.ceiling is not None:
        left = max(0, limits.ceiling - await sent_today(connection, app))
    return ClaimFacts(suppressed, used, left)


async def forget_used(pool: Pool) -> int:
    """Forget what numbers were sent over a day ago; return how many rows went."""
    gone: int = await pool.fetchval(sql("rule_forget_used"))
    return gone


async def define_template(
    connection: Connection, template: Template, note: str, text: str | None = None
) -> None:
    """Define what variables a template takes; its *text* serves to count segments."""
    await connection.execute(
        sql("rule_template_set"), template.template_id, template.kinds, note, text
    )


async def drop_template(connection: Connection, template_id: str) -> bool:
    """Forget a template; return whether there was one."""
    return await connection.fetchval(sql("rule_template_drop"), template_id) is not None


async def templates(connection: Connection) -> list[tuple[Template, str]]:
    """Return the templates that are defined, each with its note."""
    rows = await connection.fetch(sql("rule_template_list"))
    return [(Template(row["template_id"], row["kinds"]), row["note"]) for row in rows]


async def suppress(
    connection: Connection, numbers: Sequence[str], reason: str, *, source: str = "operator"
) -> int:
    """Never send to *numbers* any more; return how many are new."""
    wanted = list(map(to_e164, numbers))
    return int(await connection.fetchval(sql("rule_suppress"), wanted, reason, source))


async def unsuppress(connection: Connection, numbers: Sequence[str]) -> int:
    """Send to *numbers* again; return how many were suppressed."""
    return int(await connection.fetchval(sql("rule_unsuppress"), list(map(to_e164, numbers))))


async def suppression(connection: Connection, *, limit: int) -> list[Suppressed]:
    """Return the suppressed numbers, the newest first."""
    return [Suppressed(*row) for row in await connection.fetch(sql("rule_suppression_list"), limit)]


async def limits(connection: Connection) -> dict[str, Limits]:
    """Return what apps allow themselves."""
    rows = await connection.fetch(sql("rule_limits"))
    return {row["app"]: Limits(*tuple(row)[1:]) for row in rows}


async def sent_today(connection: Connection, app: str) -> int:
    """Return how many messages of *app* count for its ceiling today (UTC+8)."""
    return int(await connection.fetchval(sql("rule_sent_today"), app))


async def set_limits(connection: Connection, app: str, wanted: Limits) -> None:
    """Set what *app* allows itself."""
    await connection.execute(
        sql("rule_limits_set"),
        app,
        wanted.per_minute,
        wanted.per_day,
        wanted.same_per_minute,
        wanted.same_per_hour,
        wanted.ceiling,
        wanted.quiet_from,
        wanted.quiet_until,
    )
