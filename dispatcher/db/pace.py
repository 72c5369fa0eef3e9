"""The rate limit of an app, which all its workers charge: one row, locked while it is charged."""

from time import monotonic

from msgspec.structs import replace

from dispatcher.core import rate_limit
from dispatcher.core.message import Batch
from dispatcher.db.database import Connection, Database
from dispatcher.db.queries import sql

FORGIVEN_LATENESS_RATIO = 0.1  # of the time until the next grant


async def lock_rate_limit(
    connection: Connection, app: str, rate: float, wait: float
) -> tuple[float | None, float]:
    """Lock the app's rate limit if a claim is due; return its rate and the seconds until then.

    The rate is None if another worker, which starts with other settings, has just taken it away.
    """
    if wait > rate_limit.LEAD_TIME_SECONDS:
        return rate, wait  # not worth the lock
    row = await connection.fetchrow(sql("lock_pace"), app)
    if row is None or row["rate"] is None:
        return None, 0.0
    return row["rate"], row["wait"]


async def charge(
    connection: Connection, rate: float, batches: list[Batch]
) -> tuple[list[Batch], float]:
    """Charge the rate limit; return *batches* with their times, and seconds to the next claim."""
    lasts = [rate_limit.grant_seconds(rate, len(batch.messages)) for batch in batches]
    asked = monotonic()
    until_next: float = await connection.fetchval(sql("charge_pace"), batches[0].app, sum(lasts))
    first = asked + until_next - sum(lasts)
    timed = [
        replace(batch, send_at=first + sum(lasts[:place])) for place, batch in enumerate(batches)
    ]
    return timed, max(0.0, until_next - rate_limit.LEAD_TIME_SECONDS)


async def charge_again(database: Database, batch: Batch) -> None:
    """Charge the rate limit once more for *batch*, which was sent twice."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("lock_pace"), batch.app)
        if row is not None and row["rate"] is not None:
            await charge(connection, row["rate"], [batch])


async def reschedule(database: Database, batch: Batch, late: float) -> float | None:
    """Charge the rate limit once more for *batch*, which is *late* (seconds).

    Returns when it may be sent, on the monotonic clock. Where that is far away, it is now if it is
    late by little, and otherwise None, without a charge: the batch then returns to the queue, so
    that a pause, a cancel and urgent messages reach it.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("lock_pace"), batch.app)
        if row is None or row["rate"] is None:
            return monotonic()
        if row["wait"] > rate_limit.MAX_AHEAD_SECONDS:
            return monotonic() if late <= row["wait"] * FORGIVEN_LATENESS_RATIO else None
        [timed], _ = await charge(connection, row["rate"], [batch])
        return timed.send_at or monotonic()
