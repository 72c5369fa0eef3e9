"""What is kept, and for how long: partitions ahead of need, and history that leaves again.

Each call is one bounded step in a transaction of its own, safe to repeat, and done by one worker
at a time: the functions of the database see to that.
"""

from typing import Final

import asyncpg
from msgspec import Struct

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.message import spellings, to_e164
from dispatcher.db.database import Connection, Database
from dispatcher.db.queries import sql

STEP_TIME: Final = 60.0  # seconds; looking through a partition takes a few
PAGES_PER_RETENTION: Final = 8  # partitions in the time that is kept: how exact retention is
INDEX_TIME: Final = 600.0  # seconds; an index of five million rows takes ten
SHORTEST_PAGE: Final = 3600.0  # seconds


class Forgotten(Struct, frozen=True):
    """The result of erasing a person's messages."""

    erased: list[int]
    left: list[int]  # may be on their way
    suppressed: bool  # the number is still on the list of those never to send to


async def make_partitions(database: Database) -> int:
    """Make the partitions that will be needed; return how many were missing."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        await connection.execute(sql("migrations_patience"), "1s", True)
        return int(await connection.fetchval(sql("make_partitions")))


async def index_full_partitions(database: Database) -> int:
    """Make one index that a full partition lacks; return 0 if there is none to make now."""
    try:
        async with database.transaction(seconds=INDEX_TIME) as connection:
            made = await connection.fetchval(sql("index_step"), timeout=INDEX_TIME)
            return int(made is not None)
    except DatabaseUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            raise
        return 0  # another session writes there now; the next round finds a better moment


async def turn_page(database: Database, retention: float) -> int:
    """Begin a new partition where the current one lasts too long; return 1 if it did."""
    async with database.transaction() as connection:
        age = max(retention / PAGES_PER_RETENTION, SHORTEST_PAGE)
        return int(await connection.fetchval(sql("turn_page"), age))


async def drop_old(database: Database, retention: float) -> int:
    """Do one step of dropping what is over; return 0 if nothing is left to do now."""
    try:
        async with database.transaction(seconds=STEP_TIME) as connection:
            return int(await connection.fetchval(sql("drop_step"), retention) is not None)
    except DatabaseUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            raise
        return 0  # another session reads the partitions now; the next round finds a better moment


async def prune(database: Database, retention: float) -> int:
    """Delete some of what is old and lies in no partition; return how many rows."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("prune"), retention))


async def wipe_params(database: Database, after: float) -> int:
    """Wipe the variables of some messages that are over; return how many were looked at."""
    try:
        async with database.transaction(seconds=STEP_TIME) as connection:
            return int(await connection.fetchval(sql("wipe_params"), after))
    except DatabaseUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.SerializationError):
            raise
        return 0  # one of them was sent again at this moment; the next round leaves it out


async def export(connection: Connection, number: str) -> list[str]:
    """Return everything kept of the person with *number*, a JSON text each: messages, then more."""
    messages = await connection.fetch(sql("export_messages"), spellings(to_e164(number)))
    listed = await connection.fetch(sql("export_suppression"), to_e164(number))
    return [row[0] for row in (*messages, *listed)]


async def forget(connection: Connection, number: str, who: str) -> Forgotten:
    """Erase the person with *number*, and write that down: who, and which messages, but no number.

    A number that is on the list of those never to send to stays there, for that is what its owner
    wants; the reason, which may tell more of them, goes.
    """
    async with connection.transaction():
        row = await connection.fetchrow(sql("forget"), spellings(to_e164(number)))
        if row is None:  # it always returns one
            return Forgotten([], [], suppressed=False)
        erased, left = row["erased"], row["left_alone"]
        await connection.execute(sql("forget_used"), to_e164(number))
        suppressed = bool(await connection.fetchval(sql("forget_suppressed"), to_e164(number)))
        await connection.execute(
            sql("audit"),
            who,
            "forget",
            "1 message" if len(erased) == 1 else f"{len(erased)} messages",
            " ".join(map(str, erased)),
            f"{len(left)} left: on their way, or unsure" if left else "erased",
        )
        return Forgotten(erased, left, suppressed=suppressed)
