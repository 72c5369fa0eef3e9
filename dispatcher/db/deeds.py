"""What operators do, from the console or the command line: done and written down, both or neither.

Each deed takes who does it; `dispatcher.audit` then tells who did what, when, and what came of it.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from dispatcher.core.rules import Limits, describe_limits
from dispatcher.core.status import AuditEntry
from dispatcher.core.templates import Template
from dispatcher.db import admin, cost, rules
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

AT_ONCE: Final = 10_000  # numbers in one statement


class ActionResult(Struct, frozen=True):
    """What came of a deed."""

    count: int | None  # messages, numbers or definitions it concerned; None: there is no such thing
    said: str  # in a line, as it is written down


async def pause(connection: Connection, who: str, app: str, reason: str) -> ActionResult:
    """Stop claiming for *app*; whoever looks at it later sees the reason, and who."""
    async with connection.transaction():
        await admin.pause(connection, app, f"{reason or 'no reason given'} ({who})")
        return await _written(
            connection, who, "pause", app, ActionResult(1, "paused"), detail=reason
        )


async def resume(connection: Connection, who: str, app: str) -> ActionResult:
    """Claim for *app* again."""
    async with connection.transaction():
        await admin.resume(connection, app)
        return await _written(connection, who, "resume", app, ActionResult(1, "resumed"))


async def cancel(connection: Connection, who: str, ids: list[int]) -> ActionResult:
    """Cancel what still waits of *ids*."""
    async with connection.transaction():
        count = await admin.cancel(connection, ids)
        done = ActionResult(count, f"{count} of {len(ids)} cancelled")
        return await _written(connection, who, "cancel", _messages(ids), done, detail=_listed(ids))


async def requeue(connection: Connection, who: str, ids: list[int]) -> ActionResult:
    """Send the rejected and expired of *ids* again."""
    async with connection.transaction():
        count = await admin.requeue(connection, ids)
        done = ActionResult(count, f"{count} of {len(ids)} wait again")
        return await _written(connection, who, "requeue", _messages(ids), done, detail=_listed(ids))


async def settle(connection: Connection, who: str, token: str, how: str) -> ActionResult:
    """Settle an unsure batch as ``sent`` or ``resend``."""
    async with connection.transaction():
        count = await admin.settle(connection, token, how)
        if count is None:
            done = ActionResult(None, "not settled: the batch is not unsure, or not any more")
        else:
            done = ActionResult(
                count, f"{count} {'taken as sent' if how == 'sent' else 'wait again'}"
            )
        return await _written(connection, who, "settle", f"batch {token}", done, detail=how)


async def look_closely(connection: Connection, who: str, message_id: int) -> ActionResult:
    """Write down that *who* was shown the number and the variables of a message."""
    return await _written(connection, who, "reveal", f"message {message_id}", ActionResult(1, ""))


async def suppress(
    connection: Connection, who: str, numbers: Sequence[str], reason: str
) -> ActionResult:
    """Never send to *numbers* any more. The numbers themselves are not written down."""
    async with connection.transaction():
        count = 0
        for start in range(0, len(numbers), AT_ONCE):
            count += await rules.suppress(connection, numbers[start : start + AT_ONCE], reason)
        done = ActionResult(count, f"{_numbers(count)} new")
        return await _written(
            connection, who, "suppress", _numbers(len(numbers)), done, detail=reason
        )


async def unsuppress(connection: Connection, who: str, numbers: Sequence[str]) -> ActionResult:
    """Send to *numbers* again."""
    async with connection.transaction():
        count = 0
        for start in range(0, len(numbers), AT_ONCE):
            count += await rules.unsuppress(connection, numbers[start : start + AT_ONCE])
        done = ActionResult(count, f"{_numbers(count)} freed")
        return await _written(connection, who, "unsuppress", _numbers(len(numbers)), done)


async def define_template(
    connection: Connection, who: str, template: Template, note: str, text: str | None
) -> ActionResult:
    """Define what variables a template takes, or define it anew."""
    async with connection.transaction():
        await rules.define_template(connection, template, note, text)
        kinds = ", ".join(template.kinds) or "no variables"
        done = ActionResult(1, "defined")
        return await _written(connection, who, "template", template.template_id, done, detail=kinds)


async def drop_template(connection: Connection, who: str, template_id: str) -> ActionResult:
    """Check the variables of a template no more."""
    async with connection.transaction():
        if await rules.drop_template(connection, template_id):
            done = ActionResult(1, "removed")
        else:
            done = ActionResult(None, "there is no such template")
        return await _written(connection, who, "template", template_id, done)


async def set_limits(connection: Connection, who: str, app: str, wanted: Limits) -> ActionResult:
    """Set what *app* allows itself."""
    async with connection.transaction():
        await rules.set_limits(connection, app, wanted)
        return await _written(
            connection, who, "limit", app, ActionResult(1, "set"), detail=describe_limits(wanted)
        )


async def set_price(
    connection: Connection, who: str, country: str, price: Decimal, currency: str
) -> ActionResult:
    """Set what a segment to *country* costs."""
    async with connection.transaction():
        await cost.set_price(connection, country, price, currency)
        said = f"{price} {currency}".strip()
        return await _written(
            connection, who, "price", country, ActionResult(1, "set"), detail=said
        )


async def written(connection: Connection, limit: int) -> list[AuditEntry]:
    """Return what was done, the newest first."""
    return [AuditEntry(*row) for row in await connection.fetch(sql("audit_list"), limit)]


async def _written(
    connection: Connection,
    who: str,
    action: str,
    target: str,
    done: ActionResult,
    *,
    detail: str = "",
) -> ActionResult:
    """Write down what was done, in the transaction that does it."""
    await connection.execute(sql("audit"), who, action, target, detail, done.said)
    return done


def _messages(ids: list[int]) -> str:
    return f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages"


def _listed(ids: list[int]) -> str:
    return " ".join(map(str, ids)) if len(ids) > 1 else ""


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count:,} numbers"
