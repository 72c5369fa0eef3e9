"""The floor: the statements of claim and record on the same rows, and nothing between them.

No message is made of a row, nothing is packed, encoded, signed, sent or read: what is left is
what PostgreSQL and its driver take for the work that must be done.
"""

from collections.abc import Awaitable, Callable
from secrets import token_hex
from time import monotonic

from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.db import events
from dispatcher.db.arrays import array_text
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.events import count
from dispatcher.db.record import OUTCOME_COLUMNS
from dispatcher.db.statements import sql
from dispatcher.worker.worker import CLAIM_SLOTS

APP = "default"
PER_REQUEST = 500


async def prepare(address: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return what drains the queue and returns how many messages it took."""
    connection = await connect(address)

    async def drain() -> int:
        taken = 0
        floor = ClaimCursor(monotonic)
        while ids := await _carry(connection, worker, floor):
            taken += len(ids)
        await connection.close()
        return taken

    return drain


async def _carry(connection: OwnConnection, worker: int, floor: ClaimCursor) -> list[int]:
    """Carry as many messages as one claim takes from the queue to their outcomes."""
    limit = CLAIM_SLOTS * PER_REQUEST
    async with connection.transaction():
        state = await connection.fetchrow(sql("app_state"), APP)
        began = monotonic()
        rows = await connection.fetch(sql("claim"), APP, limit, 0, 9, None, floor.begin(), False)
        ids = [row["id"] for row in rows]
        if not ids:
            return ids
        last = (rows[-1]["priority"], rows[-1][0]) if len(ids) == limit else None
        assert state is not None  # noqa: S101 - the benchmark has made the app
        floor.end(state["asked_at"], last, seconds=monotonic() - began)
        parts = [ids[at : at + PER_REQUEST] for at in range(0, len(ids), PER_REQUEST)]
        many = len(parts)
        batches = await connection.fetch(
            sql("open_batches"),
            APP,
            worker,
            [token_hex(16) for _ in parts],
            [array_text(part) for part in parts],
            [array_text([1] * len(part)) for part in parts],
            [60_000] * many,
            None,
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
        )
        await connection.copy_records_to_table(
            "outcome",
            schema_name="dispatcher",
            records=[
                (each, batch[0], "accepted", 1, 1, f"{prefix}{number}", "000000", None)
                for batch, part in zip(batches, parts, strict=True)
                for number, each in enumerate(part, 1)
            ],
            columns=OUTCOME_COLUMNS,
        )
        event = (APP, "accepted", "")
        await count(connection, worker, {event: len(ids)})
        await events.append(connection, {event: ids})
    return ids
