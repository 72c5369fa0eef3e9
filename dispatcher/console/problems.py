"""The page Problems: only what is one, grouped by what to do."""

from collections import defaultdict
from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.message_pages import filter_address
from dispatcher.core.codes import Code, number_code
from dispatcher.core.report_matching import UNMATCHED_REASONS
from dispatcher.core.status import EventTotal
from dispatcher.db.message_lists import STATES, MessageFilter

LISTED_ROWS = 20  # of each list, until all of them are asked for
# Events that keep messages from being sent or delivered, or make them late.
FAILING_EVENTS = {"rejected", "expired", "undelivered", "deferred", "returned", "unsure"}
# The state in which messages are after an event; in which it is not named so itself.
_STATE_AFTER = {"deferred": "queued", "returned": "queued"}


class CodeCount(Struct, frozen=True):
    """How often a code kept messages from being sent or delivered, and what it means."""

    total: EventTotal
    code: Code
    address: str  # query of the list of these messages


class AdviceGroup(Struct, frozen=True):
    """Failures about which the same is to be done."""

    advice: str
    codes: list[CodeCount]


class ProblemsPage:
    """The page Problems."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def show(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the page."""
        snapshot = await self._backend.snapshot()
        unmatched = await self._backend.unmatched()
        rows = None if "all" in request.query else LISTED_ROWS
        values = {
            "session": session,
            "rows": rows,
            "groups": _groups(_code_counts(snapshot.totals)),
            "unsure": await self._backend.unsure(),
            "unmatched": [
                (report, UNMATCHED_REASONS.get(report.reason, report.reason))
                for report in unmatched  # a newer release may know more reasons
            ],
            "unreadable": snapshot.unreadable,
            "silent": [worker for worker in snapshot.workers if not worker.alive],
            "alive": [worker for worker in snapshot.workers if worker.alive],
        }
        return self._auth.page("problems.html", values)

    async def unreadable(self, _request: web.Request, session: Session) -> web.StreamResponse:
        """Show the pushes that could not be read, without their content: it names people."""
        pushes = await self._backend.unreadable()
        return self._auth.page("unreadable.html", {"session": session, "pushes": pushes})


def _code_counts(totals: Iterable[EventTotal]) -> list[CodeCount]:
    """Return the failures, the most frequent first."""
    failures = [total for total in totals if total.event in FAILING_EVENTS]
    failures.sort(key=lambda total: -total.day)
    return [CodeCount(total, number_code(total.code), _address(total)) for total in failures]


def _groups(counts: list[CodeCount]) -> list[AdviceGroup]:
    """Return the failures by what to do about them, the group with the most of a day first."""
    by_advice: defaultdict[str, list[CodeCount]] = defaultdict(list)
    for each in counts:
        by_advice[each.code.advice.replace("<NAME>", each.total.app.upper())].append(each)
    groups = [AdviceGroup(*item) for item in by_advice.items()]
    return sorted(groups, key=lambda group: -sum(each.total.day for each in group.codes))


def _address(total: EventTotal) -> str:
    state = _STATE_AFTER.get(total.event, total.event)
    return filter_address(
        MessageFilter(
            state=state if state in STATES else None, code=total.code or None, app=total.app
        )
    )
