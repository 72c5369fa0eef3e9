"""What is kept, and for how long: partitions ahead of need, and history that leaves again.

Each call is one bounded step in a transaction of its own, safe to repeat, and done by one worker
at a time: the functions of the database see to that.
"""

from collections.abc import Mapping
from typing import Final

import asyncpg

from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db.database import Database
from dispatcher.db.queries import sql

STEP_TIME: Final = 60.0  # seconds; looking through a partition takes a few
PAGES_PER_RETENTION: Final = 8  # partitions in the time that is kept: how exact retention is
INDEX_TIME: Final = 600.0  # seconds; an index of five million rows takes ten
SHORTEST_PAGE: Final = 3600.0  # seconds
MINUTES_KEPT_SECONDS: Final = 4 * 86_400.0  # of counters by minute: missing reports need 80 h


async def make_partitions(database: Database) -> int:
    """Make the partitions that will be needed; return how many were missing."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        await connection.execute(sql("migration_timeouts"), "1s", True)
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


async def start_partition_early(database: Database, retention: float) -> int:
    """Begin a new partition where the current one lasts too long; return 1 if it did."""
    async with database.transaction() as connection:
        age = max(retention / PAGES_PER_RETENTION, SHORTEST_PAGE)
        return int(await connection.fetchval(sql("start_partition_early"), age))


async def drop_old(database: Database, retention: float) -> int:
    """Do one step of dropping what is over; return 0 if nothing is left to do now.

    Raises StatementRefused if a foreign key of another table keeps partitions from being dropped.
    """
    try:
        async with database.transaction(seconds=STEP_TIME) as connection:
            if await connection.fetchval(sql("drop_step"), retention) is not None:
                return 1
            foreign_keys = await connection.fetchval(sql("foreign_keys_onto_messages"))
    except DatabaseUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
            raise
        return 0  # another session reads the partitions now; the next round finds a better moment
    if foreign_keys is not None:
        raise StatementRefused(
            "Old messages stay, although DISPATCHER_RETENTION is over: their tables cannot be"
            f" dropped while a foreign key refers to them ({foreign_keys}). Drop it with ALTER"
            " TABLE ... DROP CONSTRAINT, and keep the column."
        )
    return 0


async def prune(database: Database, retention: float) -> int:
    """Delete some of what is old and lies in no partition; return how many rows."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("prune"), retention))


async def roll_up_counts(database: Database) -> int:
    """Add some counters by minute of some days ago to those by hour; return how many."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("roll_up_counts"), MINUTES_KEPT_SECONDS))


async def drop_uploads(database: Database) -> int:
    """Delete lists and unconfirmed actions of over a day ago; return how many."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("drop_uploads")))


async def wipe_params(database: Database, after: float) -> int:
    """Wipe the variables of some messages that are over; return how many were looked at."""
    try:
        async with database.transaction(seconds=STEP_TIME) as connection:
            return int(await connection.fetchval(sql("wipe_params"), after))
    except DatabaseUnavailable as error:
        if not isinstance(error.__cause__, asyncpg.SerializationError):
            raise
        return 0  # one of them was sent again at this moment; the next round leaves it out


async def cancel_campaigns(database: Database) -> int:
    """Write the outcomes of some messages of cancelled campaigns; return how many."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("cancel_campaign_step")))


async def brake_spikes(database: Database, factors: Mapping[str, float]) -> int:
    """Pause apps with an hour that is *factors* times over their usual; return how many.

    Returns 0 once there are none: an app is paused only once in a day.
    """
    async with database.transaction(seconds=STEP_TIME) as connection:
        braked = await connection.fetchval(sql("brake_spikes"), [*factors], [*factors.values()])
        return int(braked)


async def move_campaigns(database: Database) -> int:
    """Move some messages of campaigns that are to be moved; return how many."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("move_campaign_step")))


async def continue_actions(database: Database) -> int:
    """Do the next part of each action on many messages that is under way; return how many.

    One that cannot go on keeps no other waiting: its error is raised where it is the only one.
    """
    async with database.transaction(seconds=STEP_TIME) as connection:
        actions = [row["id"] for row in await connection.fetch(sql("actions_to_continue"))]
    done = 0
    failed: DatabaseUnavailable | None = None
    for action in actions:
        try:
            async with database.transaction(seconds=STEP_TIME) as connection:
                done += await connection.fetchval(sql("continue_message_action"), action)
        except DatabaseUnavailable as error:
            failed = error
    if failed is not None and not done:
        raise failed
    return done


async def stop_campaigns(database: Database) -> int:
    """Pause campaigns of which too many messages failed; return how many."""
    async with database.transaction(seconds=STEP_TIME) as connection:
        return int(await connection.fetchval(sql("stop_campaigns"), timeout=STEP_TIME))
