"""Stores status reports on arrival, and reads them for operators and metrics."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from dispatcher.core.reply import Posted, read_posted
from dispatcher.core.report import Report, possible_tokens
from dispatcher.core.report_matching import Backlog
from dispatcher.core.report_status import (
    MADE_UP_STATUSES,
    RESULT_PATTERN,
    STATUSES,
    takes_place,
)
from dispatcher.core.status import MissingReports, UnmatchedReport, UnreadableCount, UnreadablePush
from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Connection, Database, storing
from dispatcher.db.errors import DATA_ERRORS
from dispatcher.db.events import count
from dispatcher.db.queries import array_text, sql
from dispatcher.db.replies import ReceivedReply, address_app
from dispatcher.db.replies import write as write_replies

if TYPE_CHECKING:
    from asyncpg import Record

NO_APP: Final = "-"  # stands for the app where none is known
REPORTS_PATH: Final = "reports"  # where reports come, without the token
REPORT_PERIOD_SECONDS: Final = 80 * 3600.0  # the provider reports within 72 h or never
REPLAYED_PUSHES: Final = 100  # in one transaction
OVERDUE_SECONDS: Final = 3600.0  # most carriers report within a minute


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
    news = 0
    for each in _rounds(reports):
        news += await _store(database, each, seconds=seconds)
    return news


async def _store(
    database: Database, reports: Sequence[tuple[Report, float]], *, seconds: float
) -> int:
    async with storing(database, seconds=seconds) as connection:
        return await _write(connection, reports)


async def _write(connection: Connection, reports: Sequence[tuple[Report, float]]) -> int:
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
            report.updated_at and report.updated_at.timestamp(),
            report.source,
            report.description,
            report.org_code,
        )
        for report, age in reports
    ]
    columns = map(array_text, zip(*rows, strict=True))
    raw = [report.raw for report, _ in reports]  # as text, each of its quotes would be escaped
    final = (list(MADE_UP_STATUSES), RESULT_PATTERN)
    news = await connection.fetchval(sql("store_reports"), *columns, raw, *final)
    return int(news or 0)


def _rounds(reports: Sequence[tuple[Report, float]]) -> Iterator[list[tuple[Report, float]]]:
    """Yield *reports* so that each statement has one for a segment, sorted; nearly always all.

    What takes the place of an earlier one follows, so that the earlier one is kept too.
    """
    left = reports
    while left:
        first: dict[tuple[str, int], tuple[Report, float]] = {}
        later = []
        for one in left:
            known = first.setdefault((one[0].provider_id, one[0].segment), one)
            if known is not one and _takes_place(one[0], known[0]):
                later.append(one)
        yield [first[key] for key in sorted(first)]
        left = later


def _takes_place(later: Report, known: Report) -> bool:
    """Tell whether a report of the same segment is news beside the *known* one."""
    return takes_place(later.state, later.status, known.state, known.status)


async def register_statuses(database: Database) -> None:
    """Write what the known statuses mean, for `message_status`."""
    rows = STATUSES.values()
    async with database.transaction() as connection:
        await connection.execute(
            sql("register_statuses"),
            [row.status for row in rows],
            [row.state for row in rows],
            [row.meaning for row in rows],
            [row.resendable for row in rows],
            [row.charged for row in rows],
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


async def keep_unreadable(
    database: Database, body: bytes, content_type: str, reason: str, *, age: float, path: str
) -> None:
    """Keep a push that cannot be read, *age* seconds after it came; safe to repeat.

    *path* is where it came, without the token.
    """
    named = b"" if path == REPORTS_PATH else path.encode() + b"\0"
    digest = hashlib.sha256(named + body).digest()
    async with database.acquire(seconds=TRANSACTION_TIMEOUT_SECONDS) as connection:
        await connection.execute(
            sql("keep_unreadable"),
            digest,
            reason,
            content_type,
            body,
            age,
            path,
            possible_tokens(body),
        )


async def unreadable(connection: Connection, *, limit: int = 100) -> list[UnreadablePush]:
    """Return the newest pushes that cannot be read."""
    rows = await connection.fetch(sql("unreadable_pushes"), limit)
    return [UnreadablePush(*row) for row in rows]


async def unreadable_count(connection: Connection) -> UnreadableCount:
    """Return how many pushes cannot be read."""
    row = await connection.fetchrow(sql("unreadable_count"))
    return UnreadableCount(*row) if row else UnreadableCount()


async def replay_unreadable(
    connection: Connection, *, words: Collection[str], verified: bool = False
) -> tuple[int, int]:
    """Read again what could not be read; return how many pushes were read, and what they held.

    *words* are those that unsubscribe; *verified*: the receiver takes verified pushes only. A push
    of which a part is still unreadable stays on the list; its reports and replies are stored once.
    So does one of which the database refuses a value, and the others are read.
    """
    pushes = stored = 0
    at, digest = datetime(1, 1, 1, tzinfo=UTC), b""
    while True:
        async with connection.transaction():
            rows = await connection.fetch(sql("unreadable_take"), at, digest, REPLAYED_PUSHES)
            for row in rows:
                at, digest = row["received_at"], row["digest"]
                push = read_posted(row["body"], is_reply=row["path"] != REPORTS_PATH, words=words)
                with suppress(*DATA_ERRORS):
                    async with connection.transaction():
                        stored += await _write_push(connection, push, row, verified=verified)
                        pushes += push.unreadable is None
        if not rows:
            return pushes, stored


async def _write_push(
    connection: Connection, push: Posted, row: "Record", *, verified: bool
) -> int:
    """Write what was read of a push that was kept, and that it was, if it was read to its end."""
    at = row["received_at"].timestamp()
    now = datetime.now(UTC).timestamp()
    stored = 0
    for each in _rounds([(report, max(0.0, now - at)) for report in push.reports]):
        stored += await _write(connection, each)
    replies = [
        ReceivedReply(reply, address_app(row["path"]), at, verified) for reply in push.replies
    ]
    if replies:
        stored += await write_replies(connection, replies, now=now)
    if push.unreadable is None:
        await connection.execute(sql("unreadable_read"), row["digest"])
    return stored
