"""The scene: 36 messages of three apps, with what may happen to each of them.

Two workers and a receiver of reports work on it. Everything that the application does is done by
a connection of its own, which no proxy watches: the scene is the same whatever is struck.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg
from support.fast_forward import let_pass
from support.messages import TEMPLATE

from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS
from dispatcher.simulator import ReportOptions, Simulator
from dispatcher.simulator import faults as f

Given = TypeVar("Given")

APPS = {"one": "resend", "two": "hold", "three": "hold"}  # name: on_unsure
CIRCUIT_UNKNOWN = {"three": 1}  # one answer that is lost opens its circuit
CAMPAIGN = "spring"
HASTE = 600.0  # seconds that pass at each look, for what waits
LOOK = 0.3  # seconds between looks
CALL = 15.0  # seconds for one call of the application


@dataclass(frozen=True)
class Text:
    """One message: its name is its first parameter, and whatever becomes of it is known."""

    name: str
    app: str
    ends: str  # accepted, rejected, cancelled
    priority: int = 5
    delayed: bool = False  # for a day
    campaign: str | None = None

    @property
    def number(self) -> str:
        """A number of its own."""
        return f"+86138{sum(ord(c) * 131**i for i, c in enumerate(self.name)) % 10**8:08d}"


FIRST = (
    Text("urgent-1", "one", "accepted", priority=0),
    Text("urgent-2", "one", "accepted", priority=1),
    Text("plain-1", "one", "accepted"),
    Text("plain-2", "one", "accepted"),
    Text("deferred", "one", "accepted"),
    Text("half-1", "two", "accepted"),
    Text("half-2", "two", "accepted"),
    Text("bad", "two", "rejected"),
    Text("refused", "two", "rejected"),
    Text("cancelled", "two", "cancelled", delayed=True),
    Text("requeued", "one", "accepted"),
)
# They wait in one bulk row, and are moved to now.
BULK = tuple(
    Text(f"bulk-{n:02d}", "two", "accepted", delayed=True, campaign=CAMPAIGN) for n in range(20)
)
THEN = (Text("lost-answer", "three", "accepted"),)
LAST = (
    Text("early-urgent", "one", "accepted", priority=0),
    Text("early-1", "one", "accepted"),
    Text("early-2", "two", "accepted"),
    Text("early-3", "three", "accepted"),
)
TEXTS = {text.name: text for text in (*FIRST, *BULK, *THEN, *LAST)}
LOST_ANSWER = "lost-answer"

REPORTS = ReportOptions(timeout=40.0, connections=4, keep_alive=True)


def provider_faults() -> list[f.Fault]:
    """What the provider does wrong in this scene, whatever else is struck."""
    return [
        f.NumberCode(code="E200015", numbers=_spellings("deferred"), times=1),
        f.NumberCode(code="E200028", numbers=_spellings("refused")),
        f.NumberCode(code="E200028", numbers=_spellings("requeued"), times=1),
        f.BadEntry(code="E000503", param="bad"),
        f.Cut(param=LOST_ANSWER, times=1),
    ]


def _spellings(name: str) -> list[str]:
    number = TEXTS[name].number
    return [number, number.removeprefix("+86"), number.removeprefix("+")]


@dataclass
class Application:
    """Plays the scene, over a connection that it makes anew whenever it breaks."""

    dsn: str
    simulator: Simulator
    reply_url: str | None = None  # of the receiver; the persons of the last messages reply
    ids: dict[str, int] = field(default_factory=dict)
    cancelled: int = 0
    _connection: asyncpg.Connection | None = None

    async def play(self) -> None:
        """Insert, cancel and requeue; return when the last message has been inserted."""
        self.simulator.reports.options = REPORTS
        await self.insert(FIRST)
        await self.ask(self._cancel)
        await self._until(self.nothing_waits)
        await self.insert(BULK)
        await self.ask(self._move)
        await self._until(self._is_moved)
        await self.insert(THEN)
        # Where the answer was lost it is unsure: then it is requeued at the end, if at all.
        await self._until(lambda db: self._is(db, "requeued", "rejected", "unsure"))
        await self.ask(self.requeue)
        await self._until(self.nothing_waits)
        self.simulator.reports.options = _last(self.reply_url)
        await self.insert(LAST)
        await self._until(self.nothing_waits)

    async def insert(self, texts: tuple[Text, ...]) -> None:
        """Insert *texts* at once, and once, though the answer of the first try may be lost."""

        async def insert(db: asyncpg.Connection) -> dict[str, int]:
            names = [text.name for text in texts]
            found = await db.fetch(
                "SELECT id, params[1] AS name FROM dispatcher.message WHERE params[1] = ANY ($1)",
                names,
            )
            if not found:
                found = await db.fetch(
                    "INSERT INTO dispatcher.message"
                    " (app, recipient, template_id, params, priority, send_at, campaign)"
                    " SELECT a, r, $1, ARRAY[n], p, now() + make_interval(days => d), c"
                    " FROM unnest($2::text[], $3::text[], $4::text[], $5::smallint[], $6::int[],"
                    " $7::text[]) AS u (a, r, n, p, d, c) RETURNING id, params[1] AS name",
                    TEMPLATE,
                    [text.app for text in texts],
                    [text.number for text in texts],
                    names,
                    [text.priority for text in texts],
                    [int(text.delayed) for text in texts],
                    [text.campaign for text in texts],
                )
            return {row["name"]: row["id"] for row in found}

        self.ids |= await self.ask(insert)

    async def _cancel(self, db: asyncpg.Connection) -> bool:
        await db.fetchval("SELECT dispatcher.cancel($1)", [self.ids["cancelled"]])
        return True

    async def _move(self, db: asyncpg.Connection) -> bool:
        await db.execute("SELECT dispatcher.move_campaign($1, now())", CAMPAIGN)
        return True

    @staticmethod
    async def _is_moved(db: asyncpg.Connection) -> bool:
        """Move what can be moved now, as maintenance does; return whether it is all."""
        await db.execute("SELECT dispatcher.move_campaign_step()")
        return await db.fetchval(
            "SELECT state = 'running' FROM dispatcher.campaign WHERE name = $1", CAMPAIGN
        )

    async def requeue(self, db: asyncpg.Connection) -> bool:
        """Requeue what was rejected for a passing reason; return whether it was."""
        rejected = await self._state(db, "requeued") == "rejected"
        if rejected:
            await db.fetchval("SELECT dispatcher.requeue($1)", [self.ids["requeued"]])
        return rejected

    async def _is(self, db: asyncpg.Connection, name: str, *states: str) -> bool:
        return await self._state(db, name) in (*states, "accepted", "delivered")

    async def _state(self, db: asyncpg.Connection, name: str) -> str:
        return str(
            await db.fetchval(
                "SELECT state FROM dispatcher.message_status WHERE id = $1", self.ids[name]
            )
        )

    @staticmethod
    async def nothing_waits(db: asyncpg.Connection) -> bool:
        """Tell whether nothing waits or is on its way."""
        return not await db.fetchval(
            "SELECT EXISTS (SELECT FROM dispatcher.queue) OR EXISTS (SELECT FROM dispatcher.bulk)"
            " OR EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open')"
        )

    async def _until(self, condition: Callable[[asyncpg.Connection], Awaitable[bool]]) -> None:
        while not await self.ask(condition):
            await self.ask(pass_time)
            await asyncio.sleep(LOOK)

    async def ask(self, work: Callable[[asyncpg.Connection], Awaitable[Given]]) -> Given:
        """Return what *work* gives; it is done again if the database goes meanwhile."""
        while True:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self.dsn, application_name="everystep")
                async with asyncio.timeout(CALL):
                    return await work(self._connection)
            except (*UNAVAILABLE_ERRORS, asyncpg.DeadlockDetectedError, asyncpg.NoDataFoundError):
                self.close()
                await asyncio.sleep(LOOK)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            with contextlib.suppress(asyncpg.InterfaceError):
                self._connection.terminate()
        self._connection = None


async def pass_time(db: asyncpg.Connection) -> bool:
    """Let ten minutes pass for all that waits."""
    await let_pass(db, HASTE)
    return True


def _last(reply_url: str | None) -> ReportOptions:
    """Reports before the answers, and a reply of each person."""
    return ReportOptions(
        timeout=40.0,
        connections=4,
        keep_alive=True,
        before_answer=1.0,
        reply_url=reply_url,
        replies=1.0,
        reply_texts={"thanks": 1},
    )
