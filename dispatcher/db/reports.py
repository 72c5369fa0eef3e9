"""Stores status reports on arrival, and reads them for operators and metrics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report import Report
from dispatcher.core.report_matching import Backlog
from dispatcher.core.report_status import STATUSES
from dispatcher.core.status import MissingReports, UnmatchedReport
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.events import count
from dispatcher.db.queries import sql

NO_APP: Final = "-"  # stands for the app where none is known
REPORT_PERIOD_SECONDS: Final = 80 * 3600.0  # the provider reports within 72 h or never
OVERDUE_SECONDS: Final = 3600.0  # most carriers report within a minute

# Errors for a report that can never be stored.
_UNSTORABLE: tuple[type[Exception], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,
)


class UnstorableError(Exception):
    """The database refuses one of the reports, and would again."""


async def store(
    database: Database,
    reports: Sequence[tuple[Report, float]],
    *,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> int:
    """Write *reports*, each with the seconds since it came; safe to repeat.

    Returns how many of them were new.
    Raises DatabaseUnavailable, or UnstorableError if it would be refused again: none is stored.
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
    try:
        async with database.acquire(seconds=seconds) as connection:
            news = await connection.fetchval(
                sql("store_reports"), *map(list, zip(*rows, strict=True))
            )
            return news or 0
    except _UNSTORABLE as error:
        raise _unstorable(error) from error
    except DatabaseUnavailable as error:
        refused = error.__cause__
        if isinstance(refused, _UNSTORABLE) and not isinstance(refused, OSError):
            raise _unstorable(refused) from refused
        raise


def _unstorable(error: BaseException) -> UnstorableError:
    return UnstorableError(f"The database refuses it: {type(error).__name__}.")


def _newest(reports: Sequence[tuple[Report, float]]) -> list[tuple[Report, float]]:
    """Return each segment's report once, final before interim and else the first, by key."""
    newest: dict[tuple[str, int], tuple[Report, float]] = {}
    for one in reports:
        key = (one[0].provider_id, one[0].segment)
        known = newest.setdefault(key, one)
        if known is not one and known[0].state == "interim" != one[0].state:
            newest[key] = one
    return [newest[key] for key in sorted(newest)]


async def register_statuses(database: Database) -> None:
    """Write what the known statuses mean, for `message_status`."""
    rows = STATUSES.values()
    async with database.transaction() as connection:
        await connection.execute(
            sql("register_statuses"),
            [row.status for row in rows],
            [row.state for row in rows],
            [row.meaning for row in rows],
        )


async def count_refused(database: Database, refused: Mapping[str, int]) -> None:
    """Add to the counters how many pushes were refused, by reason."""
    async with database.transaction() as connection:
        events = {(NO_APP, "report refused", why): times for why, times in refused.items()}
        await count(connection, 0, Counter(events))


async def announce_check(database: Database, word: str) -> None:
    """Notify `dispatcher_check` that a test report came; writes nothing."""
    async with database.transaction() as connection:
        await connection.execute(sql("announce_check"), word)


async def awaiting(
    connection: Connection,
    *,
    silence: float = REPORT_PERIOD_SECONDS,
    overdue: float = OVERDUE_SECONDS,
) -> list[MissingReports]:
    """Return by app how many accepted messages have no report yet.

    Many of them mean a wrong callback address.

    Read from the counters alone, so it costs the same whatever the number of messages. Times in
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
    """Return how much waits to be matched."""
    row = await connection.fetchrow(sql("report_backlog"))
    return Backlog(*row) if row else Backlog(0, 0.0)
