"""All addresses of the console."""

import asyncio

from aiohttp import web

from dispatcher.console import actions, dashboard, login, problems, rules, search
from dispatcher.console.auth import Auth, Sessions, protected
from dispatcher.console.backend import Desk
from dispatcher.console.render import Templates

_CLOSED = (
    "The console is closed: set DISPATCHER_CONSOLE_TOKEN (or DISPATCHER_CONSOLE_TOKEN_FILE) to"
    " open it, and start again. This makes a token:\n\n"
    '    python3 -c "import secrets; print(secrets.token_urlsafe())"\n'
)


def console_routes(desk: Desk, token: str, stopping: asyncio.Event) -> list[web.AbstractRouteDef]:
    """Return the console's routes; live pages end when *stopping* is set."""
    sessions = Sessions(token)
    guard = Auth(sessions, Templates())
    return [
        *login.routes(guard, sessions),
        *dashboard.routes(guard, desk, stopping),
        *problems.routes(guard, desk),
        *search.routes(guard, desk),
        *rules.routes(guard, desk),
        *actions.routes(guard, desk),
    ]


def closed_console_routes() -> list[web.AbstractRouteDef]:
    """Return routes that say why there is no console: it never opens without a token."""

    async def closed(_: web.Request) -> web.Response:
        return protected(web.Response(status=503, text=_CLOSED))

    return [web.get("/console", closed), web.get("/console/{rest:.*}", closed)]
