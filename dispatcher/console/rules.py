"""Rules: what operators have said of templates, limits, numbers and prices."""

from aiohttp import web

from dispatcher.console.auth import Auth, Session
from dispatcher.console.backend import Desk
from dispatcher.core.rules import describe_limits


def routes(guard: Auth, desk: Desk) -> list[web.AbstractRouteDef]:
    """Return the route of the page."""

    async def show(_: web.Request, session: Session) -> web.StreamResponse:
        rules = await desk.rules()
        said = {app: describe_limits(limits) for app, limits in rules.limits.items()}
        return guard.page("rules.html", {"session": session, "rules": rules, "said": said})

    return [web.get("/console/rules", guard.inside(show))]
