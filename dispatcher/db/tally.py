"""Counters per minute: what charts and totals are made of, instead of counting rows."""

from collections import Counter
from collections.abc import Iterable

from dispatcher.db.pool import Connection
from dispatcher.db.statements import sql

Event = tuple[str, str, str]  # app, event, code


async def count(
    connection: Connection,
    worker: int,
    events: Iterable[Event] | Counter[Event],
) -> None:
    """Add *events* to the counters of this minute, in the caller's transaction."""
    counted = Counter(events)
    if counted:
        apps, names, codes = zip(*counted, strict=True)
        await connection.execute(
            sql("count_events"), worker, apps, names, codes, list(counted.values())
        )
