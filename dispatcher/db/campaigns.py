"""Campaigns: what operators do with them, their progress, and the export of messages."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
from msgspec import Struct

from dispatcher.db import cost
from dispatcher.db.database import (
    COMMAND_TIMEOUT_SECONDS,
    MAX_TIMEOUT_SECONDS,
    Connection,
    Database,
)
from dispatcher.db.queries import sql

if TYPE_CHECKING:
    from asyncpg import Record

STEP_MESSAGES: Final = 10_000  # requeued in one transaction
RATE_SECONDS: Final = 600  # over which the rate of a campaign is taken
MAX_NAME_CHARACTERS: Final = 100  # as the database has it
MAX_LISTED: Final = 1_000  # campaigns
PAGE_CAMPAIGNS: Final = 30  # of the console's list
MAX_CLAIM_SECONDS: Final = MAX_TIMEOUT_SECONDS  # one that changes the queue for longer is no claim
MAX_HELD_SECONDS: Final = 5.0  # in which what another session holds is waited for
MAX_IDLE_SECONDS: Final = MAX_CLAIM_SECONDS + 30  # in which a move that goes on moves something
WAIT_SECONDS: Final = 0.05  # between two looks at what is in flight


class CampaignError(Exception):
    """The campaign does not exist, or cannot be changed so; the text says which."""


class Campaign(Struct, frozen=True):
    """A campaign as it is now."""

    name: str
    state: str  # running, paused, moving or cancelled
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


class CodeCount(Struct, frozen=True, array_like=True):
    """How many messages of a campaign are in one state, with one code."""

    state: str
    code: str | None
    messages: int


class CampaignCount(Struct, frozen=True):
    """What was counted of a campaign: every message once."""

    codes: list[CodeCount]  # the most frequent first
    segments: int
    recent: int  # messages accepted in the last RATE_SECONDS
    last_due_at: datetime | None  # of those that wait
    cost: dict[str, Decimal]  # of segments charged by now, by currency
    seconds: float  # that counting took

    def states(self) -> dict[str, int]:
        """Return the number of messages by state."""
        sums: defaultdict[str, int] = defaultdict(int)
        for each in self.codes:
            sums[each.state] += each.messages
        return dict(sums)


class CountedCampaign(Struct, frozen=True):
    """A campaign, and what was counted of it last."""

    name: str
    state: str  # running, paused, moving or cancelled
    reason: str | None
    file: str | None
    stop_at: float | None
    created_by: str
    created_at: datetime
    changed_by: str | None
    changed_at: datetime | None
    count: CampaignCount | None
    counted_at: datetime | None
    waits: bool  # whether any message waits
    partly_removed: bool  # whether retention has dropped some of its messages


async def counted_page(
    database: Database, before: tuple[datetime, str] | None
) -> list[CountedCampaign]:
    """Return some campaigns, the newest first, begun before that time and name.

    One more than `PAGE_CAMPAIGNS` shows that there are more.
    """
    arguments = (*(before or (None, None)), PAGE_CAMPAIGNS + 1, None)
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return [_counted(row) for row in await connection.fetch(sql("campaign_page"), *arguments)]


async def counted(database: Database, name: str) -> CountedCampaign | None:
    """Return one campaign with its last count; None if there is none of this name."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        row = await connection.fetchrow(sql("campaign_page"), None, None, 1, name)
        return _counted(row) if row else None


def _counted(row: "Record") -> CountedCampaign:
    values = dict(row)
    known = values.pop("counted")
    count = msgspec.json.decode(known, type=CampaignCount) if known else None
    return CountedCampaign(**values, count=count)


async def count(
    connection: Connection, name: str, *, country: Callable[[str], str]
) -> CampaignCount:
    """Count the messages of a campaign, and keep the result; reads every message of it."""
    began = await connection.fetchval(sql("database_time"))
    rows = await connection.fetch(sql("count_campaign"), name, RATE_SECONDS, timeout=None)
    ended = await connection.fetchval(sql("database_time"))
    prices = await cost.prices(connection)
    codes: defaultdict[tuple[str, str | None], int] = defaultdict(int)
    amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        codes[row["state"], row["code"]] += row["messages"]
        if row["segments"] and (price := prices.get(country(row["recipient"]))):
            amounts[price[1]] += price[0] * row["charged"]
    result = CampaignCount(
        [CodeCount(*key, codes[key]) for key in sorted(codes, key=lambda key: -codes[key])],
        sum(row["segments"] for row in rows),
        sum(row["recent"] for row in rows),
        max((row["last_due_at"] for row in rows if row["last_due_at"]), default=None),
        dict(amounts),
        (ended - began).total_seconds(),
    )
    text = msgspec.json.encode(result).decode()
    await connection.execute(sql("keep_campaign_count"), name, text, began)
    return result


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


async def cancel_all(
    connection: Connection, name: str, *, held_seconds: float = MAX_HELD_SECONDS
) -> int:
    """Write the outcomes of cancelled campaigns until nothing of this one waits; return how many.

    What another session holds is left out, and waited for *held_seconds*: workers do it later.
    """
    done, since = 0, monotonic()
    while True:
        if step := await cancel_step(connection):
            done, since = done + step, monotonic()
        elif monotonic() >= since + held_seconds:
            return done
        elif await connection.fetchval(sql("campaign_waits"), name):
            await asyncio.sleep(WAIT_SECONDS)
        else:
            return done


async def end_cancels(connection: Connection) -> None:
    """Write the outcomes of all cancelled campaigns, as :func:`cancel_all` does of one."""
    for row in await connection.fetch(sql("cancelled_campaigns_that_wait")):
        await cancel_all(connection, row["name"])


async def move(  # noqa: PLR0917
    connection: Connection,
    actor: str,
    name: str,
    send_at: datetime | None,
    wait: float = 0.0,
    priority: int | None = None,
) -> None:
    """Move what waits of a campaign to another time or priority. Raises CampaignError.

    Each message is then due *wait* seconds after the one before. Nothing of the campaign is claimed
    until :func:`move_step` has moved all.
    """
    await _change(connection, "move_campaign", name, send_at, wait, priority, actor)


async def move_step(connection: Connection) -> int:
    """Move some messages of a campaign that is to be moved; return how many."""
    return int(await connection.fetchval(sql("move_campaign_step")))


async def move_all(
    connection: Connection, name: str, *, idle_seconds: float = MAX_IDLE_SECONDS
) -> tuple[int, bool]:
    """Move a campaign that is to be moved; return how many messages moved, and if more will.

    Campaigns before it are moved too, and workers help. Ends when nothing moved for *idle_seconds*.
    """
    last, since = -1, monotonic()
    while True:
        step = await move_step(connection)
        moved, moves = await connection.fetchrow(sql("campaign_moved"), name) or (0, False)
        if not moves or monotonic() >= since + idle_seconds:
            return int(moved), bool(moves)
        if step or moved != last:
            last, since = moved, monotonic()
        else:
            await asyncio.sleep(WAIT_SECONDS)


async def settled(connection: Connection, name: str, *, seconds: float) -> tuple[int, int]:
    """Wait until what was claimed of a stopped campaign has its results.

    A claim that began before the campaign was stopped may still be taking messages of it, so its
    transaction is waited for first, at most `MAX_CLAIM_SECONDS`; then the requests are, at most
    *seconds*. Returns how many messages have no result then, and how many transactions still run.
    """
    deadline = monotonic() + MAX_CLAIM_SECONDS
    claims = set(await connection.fetchval(sql("changing_queue")))
    while claims and monotonic() < deadline:
        await asyncio.sleep(WAIT_SECONDS)
        claims &= set(await connection.fetchval(sql("changing_queue")))
    deadline = monotonic() + seconds
    while left := int(await connection.fetchval(sql("campaign_in_flight"), name)):
        if monotonic() >= deadline:
            break
        await asyncio.sleep(WAIT_SECONDS)
    return left, len(claims)


async def requeue(connection: Connection, actor: str, name: str) -> int:
    """Return the rejected and expired messages of a campaign to the queue; return how many.

    Raises CampaignError if there is none of this name, or if it is cancelled.
    """
    if await find(connection, name) is None:
        raise CampaignError(f"there is no campaign {name}")
    total, last = 0, 0
    while True:
        try:
            row = await connection.fetchrow(
                sql("requeue_campaign_step"), name, last, STEP_MESSAGES, actor
            )
        except asyncpg.ObjectNotInPrerequisiteStateError as error:
            raise CampaignError(error.message) from None
        if row is None or row["last_id"] is None:
            return total
        total, last = total + row["requeued"], row["last_id"]


async def begin(connection: Connection, actor: str, name: str, file: str) -> bool:
    """Begin a campaign for *file*; return False if the name is taken."""
    return await connection.fetchval(sql("campaign_claim_name"), name, file, actor) is not None


async def stop_at(connection: Connection, actor: str, name: str, share: float) -> None:
    """Let a campaign pause by itself when *share* of its finished messages has failed."""
    await connection.execute(sql("campaign_stop_at"), name, share, actor)


async def campaigns(connection: Connection) -> list[Campaign]:
    """Return the campaigns, the newest first."""
    return [Campaign(*row) for row in await connection.fetch(sql("campaigns"), MAX_LISTED, None)]


async def names(connection: Connection, beginning: str) -> list[str]:
    """Return the names of campaigns with this beginning, the newest first."""
    rows = await connection.fetch(sql("campaign_names"), beginning, MAX_LISTED)
    return [row["name"] for row in rows]


async def find(connection: Connection, name: str) -> Campaign | None:
    """Return one campaign; None if there is none of this name."""
    row = await connection.fetchrow(sql("campaigns"), 1, name)
    return Campaign(*row) if row else None


async def states(connection: Connection, name: str) -> list[CampaignState]:
    """Return how many messages are in each state; reads every message of the campaign."""
    rows = await connection.fetch(sql("campaign_states"), name, RATE_SECONDS, timeout=None)
    return [CampaignState(*row) for row in rows]


async def export(
    connection: Connection,
    on_rows: Callable[[list[list[str]]], Awaitable[None]],
    *,
    campaign: str | None = None,
    app: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    charged: bool = True,
) -> None:
    """Give *on_rows* the messages that all of the conditions fit, oldest first, some at a time.

    A row has the columns of `export_rows`, as texts, the charged segments last; null is empty, and
    so are the charged segments unless *charged*.
    COPY sends rows while those before are written, and no value is decoded by itself.
    """
    first = await connection.fetchval(sql("export_from"), campaign)
    rest = b""

    async def read(piece: bytes) -> None:
        nonlocal rest
        whole, end, rest = (rest + piece).rpartition(b"\n")
        if end:
            await on_rows(_copied_rows(whole.decode()))

    await connection.copy_from_query(
        sql("export_rows"), campaign, app, state, since, first, charged,
        output=read, null="", timeout=None,
    )  # fmt: skip


def _copied_rows(text: str) -> list[list[str]]:
    """Return the rows of a piece of COPY's text format."""
    rows = [line.split("\t") for line in text.split("\n")]
    if "\\" not in text:
        return rows
    return [[_ESCAPED.sub(_unescape, cell) for cell in row] for row in rows]


_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[1], found[1])


async def _change(connection: Connection, statement: str, *arguments: object) -> None:
    try:
        async with connection.transaction():
            await connection.execute(sql(statement), *arguments)
    except (asyncpg.NoDataFoundError, asyncpg.ObjectNotInPrerequisiteStateError) as error:
        raise CampaignError(error.message or "the campaign cannot be changed") from None
