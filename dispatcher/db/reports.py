"""Status reports: stored on arrival, and what operators and metrics ask of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import asyncpg

from dispatcher.core.report import Report
from dispatcher.core.report_matching import Backlog
from dispatcher.core.report_status import STATUSES
from dispatcher.core.status import MissingReports, UnmatchedReport
from dispatcher.db.database import PATIENCE, Connection, Pool, borrowed, transaction
from dispatcher.db.errors import AWAY, DatabaseAwayError, explain
from dispatcher.db.events import count
from dispatcher.db.queries import sql

NOBODY = "-"  # stands for the app where none is known
SILENCE = 80 * 3600.0  # seconds: the provider reports within 72 h, or never will
OVERDUE = 3600.0  # seconds; most carriers report within a minute

# What says that a report itself cannot be stored, and never will.
_UNFIT: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,
)
_TROUBLE: tuple[type[Exception], ...] = (*AWAY, asyncpg.PostgresError)


class UnfitError(Exception):
    """The database refuses one of the reports, and would again."""


@contextmanager
def naming_trouble(dsn: str) -> Iterator[None]:
    """Turn whatever keeps reports out of the database into UnfitError or DatabaseAwayError.

    Also tables that are not there yet, or a right that is missing, pass with time: it is better
    to keep reports on disk until that is corrected than to lose them.
    """
    try:
        yield
    except _UNFIT as error:
        raise UnfitError(f"The database refuses it: {type(error).__name__}.") from error
    except _TROUBLE as error:
        raise DatabaseAwayError(explain(error, dsn)) from error


async def store(
    pool: Pool, reports: Sequence[tuple[Report, float]], *, seconds: float = PATIENCE
) -> int:
    """Write *reports*, each with the seconds since it came; safe to repeat.

    Returns how many of them told something new.
    Raises asyncpg's errors (see `naming_trouble`); none of them are stored then.
    """
    rows = [
        (
            report.provider_id,
            report.segment,
            report.total,
            report.status,
            report.state,
            report.token,
            report.recipient,
            age,
            report.updated_at,
            report.source,
            report.description,
            report.org_code,
            report.raw,
        )
        for report, age in _newest(reports)
    ]
    async with borrowed(pool, seconds=seconds) as connection:
        news = await connection.fetchval(sql("store_reports"), *map(list, zip(*rows, strict=True)))
        return news or 0


def _newest(reports: Sequence[tuple[Report, float]]) -> list[tuple[Report, float]]:
    """Return each segment's report once, final before interim and else the first, by key."""
    newest: dict[tuple[str, int], tuple[Report, float]] = {}
    for one in reports:
        key = (one[0].provider_id, one[0].segment)
        known = newest.setdefault(key, one)
        if known is not one and known[0].state == "interim" != one[0].state:
            newest[key] = one
    return [newest[key] for key in sorted(newest)]


async def register_statuses(pool: Pool) -> None:
    """Write what the known statuses mean, for `message_status`."""
    rows = STATUSES.values()
    async with transaction(pool) as connection:
        await connection.execute(
            sql("register_statuses"),
            [row.status for row in rows],
            [row.state for row in rows],
            [row.meaning for row in rows],
        )


async def count_refused(pool: Pool, refused: Mapping[str, int]) -> None:
    """Add to the counters how many pushes were refused, by reason."""
    async with transaction(pool) as connection:
        events = {(NOBODY, "report refused", why): times for why, times in refused.items()}
        await count(connection, 0, Counter(events))


async def announce_check(pool: Pool, word: str) -> None:
    """Notify `dispatcher_check` that a test report came; writes nothing."""
    async with transaction(pool) as connection:
        await connection.execute(sql("announce_check"), word)


async def awaiting(
    connection: Connection, *, silence: float = SILENCE, overdue: float = OVERDUE
) -> list[MissingReports]:
    """Return by app what of the accepted has no report yet: the sign of a broken callback address.

    Made of the counters alone, so it costs the same whatever the number of messages. Times in
    seconds, true to the minute.
    """
    rows = await connection.fetch(sql("awaiting_reports"), silence, overdue)
    return [MissingReports(*row) for row in rows]


async def unmatched(connection: Connection, *, limit: int = 100) -> list[UnmatchedReport]:
    """Return the newest reports that belong to no message."""
    return [
        UnmatchedReport(*row) for row in await connection.fetch(sql("unmatched_reports"), limit)
    ]


async def backlog(connection: Connection) -> Backlog:
    """Return what waits to be matched."""
    row = await connection.fetchrow(sql("report_backlog"))
    return Backlog(*row) if row else Backlog(0, 0.0)
