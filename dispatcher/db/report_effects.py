"""What matched reports mean beyond their messages: apps are paused, numbers suppressed."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog

from dispatcher.core.report_matching import MatchedReport
from dispatcher.core.report_status import TEMPLATE_STATUSES, Reason, report_status
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql
from dispatcher.db.rules import suppress_reported

log = structlog.get_logger(__name__)

MAX_APP_REFUSALS: Final = 10  # reports that refuse the app itself; then it is paused


async def pause_refused_apps(connection: Connection, known: Sequence[MatchedReport]) -> None:
    """Pause apps of which the platform refuses every message after it has accepted it.

    A step's own deliveries are counted already: one bad signature pauses no other.
    """
    pausing = {status for status in _statuses(known) if report_status(status).pauses}
    if not pausing:
        return
    refused: defaultdict[tuple[str, str], list[tuple[float, int | None]]] = defaultdict(list)
    for seen, place in known:
        if place.accepted_at is not None and seen.status in pausing:
            refused[place.app, seen.status.upper()].append((place.accepted_at, place.message_id))
    for (app, code), messages in sorted(refused.items()):
        status = report_status(code)
        reason = f"{status.meaning} {status.advice}"
        whole = status.pauses == "app" or not await connection.fetchval(
            sql("delivers_elsewhere"),
            app,
            [message for _, message in messages],
            code in TEMPLATE_STATUSES,
        )
        paused = await connection.fetchval(
            sql("pause_by_reports"),
            app,
            [accepted_at for accepted_at, _ in messages],
            MAX_APP_REFUSALS,
            code,
            reason,
            whole,
        )
        if paused:
            log.warning("app paused by reports", app=app, code=code, reason=reason)


def _statuses(known: Sequence[MatchedReport]) -> set[str]:
    return {seen.status for seen, _ in known}


async def suppress_blocked_numbers(connection: Connection, known: Sequence[MatchedReport]) -> None:
    """Stop promotional messages to numbers that are on a block list, by the status of a report."""
    blocked = [
        (place.app, place.number, f"{status.status}: {status.meaning}")
        for seen, place in known
        if place.number is not None
        and (status := report_status(seen.status)).reason is Reason.BLOCKED
    ]
    if blocked:
        await suppress_reported(connection, blocked)
