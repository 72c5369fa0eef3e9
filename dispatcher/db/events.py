"""The event log: the results of messages, in an order that a reader can follow.

Rows are appended by the transactions that decide; `place` gives them their positions afterwards.
`dispatcher.events()` reads them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dispatcher.db.database import Connection, Database
from dispatcher.db.queries import array_text, sql

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


LOCK_KEY: Final = int.from_bytes(b"event")  # of the advisory lock; any fixed number will do
MOST_ROWS: Final = 1000  # placed in one transaction


async def append(
    connection: Connection,
    by_event: Mapping[Event, Sequence[int]],
    whole: Sequence[tuple[Event, int, int]] = (),
) -> None:
    """Append results of messages, in the caller's transaction.

    *by_event* are message ids by app, event and code. *whole* are batches, with their size, of
    which the same is true of every message: naming these takes no time at all, and ids take 0.5 µs
    each.
    """
    if not by_event and not whole:
        return
    events = [*by_event, *(event for event, _, _ in whole)]
    named, rest = len(by_event), len(whole)
    await connection.execute(
        sql("append_events"),
        *map(list, zip(*events, strict=True)),
        [*map(array_text, by_event.values()), *[None] * rest],
        [*[None] * named, *(batch for _, batch, _ in whole)],
        [*map(len, by_event.values()), *(size for _, _, size in whole)],
    )


async def place(database: Database, *, notify: bool = False) -> int:
    """Give new rows of the log their positions; return how many, 0 if another process does.

    *notify* sends to each app's channel, `dispatcher_events_<app>`, the last position of its own.
    """
    async with database.transaction() as connection:
        # First the lock, then the statement, whose snapshot then has all that was placed before.
        if not await connection.fetchval(sql("match_lock"), LOCK_KEY):
            return 0
        row = await connection.fetchrow(sql("place_events"), MOST_ROWS, notify)
        return row["rows"] if row else 0
