"""Applies operators' rules in a claim, and reads them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, time
from typing import Any, TypeVar

from dispatcher.core.codes import number_code
from dispatcher.core.delays import seconds_until_midnight
from dispatcher.core.message import Message, to_e164
from dispatcher.core.outcome import Deferred, Outcome
from dispatcher.core.rules import (
    DAILY_LIMIT,
    ClaimFacts,
    Limits,
    RecipientUsage,
    Rules,
    Suppressed,
    evaluate_rules,
    text_digest,
)
from dispatcher.core.templates import Template, readable_kinds
from dispatcher.db.database import (
    COMMAND_TIMEOUT_SECONDS,
    TRANSACTION_TIMEOUT_SECONDS,
    Connection,
    Database,
)
from dispatcher.db.queries import sql

Row = TypeVar("Row")


async def read_rules(database: Database, *, seconds: float = TRANSACTION_TIMEOUT_SECONDS) -> Rules:
    """Return all rules; small, whatever the number of suppressed numbers.

    A row that cannot be read is named in them, and the others are read.
    """
    async with database.acquire(seconds=seconds) as connection:
        templates = await connection.fetch(sql("template_kinds"))
        limits = await connection.fetch(sql("limits"))
        suppressing = await connection.fetchval(sql("any_suppressed"))
        promotional = await connection.fetch(sql("promotional_apps"))
    defined, read = _templates(templates), _limits(limits)
    return Rules(
        defined,
        read,
        suppressing,
        frozenset(row["name"] for row in promotional),
        frozenset(row["template_id"] for row in templates) - defined.keys(),
        frozenset(row["app"] for row in limits) - read.keys(),
    )


def _templates(rows: Iterable[Mapping[str, Any]]) -> dict[str, Template]:
    """Return those of *rows* that can be read, by id."""
    return {
        row["template_id"]: Template(row["template_id"], row["kinds"], row["promotional"])
        for row in rows
        if readable_kinds(row["kinds"])
    }


def _limits(rows: Iterable[Mapping[str, Any]]) -> dict[str, Limits]:
    """Return those of *rows* that can be read, by app."""
    found: dict[str, Limits] = {}
    for row in rows:
        app, *counted, begin, end = row.values()
        with suppress(ValueError):
            quiet_from, quiet_until = _hour(begin), _hour(end)
            counts = all(count is None or count > 0 for count in counted)
            if counts and (quiet_from is None) == (quiet_until is None):
                found[app] = Limits(*(*counted, quiet_from, quiet_until))
    return found


def _hour(text: str | None) -> time | None:
    """Return a time of day. Raises ValueError for 24:00, which only some Pythons take."""
    if text is not None and text.startswith("24"):
        raise ValueError(text)
    return None if text is None else time.fromisoformat(text)


class Screen:
    """The rules as one claim of an app applies them, in its transaction."""

    def __init__(self, app: str, rules: Rules, *, country: Callable[[str], str]) -> None:
        """*country* returns the country of a number."""
        self._app = app
        self._rules = rules
        self._limits = rules.limits.get(app, Limits())
        self._country = country
        self._left: int | None = None  # messages until the daily limit; None: there is none
        self._exceeds = False  # there are more than that

    @property
    def has_daily_limit(self) -> bool:
        """Whether the app may send only so many messages a day."""
        return self._limits.daily_limit is not None

    async def decide(
        self, connection: Connection, messages: Sequence[Message], asked_at: float
    ) -> dict[int, Outcome]:
        """Return the outcomes of those of *messages* that must not be sent now, by id.

        *messages* are all that the claim took so far. *asked_at*: seconds since 1970.
        """
        now = datetime.fromtimestamp(asked_at, UTC)
        app, rules, limits = self._app, self._rules, self._limits
        facts = await _facts(connection, app, messages, rules, limits, now=now)
        decided = evaluate_rules(
            messages, rules, limits, facts, app=app, now=now, country=self._country
        )
        self._left = facts.left
        self._exceeds = any(
            isinstance(outcome, Deferred) and outcome.code == DAILY_LIMIT
            for outcome in decided.values()
        )
        return decided

    async def record_sent(
        self, connection: Connection, messages: Sequence[Message], asked_at: float
    ) -> None:
        """Record that *messages* are sent, and pause an app that reaches its daily limit so."""
        if self._limits.by_number and messages:
            await connection.execute(
                sql("record_usage"),
                self._app,
                [message.id for message in messages],
                [to_e164(message.recipient) for message in messages],
                [text_digest(message) for message in messages],
            )
        if self._exceeds and self._left is not None and len(messages) >= self._left:
            row = number_code(DAILY_LIMIT)
            reason = f"{row.meaning} {row.advice}"
            wait = seconds_until_midnight(datetime.fromtimestamp(asked_at, UTC))
            await connection.execute(sql("pause_at_daily_limit"), self._app, row.code, reason, wait)


async def _facts(
    connection: Connection,
    app: str,
    messages: Sequence[Message],
    rules: Rules,
    limits: Limits,
    *,
    now: datetime,
) -> ClaimFacts:
    numbers = list({to_e164(message.recipient) for message in messages})
    suppressed: dict[str, bool] = {}  # number -> whether nothing at all is sent to it
    used: dict[str, RecipientUsage] = {}
    left = None
    if rules.suppressing:
        rows = await connection.fetch(sql("suppressed"), numbers, app)
        suppressed = {row["recipient"]: row["entirely"] for row in rows}
    if limits.by_number or limits.daily_limit is not None:
        await connection.execute(sql("lock_limits"), app)
    if limits.by_number:
        ids = [message.id for message in messages]
        for row in await connection.fetch(sql("recipient_usage"), app, numbers, ids):
            one = used.setdefault(row["recipient"], RecipientUsage())
            one.minute += row["minute"]
            one.day += row["day"]
            one.same_minute[row["text"]] = row["minute"]
            one.same_hour[row["text"]] = row["hour"]
    if limits.daily_limit is not None:
        sent = await sent_today(connection, [app], now)
        left = max(0, limits.daily_limit - sent[app])
    return ClaimFacts(
        frozenset(number for number, entirely in suppressed.items() if entirely),
        frozenset(number for number, entirely in suppressed.items() if not entirely),
        used,
        left,
    )


async def forget_used(database: Database) -> int:
    """Delete what numbers were sent over a day ago; return how many rows."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        gone: int = await connection.fetchval(sql("forget_old_usage"))
    return gone


async def templates(connection: Connection) -> list[tuple[Template, str]]:
    """Return the templates that are defined and can be read, each with its note."""
    rows = await connection.fetch(sql("templates"))
    notes = {row["template_id"]: row["note"] for row in rows}
    return [(template, notes[name]) for name, template in _templates(rows).items()]


async def suppress_reported(
    connection: Connection, blocked: Sequence[tuple[str, str, str]]
) -> None:
    """Stop promotional messages to numbers that are reported as on a block list.

    *blocked* are apps, numbers and reasons. Codes and notices are still sent: how far a block list
    reaches is not said, and its own platform refuses what it stops (provider.md, Rules).
    """
    apps, numbers, reasons = map(list, zip(*blocked, strict=True))
    await connection.execute(
        sql("suppress_reported"), apps, [to_e164(number) for number in numbers], reasons
    )


async def suppression(connection: Connection, *, limit: int) -> list[Suppressed]:
    """Return the suppressed numbers, the newest first."""
    return [Suppressed(*row) for row in await connection.fetch(sql("suppression_list"), limit)]


async def suppressions_of(connection: Connection, number: str) -> list[Suppressed]:
    """Return why a number, in canonical form, is suppressed; nothing if it is not."""
    return [Suppressed(*row) for row in await connection.fetch(sql("suppressions_of"), number)]


async def texts(connection: Connection) -> dict[str, str]:
    """Return the texts of templates, by id, where they are known."""
    rows = await connection.fetch(sql("templates"))
    return {row["template_id"]: row["text"] for row in rows if row["text"] is not None}


async def limits(connection: Connection) -> dict[str, Limits]:
    """Return the limits of apps that can be read."""
    return _limits(await connection.fetch(sql("limits")))


async def sent_today(
    connection: Connection, apps: Iterable[str], now: datetime | None = None
) -> dict[str, int]:
    """Return how many messages of each app count for its daily limit today (UTC+8).

    None: today by the database's clock.
    """
    named = [*apps]
    sent = dict(await connection.fetch(sql("sent_today"), named, now))
    return {app: sent.get(app, 0) for app in named}
