"""Matches reports to messages, in bounded steps behind the intake.

Reports are taken from the inbox, their messages found by token and number, and what follows is
written, all in one transaction. One such step runs at a time, for all workers and receivers: so
each event of a message is written once.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.report_matching import (
    AddsProviderId,
    AlreadyAccepted,
    CancelsResend,
    ConfirmsAccepted,
    MatchedReport,
    MessageLookup,
    PendingReport,
    RetryLater,
    Unmatched,
    match_report,
    unmatched_reason,
)
from dispatcher.core.report_status import Reason, report_status
from dispatcher.db import events
from dispatcher.db.database import Connection, Database
from dispatcher.db.events import Event, count
from dispatcher.db.queries import sql
from dispatcher.db.reports import NO_APP
from dispatcher.db.rules import suppress_reported

LOCK_KEY: Final = int.from_bytes(b"match")  # of the advisory lock; any fixed number will do
MAX_STEP_REPORTS: Final = 5000  # in one step, about: a fifth of a second
STEP_TIMEOUT_SECONDS: Final = 30.0


class MatchingStep(Struct, frozen=True):
    """The result of a step."""

    reports: int = 0
    settled: int = 0  # messages that were unsure, and are accepted
    closed: int = 0  # batches of which nothing is unsure any more
    unmatched: int = 0  # reports that belong to no message
    waited: float = 0.0  # seconds since the oldest of those that were new was stored

    @property
    def more(self) -> bool:
        """Whether there is probably more to do at once."""
        return self.reports >= MAX_STEP_REPORTS


class SortedReports(Struct):
    """The reports of a step, by their effect."""

    known: list[MatchedReport]
    names: list[MatchedReport]
    settles: list[MatchedReport]
    recalls: list[MatchedReport]
    left: list[tuple[PendingReport, RetryLater | Unmatched]]


async def match(database: Database, *, suppress_blocked: bool = False) -> MatchingStep:
    """Match reports in one step; do nothing if another process is matching.

    With *suppress_blocked* a number whose report has a block-list status is suppressed. Only a
    report that belongs to a message counts: another one may be forged.
    """
    async with database.transaction(seconds=STEP_TIMEOUT_SECONDS) as connection:
        if not await connection.fetchval(sql("match_lock"), LOCK_KEY):
            return MatchingStep()
        await connection.execute(sql("pin_plans"))
        reports = await _take(connection)
        if not reports:
            return MatchingStep()
        found = _sort(reports, await _places(connection, reports))
        await _name(connection, found.names)
        settled, closed = await _settle(connection, found)
        strays = [stray for _, stray in found.left if isinstance(stray, Unmatched)]
        await publish_events(connection, [*found.known, *found.names, *settled], settled, strays)
        await _keep(connection, found.left)
        if suppress_blocked:
            await _suppress(connection, [*found.known, *found.names, *settled])
        messages = {place.message_id for _, place in settled}
        waited = max(seen.waited for seen in reports)
        return MatchingStep(len(reports), len(messages), closed, len(strays), waited)


async def _take(connection: Connection) -> list[PendingReport]:
    """Take reports, one for each segment: the newest, and fresh if any of them was."""
    new = [
        PendingReport(*row) for row in await connection.fetch(sql("take_reports"), MAX_STEP_REPORTS)
    ]
    # A final report may come while its interim one still waits for its message.
    later = [(seen.provider_id, seen.segment) for seen in new if not seen.fresh]
    rows = await connection.fetch(
        sql("take_unmatched"),
        [key[0] for key in later],
        [key[1] for key in later],
        MAX_STEP_REPORTS,
    )
    taken: dict[tuple[str, int], PendingReport] = {}
    for seen in (*(PendingReport(*row) for row in rows), *new):
        key = (seen.provider_id, seen.segment)
        known = taken.get(key, seen)
        taken[key] = replace(seen, fresh=known.fresh, attempts=known.attempts)
    return list(taken.values())


async def _places(
    connection: Connection, reports: Sequence[PendingReport]
) -> dict[int, MessageLookup]:
    """Return the message found by token and number of each report, by its index."""
    rows = await connection.fetch(
        sql("find_places"), [seen.token for seen in reports], [seen.number for seen in reports]
    )
    return {row[0] - 1: MessageLookup(*row[1:]) for row in rows}


def _sort(reports: Sequence[PendingReport], places: dict[int, MessageLookup]) -> SortedReports:
    found = SortedReports([], [], [], [], [])
    for index, seen in enumerate(reports):
        place = places.get(index)
        if place is None:
            found.left.append((seen, unmatched_reason(seen)))
            continue
        match match_report(seen, place):
            case (RetryLater() | Unmatched()) as why:
                found.left.append((seen, why))
            case AlreadyAccepted():
                found.known.append((seen, place))
            case AddsProviderId():
                found.names.append((seen, place))
            case ConfirmsAccepted():
                found.settles.append((seen, place))
            case CancelsResend():
                found.recalls.append((seen, place))
    return found


async def _suppress(connection: Connection, known: Sequence[MatchedReport]) -> None:
    """Suppress numbers that are on a block list, by the status of their carrier."""
    rows: dict[str, list[str]] = {}
    for seen, _ in known:
        status = report_status(seen.status)
        if status.reason is Reason.BLOCKED and seen.number is not None:
            rows.setdefault(f"{status.status}: {status.meaning}", []).append(seen.number)
    for reason, numbers in sorted(rows.items()):
        await suppress_reported(connection, numbers, reason)


async def _name(connection: Connection, names: Sequence[MatchedReport]) -> None:
    if names:
        await connection.execute(
            sql("name_accepted"),
            [place.message_id for _, place in names],
            [seen.provider_id for seen, _ in names],
        )


async def _settle(connection: Connection, found: SortedReports) -> tuple[list[MatchedReport], int]:
    """Write the outcomes that reports prove; return these reports, and the batches closed.

    The batch is locked first: a late answer, an operator or the policy may be settling it too.
    """
    asked = sorted({place.batch_id for _, place in found.settles})
    rows = await connection.fetch(sql("lock_unsure"), asked) if asked else []
    locked = {row["id"] for row in rows}
    waiting = [place.message_id for _, place in found.recalls]
    rows = await connection.fetch(sql("recall"), waiting) if waiting else []
    recalled = {row["id"] for row in rows}
    settled: list[MatchedReport] = []
    proven: list[MatchedReport] = []
    for known in (*found.settles, *found.recalls):
        place = known[1]
        if place.batch_id in locked or place.message_id in recalled:
            proven.append(known)
        else:
            why = "still-open" if place.batch_state == "unsure" else "being-resent"
            found.left.append((known[0], RetryLater(why)))
    # Segments of one message settle it once, and each of them is published.
    first = {place.message_id: (seen, place) for seen, place in reversed(proven)}
    if first:
        rows = await connection.fetch(
            sql("settle_by_reports"),
            list(first),
            [place.batch_id for _, place in first.values()],
            [place.attempt for _, place in first.values()],
            [seen.total for seen, _ in first.values()],
            [seen.provider_id for seen, _ in first.values()],
        )
        accepted_at = {row["message_id"]: row["created_at"] for row in rows}
        for seen, place in proven:
            at = accepted_at.get(place.message_id)
            if at and first[place.message_id][0].provider_id == seen.provider_id:
                settled.append((seen, replace(place, accepted_at=at)))
            else:  # another process was faster, or it names another id: match it again later
                found.left.append((seen, RetryLater("still-open")))
    if not locked:
        return settled, 0
    closed = await connection.fetch(sql("close_settled"), list(locked), "reports")
    return settled, len(closed)


async def _keep(
    connection: Connection, left: Sequence[tuple[PendingReport, RetryLater | Unmatched]]
) -> None:
    if left:
        await connection.execute(
            sql("keep_unmatched"),
            [seen.provider_id for seen, _ in left],
            [seen.segment for seen, _ in left],
            [why.why for _, why in left],
            [seen.fresh for seen, _ in left],
            [seen.attempts + 1 for seen, _ in left],
            [isinstance(why, RetryLater) for _, why in left],
        )


async def publish_events(
    connection: Connection,
    known: Sequence[MatchedReport],
    settled: Sequence[MatchedReport],
    strays: Sequence[Unmatched],
) -> None:
    """Count new events and append them to the event log, in the caller's transaction.

    *known* are reports of accepted messages, *settled* those of them that settled theirs.
    """
    ids_by_event: defaultdict[Event, list[int]] = defaultdict(list)
    for place in {place.message_id: place for _, place in settled}.values():
        ids_by_event[place.app, "accepted", "settled-by-report"].append(place.message_id or 0)
    first: list[MessageLookup] = []
    several: dict[str, MessageLookup] = {}
    for seen, place in known:
        if _is_all(seen):
            first.append(place)
            ids_by_event[place.app, seen.state, seen.status].append(place.message_id or 0)
        else:
            several[seen.provider_id] = place
    rows = await connection.fetch(sql("sum_reports"), list(several)) if several else []
    for provider_id, state, status, fresh in rows:
        place = several[provider_id]
        if fresh:
            first.append(place)
        if state != "interim":
            ids_by_event[place.app, state, status].append(place.message_id or 0)
    await events.append(connection, ids_by_event)
    counts: Counter[Event] = Counter({event: len(ids) for event, ids in ids_by_event.items()})
    counts.update((NO_APP, "unmatched report", stray.why) for stray in strays)
    await count(connection, 0, counts)
    if first:
        await connection.execute(
            sql("count_reported"),
            [place.accepted_at for place in first],
            [place.app for place in first],
        )


def _is_all(seen: PendingReport) -> bool:
    """Tell whether nothing else was or will be reported of the message, as nearly always."""
    return seen.fresh and seen.attempts == 0 and seen.total == 1 and seen.state != "interim"
