"""The operators' rules as a worker knows them: read now and then, applied with each claim."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from dispatcher.core.country import country
from dispatcher.core.message import Message
from dispatcher.core.outcome import Outcome
from dispatcher.core.rules import Rules
from dispatcher.db.pool import Connection, Pool
from dispatcher.db.rules import apply_rules, read_rules

FRESH = 5.0  # seconds until a rule that was set is known to every worker

Screen = Callable[[Connection, Sequence[Message], float], Awaitable[dict[int, Outcome]]]


class RuleBook:
    """The rules, as they were last read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self._rules = Rules()

    async def screen(self, app: str, *, seconds: float) -> Screen | None:
        """Return what looks at the messages of a claim of *app*; None: no rule concerns it.

        Raises asyncpg's errors, within about *seconds*: without knowing the rules nothing is sent.
        """
        async with self._turn:
            if monotonic() - self._read_at > FRESH:
                self._rules = await read_rules(self._pool, seconds=seconds)
                self._read_at = monotonic()
        rules = self._rules
        if not rules.concern(app):
            return None
        return partial(_apply, app, rules)


async def _apply(
    app: str, rules: Rules, connection: Connection, messages: Sequence[Message], asked_at: float
) -> dict[int, Outcome]:
    now = datetime.fromtimestamp(asked_at, UTC)
    return await apply_rules(connection, app, messages, rules, now=now, country=country)
