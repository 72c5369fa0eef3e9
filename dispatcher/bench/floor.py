"""The floor: the statements of claim and record on the same rows, and nothing between them.

No message is made of a row, nothing is packed, encoded, signed, sent or read: what is left is
what PostgreSQL and its driver take for the work that must be done.
"""

from collections.abc import Awaitable, Callable
from itertools import accumulate
from secrets import token_hex

from dispatcher.db.pool import OwnConnection, connect
from dispatcher.db.record import OUTCOME_COLUMNS
from dispatcher.db.statements import sql
from dispatcher.service.worker import CLAIM_SLOTS

APP = "default"
PER_REQUEST = 500


async def prepare(address: str, worker: int) -> Callable[[], Awaitable[int]]:
    """Connect; return what drains the queue and returns how many messages it took."""
    connection = await connect(address)

    async def drain() -> int:
        taken = 0
        while ids := await _claim(connection, worker):
            taken += len(ids)
        await connection.close()
        return taken

    return drain


async def _claim(connection: OwnConnection, worker: int) -> list[int]:
    """Carry as many messages as one claim takes from the queue to their outcomes."""
    limit = CLAIM_SLOTS * PER_REQUEST
    async with connection.transaction():
        await connection.fetchrow(sql("app_state"), APP)
        rows = await connection.fetch(sql("claim"), APP, limit, 0, 9, None)
        ids = [row[0] for row in rows]
        if not ids:
            return ids
        parts = [ids[at : at + PER_REQUEST] for at in range(0, len(ids), PER_REQUEST)]
        ends = list(accumulate(map(len, parts)))
        batches = await connection.fetch(
            sql("open_batches"),
            APP,
            worker,
            [token_hex(16) for _ in ends],
            ends,
            ids,
            [row[7] for row in rows],
            [60_000] * len(ends),
            [None] * len(ends),
        )
    many = len(ends)
    prefix = f"{token_hex(4)}-{token_hex(2)}-{token_hex(2)}-{token_hex(2)}-{token_hex(6)}_"
    async with connection.transaction():
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
        await connection.execute(sql("count_events"), worker, [APP], ["accepted"], [""], [len(ids)])
    return ids
