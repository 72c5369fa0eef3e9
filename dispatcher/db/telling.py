"""Tells what reports say of messages: to the counters and to the feed, once each."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from dispatcher.core.belonging import Known, Place, Seen, Stray
from dispatcher.db import feed
from dispatcher.db.pool import Connection
from dispatcher.db.reports import NOBODY
from dispatcher.db.statements import sql
from dispatcher.db.tally import Event, count


async def tell(
    connection: Connection,
    known: Sequence[Known],
    settled: Sequence[Known],
    strays: Sequence[Stray],
) -> None:
    """Count and feed what is news, in the caller's transaction.

    *known* are reports of accepted messages, *settled* those of them that settled theirs.
    """
    told: defaultdict[Event, list[int]] = defaultdict(list)
    for place in {place.message_id: place for _, place in settled}.values():
        told[place.app, "accepted", "report"].append(place.message_id or 0)
    first: list[Place] = []
    several: dict[str, Place] = {}
    for seen, place in known:
        if _is_all(seen):
            first.append(place)
            told[place.app, seen.state, seen.status].append(place.message_id or 0)
        else:
            several[seen.provider_id] = place
    rows = await connection.fetch(sql("sum_reports"), list(several)) if several else []
    for provider_id, state, status, fresh in rows:
        place = several[provider_id]
        if fresh:
            first.append(place)
        if state != "interim":
            told[place.app, state, status].append(place.message_id or 0)
    await feed.append(connection, told)
    counts: Counter[Event] = Counter({event: len(ids) for event, ids in told.items()})
    counts.update((NOBODY, "unmatched report", stray.why) for stray in strays)
    await count(connection, 0, counts)
    if first:
        await connection.execute(
            sql("count_reported"),
            [place.accepted_at for place in first],
            [place.app for place in first],
        )


def _is_all(seen: Seen) -> bool:
    """Tell whether nothing else was or will be reported of the message, as nearly always."""
    return seen.fresh and seen.looks == 0 and seen.total == 1 and seen.state != "interim"
