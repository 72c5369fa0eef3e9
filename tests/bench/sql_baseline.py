"""SQL baseline: runs the statements of claim and record on the same rows, and nothing else.

It builds no messages, packs, encodes, signs, sends and reads nothing. What remains is the time
that PostgreSQL and its driver need, an upper bound of any worker.
"""

from collections.abc import Awaitable, Callable
from secrets import token_hex
from time import monotonic

from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.db import events
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.due_messages import ClaimRequest, take_due
from dispatcher.db.events import count
from dispatcher.db.queries import array_text, sql
from dispatcher.db.record import ACCEPTED_COLUMNS
from dispatcher.worker.claim_loop import MAX_CLAIM_SLOTS

APP = "default"
MESSAGES_PER_REQUEST = 500


async def prepare(address: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return a function that drains the queue and returns how many messages it claimed."""
    connection = await connect(address)

    async def drain() -> int:
        claimed = 0
        cursor = ClaimCursor(monotonic)
        while ids := await _claim_and_record(connection, worker, cursor):
            claimed += len(ids)
        await connection.close()
        return claimed

    return drain


async def take_ids(connection: OwnConnection, cursor: ClaimCursor, limit: int) -> list[int]:
    """Take messages as a claim does, with its statements and cursor; return their ids."""
    since = cursor.start_scan()
    state = await connection.fetchrow(sql("app_state"), APP, 0, 9, since, 0, None, None)
    assert state is not None  # the benchmark has made the app
    began = monotonic()
    taken = await take_due(
        connection,
        ClaimRequest(APP),
        limit,
        since,
        paused=False,
        bulk_due=state["bulk_due"],
    )
    cursor.finish_scan(state["asked_at"], taken.last, seconds=monotonic() - began)
    return [row["id"] for row in taken.rows]


async def _claim_and_record(
    connection: OwnConnection, worker: int, cursor: ClaimCursor
) -> list[int]:
    """Claim as many messages as one claim of a worker takes, and record their outcomes."""
    limit = MAX_CLAIM_SLOTS * MESSAGES_PER_REQUEST
    async with connection.transaction():
        ids = await take_ids(connection, cursor, limit)
        if not ids:
            return ids
        parts = [
            ids[at : at + MESSAGES_PER_REQUEST] for at in range(0, len(ids), MESSAGES_PER_REQUEST)
        ]
        many = len(parts)
        tokens = [token_hex(16) for _ in parts]
        batches = await connection.fetch(
            sql("open_batches"),
            APP,
            worker,
            tokens,
            [array_text(part) for part in parts],
            [array_text([1] * len(part)) for part in parts],
            [60_000] * many,
            None,
            [],
        )
    prefix = f"{token_hex(4)}-{token_hex(2)}-{token_hex(2)}-{token_hex(2)}-{token_hex(6)}_"
    async with connection.transaction():
        await connection.execute(sql("pin_plans"))
        await connection.fetch(
            sql("close_batches"),
            [row[0] for row in batches],
            ["closed"] * many,
            [200] * many,
            ["000000"] * many,
            ["Success"] * many,
            [1] * many,
            [True] * many,
            tokens,
        )
        await connection.copy_records_to_table(
            "outcome",
            schema_name="dispatcher",
            records=[
                (each, batch[0], "accepted", 1, 1, f"{prefix}{number}")
                for batch, part in zip(batches, parts, strict=True)
                for number, each in enumerate(part, 1)
            ],
            columns=ACCEPTED_COLUMNS,
        )
        event = (APP, "accepted", "")
        await count(connection, worker, {event: len(ids)})
        await events.append(connection, {event: ids})
    return ids
