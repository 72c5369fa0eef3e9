"""Trouble: codes of the last day, unsure requests, workers."""

from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session
from dispatcher.console.backend import Desk
from dispatcher.core.codes import Code, number_code
from dispatcher.core.report_matching import UNMATCHED_REASONS
from dispatcher.core.status import EventTotal

_FINE = {"accepted", "delivered", "cancelled", "requeued", "settled"}  # events that are no trouble


class Cause(Struct, frozen=True):
    """One code, and how often it kept messages from going out, or through."""

    total: EventTotal
    row: Code


def routes(guard: Auth, desk: Desk) -> list[web.AbstractRouteDef]:
    """Return the route of the page."""

    async def show(_: web.Request, session: Session) -> web.StreamResponse:
        now = await desk.now()
        values: dict[str, object] = {
            "session": session,
            "causes": _causes(await desk.totals()),
            "unsure": await desk.unsure(),
            "unmatched": [(each, UNMATCHED_REASONS[each.why]) for each in await desk.unmatched()],
            "workers": now.workers,
            "apps": now.apps,
        }
        return guard.page("trouble.html", values)

    return [web.get("/console/trouble", guard.inside(show))]


def _causes(totals: Iterable[EventTotal]) -> list[Cause]:
    """Return what failed, the most frequent first."""
    causes = [Cause(total, number_code(total.code)) for total in totals if total.event not in _FINE]
    return sorted(causes, key=lambda cause: -cause.total.day)
