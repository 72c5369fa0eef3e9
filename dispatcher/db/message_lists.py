"""Lists of messages by a filter.

No index is kept for the filters, because each would be paid for by every message. A list is read
backwards from the newest message, from where there is least to read: what waits from `queue`, what
is on its way or unsure from `batch`, what is finished from `event`, which has one row for all
messages that a transaction decided, and the rest from `message`. Each piece is bounded, so a page
is quick whatever it finds, and says how far back it has read.
"""

import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from dispatcher.core.message import spellings, to_e164
from dispatcher.core.status import MessageSummary
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.queries import sql

if TYPE_CHECKING:
    from asyncpg import Record

PAGE_ROWS: Final = 50
PAGE_SECONDS: Final = 0.05  # for which a page reads on
DEEP_PAGE_SECONDS: Final = 3.0  # for which "look further back" does
FIRST_PIECE_ROWS: Final = 500  # of a source; each further piece has four times as many
MAX_PIECE_ROWS: Final = 20_000
ENOUGH_MESSAGES: Final = 1_000  # of events, in one piece
FIRST_CHECKED_MESSAGES: Final = PAGE_ROWS + 1  # of a page, for most of what is read often fits
CHECKED_MESSAGES: Final = 200  # looked up at once for a page after that
# A message has the time at which its transaction began, and an id from when it was inserted. So a
# filter by time finds what transactions of this length inserted, and of longer ones most.
LONG_TRANSACTION: Final = timedelta(minutes=1)
NEWEST: Final = 2**63 - 1  # above every id

FINISHED_STATES: Final = (
    "accepted",
    "delivered",
    "undelivered",
    "rejected",
    "expired",
    "cancelled",
)
STATES: Final = ("queued", "sending", "unsure", *FINISHED_STATES, "lost")
ERASED_NUMBER: Final = "0"


class MessageFilter(Struct, frozen=True):
    """What messages a list shows; None: any."""

    state: str | None = None  # one of STATES
    code: str | None = None
    app: str | None = None
    template: str | None = None
    campaign: str | None = None
    same_number_as: int | None = None  # id of a message: an address must not have the number
    reference: str | None = None
    prefix: str | None = None  # of the number
    last_digits: str | None = None  # of the number
    since: datetime | None = None  # inserted
    until: datetime | None = None


class MessagePage(Struct, frozen=True):
    """A page of a list, the newest first."""

    messages: list[MessageSummary]
    next_position: str | None  # where the next page begins; None: this is the last
    complete: bool  # whether the page is full, or the end was reached; False: reading took too long


class TextAndPrice(Struct, frozen=True):
    """The text of a template, and what a segment to a country costs; None: not known."""

    text: str | None
    price: Decimal | None
    currency: str


# A message that may fit, and where a page that begins with it begins: ids (of messages or events)
# below the first number, without the first messages of the next event.
_Candidate = tuple[int, int, int]


class _Piece(Struct, frozen=True):
    candidates: list[_Candidate]
    next_place: int | None  # None: this is the last


async def message_page(
    database: Database, wanted: MessageFilter, position: str | None, *, seconds: float
) -> MessagePage:
    """Return the page of *wanted* that begins at *position*, reading on for *seconds*."""
    end = time.monotonic() + seconds
    found: list[MessageSummary] = []
    shown: set[int] = set()
    size = FIRST_CHECKED_MESSAGES
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        async for piece in pieces(connection, wanted, position):
            following = piece.candidates
            while following:
                part, following = following[:size], following[size:]
                size = CHECKED_MESSAGES
                fitting = await _fitting(connection, wanted, [each[0] for each in part])
                for message_id, place, skip in part:
                    if message_id not in fitting or message_id in shown:
                        continue
                    if len(found) == PAGE_ROWS:
                        return MessagePage(found, f"{place}.{skip}", complete=True)
                    found.append(fitting[message_id])
                    shown.add(message_id)
                if following and time.monotonic() > end:
                    _, place, skip = following[0]
                    return MessagePage(found, f"{place}.{skip}", complete=False)
            if piece.next_place is not None and time.monotonic() > end:
                return MessagePage(found, f"{piece.next_place}.0", complete=False)
    return MessagePage(found, None, complete=True)


async def latest_message_to(database: Database, number: str) -> int | None:
    """Return the newest message to *number*, in canonical form; addresses name it by that."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        rows = await connection.fetch(sql("recipient_piece"), NEWEST, 1, spellings(number))
        return rows[0]["id"] if rows else None


async def text_and_price(database: Database, template_id: str, country: str) -> TextAndPrice:
    """Return what a message with this template to this country says and costs."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        row = await connection.fetchrow(sql("text_and_price"), template_id, country)
        return TextAndPrice(*row) if row else TextAndPrice(None, None, "")


async def count(database: Database, wanted: MessageFilter) -> int | None:
    """Return how many messages fit *wanted*, exactly and without reading them; None: unknown.

    What waits is counted up to 10,001. What is finished is counted by the counters, so the result
    is how often it happened; a message that was sent again has happened twice.
    """
    counted = MessageFilter(state=wanted.state, code=wanted.code, app=wanted.app)
    if wanted.state is None or wanted != counted:
        return None
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        if wanted.state not in FINISHED_STATES:
            if wanted.code or wanted.state == "lost":
                return None
            row = await connection.fetchrow(sql("live_counts"), wanted.app)
            return int(row[wanted.state]) if row else None
        if wanted.state == "accepted":  # it counts those that were delivered since
            return None
        happened: int = await connection.fetchval(
            sql("counted_events"), [wanted.state], wanted.app, wanted.code, None
        )
        return happened


async def _fitting(
    connection: Connection, wanted: MessageFilter, ids: list[int]
) -> dict[int, MessageSummary]:
    """Return those of *ids* that fit *wanted* now, by id."""
    if not ids:
        return {}
    rows = await connection.fetch(
        sql("fitting_messages"), *await filter_arguments(connection, wanted, ids)
    )
    return {row["id"]: MessageSummary(*row) for row in rows}


async def filter_arguments(
    connection: Connection, wanted: MessageFilter, ids: list[int]
) -> tuple[object, ...]:
    """Return the arguments of the statements that test whether messages fit *wanted*."""
    return (
        ids,
        [wanted.state] if wanted.state else None,
        wanted.code,
        wanted.app,
        wanted.template,
        await _numbers(connection, wanted),
        wanted.reference,
        to_e164(wanted.prefix) if wanted.prefix else None,
        wanted.last_digits,
        wanted.since,
        wanted.until,
        wanted.campaign,
    )


async def _numbers(connection: Connection, wanted: MessageFilter) -> list[str] | None:
    """Return the spellings of the number that *wanted* asks for; a number of none if it is gone."""
    if wanted.same_number_as is None:
        return None
    number = await connection.fetchval(sql("message_recipient"), wanted.same_number_as)
    return [] if number in (None, ERASED_NUMBER) else spellings(to_e164(number))


async def pieces(
    connection: Connection, wanted: MessageFilter, position: str | None
) -> AsyncIterator[_Piece]:
    """Read the best source backwards from *position*; yield the messages that may fit."""
    place, skip = map(int, position.split(".")) if position else (NEWEST, 0)
    campaign = None
    if wanted.campaign is not None:
        campaign = await connection.fetchrow(sql("campaign_start"), wanted.campaign)
        if campaign is None:
            yield _Piece([], None)
            return
    elif position is None and _by_insertion(wanted) and wanted.until:
        place = await _id_at(connection, wanted.until + LONG_TRANSACTION)
    next_place: int | None = place
    rows = FIRST_PIECE_ROWS
    while next_place is not None:
        if not _by_insertion(wanted):
            piece = await _chosen_piece(connection, wanted, next_place, skip, rows, campaign)
        elif campaign is not None:
            piece = await _campaign_piece(connection, wanted, next_place, rows, campaign)
        else:
            piece = await _message_piece(connection, wanted, next_place, rows)
        skip = 0
        rows = min(4 * rows, MAX_PIECE_ROWS)
        yield piece
        next_place = piece.next_place


def _by_insertion(wanted: MessageFilter) -> bool:
    """Return whether only `message` itself says which messages may fit: a lost one is nowhere."""
    looked_up = wanted.same_number_as is not None or wanted.reference
    return not (looked_up or wanted.state not in (None, "lost") or wanted.code)


async def _chosen_piece(  # noqa: PLR0917
    connection: Connection,
    wanted: MessageFilter,
    place: int,
    skip: int,
    rows: int,
    campaign: "Record | None",
) -> _Piece:
    """Return the next piece where a number, a state or a code says what may fit."""
    if wanted.same_number_as is not None or wanted.reference:
        return await _look_up(connection, wanted, place)
    if wanted.state in ("sending", "unsure"):
        return await _request_piece(connection, wanted, place)
    if wanted.state == "queued":
        arguments = (place, rows, wanted.app, wanted.code, wanted.campaign)
        return _by_id(await connection.fetchrow(sql("queue_piece"), *arguments), None)
    # What happened before a campaign began is not about its messages.
    since = max(filter(None, (wanted.since, campaign and campaign["created_at"])), default=None)
    return await _event_piece(connection, wanted, place, skip, rows, since)


async def _campaign_piece(
    connection: Connection, wanted: MessageFilter, place: int, rows: int, campaign: "Record"
) -> _Piece:
    """Return the next piece of a campaign: by its index where there is one."""
    if place <= (campaign["indexed_below"] or NEWEST):
        arguments = (place, ENOUGH_MESSAGES, wanted.campaign)
        return _of_rows(await connection.fetch(sql("campaign_piece"), *arguments))
    piece = await _message_piece(connection, wanted, place, rows)
    ended = piece.next_place is not None and piece.next_place <= campaign["first_id"]
    return _Piece(piece.candidates, None if ended else piece.next_place)


def _by_id(row: "Record | None", since: datetime | None) -> _Piece:
    """Return the piece of a row with ``last_id``, ``newest`` and ``ids``."""
    if row is None or row["last_id"] is None:
        return _Piece([], None)
    ended = since is not None and row["newest"] < since - LONG_TRANSACTION
    return _Piece([(each, each + 1, 0) for each in row["ids"]], None if ended else row["last_id"])


async def _message_piece(
    connection: Connection, wanted: MessageFilter, place: int, rows: int
) -> _Piece:
    row = await connection.fetchrow(
        sql("message_piece"),
        place,
        rows,
        wanted.app,
        wanted.template,
        to_e164(wanted.prefix) if wanted.prefix else None,
        wanted.last_digits,
        wanted.since,
        wanted.until,
        wanted.campaign,
    )
    return _by_id(row, wanted.since)


async def _look_up(connection: Connection, wanted: MessageFilter, place: int) -> _Piece:
    """Return the next messages to a number, or with a reference: these have indexes."""
    if wanted.same_number_as is not None:
        numbers = await _numbers(connection, wanted)
        rows = await connection.fetch(sql("recipient_piece"), place, ENOUGH_MESSAGES, numbers)
    else:
        rows = await connection.fetch(
            sql("reference_piece"), place, ENOUGH_MESSAGES, wanted.reference
        )
    return _of_rows(rows)


async def _request_piece(connection: Connection, wanted: MessageFilter, place: int) -> _Piece:
    arguments = (place, ENOUGH_MESSAGES, wanted.app, wanted.code, wanted.state)
    return _of_rows(await connection.fetch(sql("request_piece"), *arguments))


def _of_rows(rows: "list[Record]") -> _Piece:
    candidates = [(row["id"], row["id"] + 1, 0) for row in rows]
    full = len(rows) == ENOUGH_MESSAGES
    return _Piece(candidates, rows[-1]["id"] if full else None)


async def _event_piece(  # noqa: PLR0917
    connection: Connection,
    wanted: MessageFilter,
    place: int,
    skip: int,
    rows: int,
    since: datetime | None,
) -> _Piece:
    events = await connection.fetch(
        sql("event_piece"),
        place,
        rows,
        [wanted.state] if wanted.state else None,
        wanted.app,
        wanted.code,
        ENOUGH_MESSAGES,
    )
    candidates: list[_Candidate] = []
    next_place: int | None = None
    for row in events:
        if row["ids"] is None:
            # What happened before a message was inserted is not about it.
            ended = since and row["newest"] and row["newest"] < since
            next_place = None if ended else row["id"]
            continue
        at = row["id"] + 1
        candidates += [
            (each, at, offset) for offset, each in enumerate(row["ids"]) if offset >= skip
        ]
        skip = 0
    return _Piece(candidates, next_place)


async def _id_at(connection: Connection, moment: datetime) -> int:
    """Return an id below which everything inserted before *moment* is, by halving."""
    bounds = await connection.fetchrow(sql("message_bounds"))
    if bounds is None or bounds["last_id"] is None:
        return NEWEST
    low, high = bounds["first_id"], bounds["last_id"] + 1
    while low < high:
        middle = (low + high) // 2
        row = await connection.fetchrow(sql("message_at"), middle)
        if row is None or row["queued_at"] >= moment:
            high = middle
        else:
            low = row["id"] + 1
    return int(low)
