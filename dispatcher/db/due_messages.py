"""Takes due messages out of the queue and bulk rows, for a claim."""

from operator import itemgetter

import asyncpg
import structlog
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.claim_cursor import BEGINNING, PRIORITY_COUNT, QueuePosition
from dispatcher.core.message import Message
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

log = structlog.get_logger(__name__)

MAX_LARGE_BYTES = 4_000_000  # of large variables that one claim reads
RECIPIENT, PARAMS = 3, 5  # where they are in a row
MESSAGE_END = 2 + len(Message.__struct_fields__)  # where the fields of a message end in a row


class ClaimRequest(Struct, frozen=True):
    """What a worker claims: messages of one app for its free request slots."""

    app: str
    slots: int = 1
    per_request: int = 500  # numbers expected to fit into one request
    first_priority: int = 0
    last_priority: int = 9
    sender: str | None = None
    probe_wait: float = 30.0  # seconds between probes of a paused app, at the least
    all_slots: int = 8  # request slots of the app, free or not
    slot_seconds: float = 0.0  # time that a request occupies its slot
    look_ahead: bool = True  # look at more messages if the first ones take a request each


class DueRows(Struct, frozen=True):
    """Due messages in order, taken from the queue and bulk rows."""

    rows: list[asyncpg.Record]  # those without a message have no recipient
    full: bool  # there is probably more
    last: QueuePosition | None  # how far the scan came; None: it saw all that is due
    missing: list[int]  # ids that waited, and have no row in the table of messages


async def take_due(
    connection: Connection,
    wanted: ClaimRequest,
    limit: int,
    since: list[float],
    *,
    paused: bool,
    bulk_due: bool,
    untried: bool = False,
) -> DueRows:
    """Take at most *limit* due messages, in the order of priorities and due times.

    The queue and the bulk rows take turns: the queue up to the first bulk row, then bulk rows up to
    the next row of the queue. *since* is when to look from, by priority. *untried*: nothing that
    returned with a code.
    """
    app, first = wanted.app, wanted.first_priority
    rows: list[asyncpg.Record] = []
    missing: list[int] = []
    while True:
        last, due_at, queue_first = wanted.last_priority, None, True
        if bulk_due:
            head = await connection.fetchrow(sql("lock_bulk"), app, first, last, since)
            if head is not None:
                last, due_at, queue_first = head
        if queue_first:
            alone = await connection.fetch(
                sql("claim"),
                app,
                limit - len(rows),
                first,
                last,
                wanted.sender,
                since,
                paused,
                due_at,
                untried,
            )
            if None in map(itemgetter(RECIPIENT), alone):
                missing += [row["id"] for row in alone if row[RECIPIENT] is None]
            rows += alone
        if len(rows) >= limit:
            break
        if due_at is None:
            return DueRows(rows, False, None, missing)
        taken, gone, bulk_due = await _bulk_rows(
            connection, app, limit - len(rows), last, due_at, wanted.sender, paused
        )
        rows += taken
        missing += gone
        if len(rows) >= limit:
            break
        if not taken and bulk_due:  # a pause has come, or these messages are finished
            return DueRows(rows, True, (last, due_at), missing)
        since[last] = max(since[last], due_at)
    return DueRows(rows, True, (rows[-1]["priority"], rows[-1][0]), missing)


async def _bulk_rows(
    connection: Connection, app: str, *arguments: object
) -> tuple[list[asyncpg.Record], list[int], bool]:
    """Return the messages that claim_bulk takes, and the ids of those that do not exist.

    Also whether bulk rows can be taken: a trigger may keep them.
    """
    rows = await connection.fetch(sql("claim_bulk"), app, *arguments)
    if not rows:
        return [], [], True
    *messages, expected = rows
    if expected[1] is None:
        log.error(
            "messages that wait together are not sent: rows of dispatcher.bulk cannot be deleted."
            " Does a trigger return NULL for them? Let it return OLD for a DELETE",
            app=app,
        )
        return [], [], False
    if len(messages) == expected[1]:
        return messages, [], True
    gone = await connection.fetch(sql("missing_messages"), expected[PARAMS])
    return messages, [row["id"] for row in gone], True


async def take_probe_messages(connection: Connection, wanted: ClaimRequest, limit: int) -> DueRows:
    """Take at most *limit* messages, of any priority, one of which probes a paused app.

    First one that was not refused before: those that were, however urgent, may be refused again,
    and the app would stay paused for the others.
    """
    wanted = replace(wanted, first_priority=0, last_priority=PRIORITY_COUNT - 1)
    start = [BEGINNING] * PRIORITY_COUNT
    due = await take_due(
        connection, wanted, limit, list(start), paused=True, bulk_due=True, untried=True
    )
    return (
        due
        if due.rows or due.missing
        else await take_due(connection, wanted, limit, start, paused=True, bulk_due=True)
    )


class Taken(Struct, frozen=True):
    """What a claim has taken."""

    rows: list[asyncpg.Record]
    messages: list[Message]
    unread: list[Message]  # without their variables: they return to the queue
    full: bool
    last: QueuePosition | None
    missing: list[int]  # ids that waited, and have no row in the table of messages

    def with_more(self, more: "Taken") -> "Taken":
        """Return both together."""
        return Taken(
            self.rows + more.rows,
            self.messages + more.messages,
            self.unread + more.unread,
            more.full,
            more.last,
            self.missing + more.missing,
        )

    def due_times(self, messages: list[Message]) -> dict[int, float]:
        """Return when *messages*, some of these, were due, by id: in seconds since 1970."""
        ids = {message.id for message in messages}
        return {row["id"]: row[0] for row in self.rows if row["id"] in ids} if ids else {}

    def returned(self, messages: list[Message]) -> dict[int, tuple[int | None, str | None]]:
        """Return from which batch *messages*, some of these, had returned, and why, by id."""
        ids = {message.id for message in messages}
        return {
            row["id"]: (row["last_batch"], row["code"])
            for row in (self.rows if ids else ())
            if row["id"] in ids and "code" in row  # what was in a bulk row was not claimed before
        }


async def take(
    connection: Connection,
    wanted: ClaimRequest,
    limit: int,
    since: list[float],
    *,
    paused: bool,
    bulk_due: bool,
) -> Taken:
    """Take up to *limit* due messages.

    Of those with large variables, at most so many are read as have MAX_LARGE_BYTES together. Of a
    paused app they are those that may probe it.
    """
    due = await (
        take_probe_messages(connection, wanted, limit)
        if paused
        else take_due(connection, wanted, limit, since, paused=False, bulk_due=bulk_due)
    )
    rows = [row for row in due.rows if row[RECIPIENT]] if due.missing else due.rows
    messages = [Message(*row[2:MESSAGE_END]) for row in rows]
    large = [row for row in rows if row[1] is not None]
    if not large:
        return Taken(rows, messages, [], due.full, due.last, due.missing)
    room = MAX_LARGE_BYTES
    read: list[int] = []
    unread: set[int] = set()
    for row in large:
        room -= row[1]
        if room >= 0 or not read:
            read.append(row["id"])
        else:
            unread.add(row["id"])
    params = dict(await connection.fetch(sql("read_large"), read))
    return Taken(
        rows,
        [
            replace(m, params=params[m.id]) if m.id in params else m
            for m in messages
            if m.id not in unread
        ],
        [m for m in messages if m.id in unread],
        due.full,
        due.last,
        due.missing,
    )
