"""Matches reports to messages, in bounded steps behind the intake.

Reports are taken from the inbox, their messages found by token and number, and what follows is
written, all in one transaction. One such step runs at a time, for all workers and receivers: so
each event of a message is written once.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from time import monotonic
from typing import Final

import asyncpg
import structlog
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
    find_member,
    match_report,
    needs_members,
    unknown_member,
    unmatched_reason,
)
from dispatcher.core.report_status import (
    MADE_UP_STATUSES,
    Reason,
    report_status,
)
from dispatcher.db import events
from dispatcher.db.database import Connection, Database
from dispatcher.db.errors import (
    DATA_ERRORS,
    ROW_ERRORS,
    data_error_kind,
    is_data_error,
    is_locked,
)
from dispatcher.db.events import Event, count
from dispatcher.db.queries import sql
from dispatcher.db.report_effects import pause_refused_apps, suppress_blocked_numbers
from dispatcher.db.report_lookup import (
    MAX_STEP_REPORTS,
    find_members,
    find_places,
    find_places_by_id,
    put_back,
    take,
)
from dispatcher.db.reports import NO_APP

log = structlog.get_logger(__name__)

LOCK_KEY: Final = int.from_bytes(b"match")  # of the advisory lock; any fixed number will do
MAX_ATTEMPTS: Final = 32_767  # that a row counts: it waits for ten minutes each time by then
STEP_TIMEOUT_SECONDS: Final = 30.0
LOCK_TIMEOUT: Final = "1s"  # of a statement of a step: transactions of workers are shorter
# What a person's transaction holds is left for later: found by halves that wait for so long each.
APART_LOCK_TIMEOUT: Final = "50ms"
MAX_LOCKED_SECONDS: Final = 5.0  # of one step; then all that it has not matched waits
NARROWED_ERRORS: tuple[type[Exception], ...] = (*DATA_ERRORS, asyncpg.LockNotAvailableError)


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
    erased: list[PendingReport]  # of requests in which a person's messages were erased


async def match(database: Database, *, suppress_blocked: bool = False) -> MatchingStep:
    """Match reports in one step; do nothing if another process is matching.

    With *suppress_blocked* a number whose report has a block-list status is suppressed. Only a
    report that belongs to a message counts: another one may be forged. A report that fails for one
    of its values is set aside, one that needs a row which another session holds waits, and the
    others are matched.
    """
    try:
        return await _match(database, suppress_blocked=suppress_blocked, apart=False)
    except ROW_ERRORS as error:
        if not is_data_error(error) and not is_locked(error):
            raise
        return await _match(database, suppress_blocked=suppress_blocked, apart=True)


async def _match(database: Database, *, suppress_blocked: bool, apart: bool) -> MatchingStep:
    """Do one step; *apart* narrows a failure down to the report, at the cost of savepoints."""
    async with database.transaction(seconds=STEP_TIMEOUT_SECONDS) as connection:
        if not await connection.fetchval(sql("match_lock"), LOCK_KEY):
            return MatchingStep()
        await connection.execute(sql("pin_plans"))
        reports = await take(connection)
        if not reports:
            return MatchingStep()
        await connection.execute(
            sql("set_lock_timeout"), APART_LOCK_TIMEOUT if apart else LOCK_TIMEOUT
        )
        if apart:
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            until = monotonic() + MAX_LOCKED_SECONDS
            step = await _match_apart(
                connection, reports, suppress_blocked=suppress_blocked, until=until
            )
        else:
            step = await _match_reports(connection, reports, suppress_blocked=suppress_blocked)
        return replace(step, waited=max(seen.waited for seen in reports))


async def _match_apart(
    connection: Connection,
    reports: Sequence[PendingReport],
    *,
    suppress_blocked: bool,
    until: float,
) -> MatchingStep:
    """Match *reports*, halve them where that fails, and set aside the one at fault.

    One that needs a row which another session holds waits; after *until*, on the monotonic clock,
    so do all that stand with it.
    """
    await connection.execute("SAVEPOINT reports")
    try:
        step = await _match_reports(connection, reports, suppress_blocked=suppress_blocked)
    except NARROWED_ERRORS as error:
        await connection.execute("ROLLBACK TO SAVEPOINT reports")
        is_held = isinstance(error, asyncpg.LockNotAvailableError)
        if is_held and (len(reports) == 1 or monotonic() > until):
            locked = RetryLater("locked")
            return MatchingStep(await _set_aside(connection, [(seen, locked) for seen in reports]))
        if len(reports) == 1:
            stray = Unmatched("set-aside")
            if not await _set_aside(connection, [(reports[0], stray)]):
                return MatchingStep()
            log.error(  # noqa: TRY400 - a value of a row needs no traceback
                "a report is set aside: it cannot be matched", why=data_error_kind(error)
            )
            await count(connection, 0, [(NO_APP, "unmatched report", stray.why)])
            return MatchingStep(1, unmatched=1)
    else:
        await connection.execute("RELEASE SAVEPOINT reports")
        return step
    first, second = [
        await _match_apart(connection, part, suppress_blocked=suppress_blocked, until=until)
        for part in _halves(reports)
    ]
    return MatchingStep(
        first.reports + second.reports,
        first.settled + second.settled,
        first.closed + second.closed,
        first.unmatched + second.unmatched,
    )


def _halves(
    reports: Sequence[PendingReport],
) -> tuple[Sequence[PendingReport], Sequence[PendingReport]]:
    """Return two parts of *reports*; those that write what people also write stand apart, last.

    These are the rows of apps, and the suppression list.
    """
    shared = [seen for seen in reports if _writes_rules(seen)]
    if shared and len(shared) < len(reports):
        return [seen for seen in reports if not _writes_rules(seen)], shared
    middle = len(reports) // 2
    return reports[:middle], reports[middle:]


def _writes_rules(seen: PendingReport) -> bool:
    status = report_status(seen.status)
    return bool(status.pauses) or status.reason is Reason.BLOCKED


async def _match_reports(
    connection: Connection, reports: Sequence[PendingReport], *, suppress_blocked: bool
) -> MatchingStep:
    places = await find_places(connection, reports)
    places |= await find_places_by_id(connection, reports, places)
    found = _sort(reports, places, await find_members(connection, reports, places))
    await _erase(connection, found.erased)
    named = await _name(connection, found)
    settled, closed = await _settle(connection, found)
    strays = [stray for _, stray in found.left if isinstance(stray, Unmatched)]
    known = [*found.known, *named, *settled]
    await publish_events(connection, known, settled, strays)
    await _keep(connection, found.left)
    await pause_refused_apps(connection, known)
    if suppress_blocked:
        await suppress_blocked_numbers(connection, known)
    messages = {place.message_id for _, place in settled}
    return MatchingStep(len(reports), len(messages), closed, len(strays))


def _sort(
    reports: Sequence[PendingReport],
    places: dict[int, MessageLookup],
    members: dict[str, list[MessageLookup]],
) -> SortedReports:
    found = SortedReports([], [], [], [], [], _erased(reports, members))
    found.erased += [reports[index] for index, place in places.items() if place.erased]
    for index, seen in enumerate(reports):
        place = places.get(index)
        if place is None:
            found.left.append((seen, unmatched_reason(seen)))
            continue
        if needs_members(seen, place):
            chosen = _choose(seen, place, members.get(seen.token or ""))
            if not isinstance(chosen, MessageLookup):
                found.left.append((seen, chosen))
                continue
            place = chosen
        match match_report(seen, place):
            case AlreadyAccepted():
                found.known.append((seen, place))
            case (RetryLater() | Unmatched()) as why:
                found.left.append((seen, why))
            case AddsProviderId():
                found.names.append((seen, place))
            case ConfirmsAccepted():
                found.settles.append((seen, place))
            case CancelsResend():
                found.recalls.append((seen, place))
    return found


def _erased(
    reports: Sequence[PendingReport], members: dict[str, list[MessageLookup]]
) -> list[PendingReport]:
    """Return the reports of requests in which a person's messages were erased."""
    tokens = {token for token, known in members.items() if any(one.erased for one in known)}
    return [seen for seen in reports if seen.token in tokens] if tokens else []


def _choose(
    report: PendingReport, place: MessageLookup, members: list[MessageLookup] | None
) -> MessageLookup | RetryLater | Unmatched:
    """Return the one of the *members* of its request that *report* is about, or why none is."""
    if members is None:
        return RetryLater("not-looked-up")
    member = find_member(report, members)
    if member is None and place.message_id is None:
        return unknown_member(report, members)
    return member or place


async def _erase(connection: Connection, erased: Sequence[PendingReport]) -> None:
    """Keep no number in reports that came after their person's messages were erased."""
    if erased:
        await connection.execute(
            sql("erase_reports"),
            [seen.provider_id for seen in erased],
            [seen.segment for seen in erased],
        )


async def _name(connection: Connection, found: SortedReports) -> list[MatchedReport]:
    """Add the provider ids that reports bring; return the reports whose ids were added."""
    if not found.names:
        return []
    rows = await connection.fetch(
        sql("name_accepted"),
        [place.message_id for _, place in found.names],
        [seen.provider_id for seen, _ in found.names],
    )
    written = {tuple(row) for row in rows}
    named: list[MatchedReport] = []
    later: list[tuple[PendingReport, RetryLater | Unmatched]] = []
    for seen, place in found.names:
        if (place.message_id, seen.provider_id) in written:
            named.append((seen, place))
        else:  # another one names the message otherwise, or it was requeued: match it again
            later.append((seen, RetryLater("still-open")))
    found.left += later
    return named


async def _settle(connection: Connection, found: SortedReports) -> tuple[list[MatchedReport], int]:
    """Write the outcomes that reports prove; return these reports, and the batches closed.

    The batch is locked first: a late answer, an operator or the policy may be settling it too. What
    they have done since the places were read counts. A message that was given up, and was sent
    again since, may be unsure once more, in its new batch.
    """
    asked = sorted({place.batch_id for _, place in found.settles})
    rows = await connection.fetch(sql("lock_unsure"), asked) if asked else []
    locked: dict[int, list[int] | None] = {row["id"]: row["unsure_ids"] for row in rows}
    recalled, again = await _recall(connection, found.recalls)
    settled: list[MatchedReport] = []
    proven: list[MatchedReport] = []
    for known in (*found.settles, *found.recalls):
        place = known[1]
        unsure = locked.get(place.batch_id, [])
        if (
            unsure is None
            or place.message_id in unsure
            or place.message_id in recalled
            or place.lost
        ):
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
        accepted_at = {row["message_id"]: row["accepted_at"] for row in rows}
        for seen, place in proven:
            at = accepted_at.get(place.message_id)
            if at and first[place.message_id][0].provider_id == seen.provider_id:
                settled.append((seen, replace(place, accepted_at=at)))
            else:  # another process was faster, or it names another id: match it again later
                found.left.append((seen, RetryLater("still-open")))
    touched = list(locked.keys() | again)
    if not touched:
        return settled, 0
    closed = await connection.fetch(sql("close_settled"), touched, "reports")
    return settled, len(closed)


async def _recall(
    connection: Connection, recalls: Sequence[MatchedReport]
) -> tuple[set[int | None], set[int]]:
    """Take messages back that were given up; return those, and the batches they were unsure in."""
    if not recalls:
        return set(), set()
    rows = await connection.fetch(
        sql("recall"),
        [place.message_id for _, place in recalls],
        [place.batch_id for _, place in recalls],
        [seen.token for seen, _ in recalls],
    )
    again = {row["again"] for row in rows if row["again"] is not None}
    return {row["id"] for row in rows}, again


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
            [min(seen.attempts + 1, MAX_ATTEMPTS) for seen, _ in left],
            [isinstance(why, RetryLater) for _, why in left],
        )


async def _set_aside(
    connection: Connection, left: Sequence[tuple[PendingReport, RetryLater | Unmatched]]
) -> int:
    """Keep reports; return how many. If another session holds a row of theirs, none of the inbox.

    An open requeue does, as it has inserted them. Then those of the inbox are put back into it.
    """
    await connection.execute("SAVEPOINT aside")
    try:
        await _keep(connection, left)
    except asyncpg.LockNotAvailableError:
        await connection.execute("ROLLBACK TO SAVEPOINT aside")
        await put_back(connection, [seen for seen, _ in left if seen.inbox is not None])
        left = [(seen, why) for seen, why in left if seen.inbox is None]
        await _keep(connection, left)
    else:
        await connection.execute("RELEASE SAVEPOINT aside")
    return len(left)


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
    fresh_ids: set[str] = set()  # of several
    for seen, place in known:
        if _is_all(seen):
            first.append(place)
            ids_by_event[place.app, seen.state, seen.status].append(place.message_id or 0)
        else:
            several[seen.provider_id] = place
            if seen.fresh:
                fresh_ids.add(seen.provider_id)
    summed = (list(several), list(MADE_UP_STATUSES))
    rows = await connection.fetch(sql("sum_reports"), *summed) if several else []
    for provider_id, state, status, fresh in rows:
        place = several[provider_id]
        if fresh and provider_id in fresh_ids:  # else it was counted with the report before
            first.append(place)
        if state != "interim":
            ids_by_event[place.app, state, status].append(place.message_id or 0)
    await events.append(connection, ids_by_event)
    counts: Counter[Event] = Counter({event: len(ids) for event, ids in ids_by_event.items()})
    counts.update((NO_APP, "unmatched report", stray.why) for stray in strays)
    await count(connection, 0, counts)
    reported = Counter(
        (place.app, place.accepted_at // 60 * 60)
        for place in first
        if place.accepted_at is not None
    )
    if reported:
        apps, minutes = zip(*reported, strict=True)
        await connection.execute(sql("count_reported"), minutes, apps, list(reported.values()))


def _is_all(seen: PendingReport) -> bool:
    """Tell whether nothing else was or will be reported of the message, as nearly always."""
    return seen.fresh and seen.attempts == 0 and seen.total == 1 and seen.state != "interim"
