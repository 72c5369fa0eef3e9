"""Login, logout, and the files that pages load."""

import secrets
import time
from collections import deque
from pathlib import Path

from aiohttp import hdrs, web

from dispatcher.console.auth import (
    COOKIE,
    HOME,
    LIFETIME,
    LOGIN,
    Auth,
    Session,
    Sessions,
    is_same_origin,
    is_secure,
    protected,
)
from dispatcher.console.forms import form_of

MAX_NAME = 40  # characters of who logs in
WRONG_PER_MINUTE = 20  # logins refused; after that even the right token waits a minute
_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_A_DAY = "private, max-age=86400"  # addresses carry the version, so a new release is loaded anew


class LoginPages:
    """Opens for the token; slows down whoever guesses."""

    def __init__(self, guard: Auth, sessions: Sessions) -> None:
        self._guard = guard
        self._sessions = sessions
        self._wrong: deque[float] = deque(maxlen=WRONG_PER_MINUTE)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show the login."""
        if self._guard.session(request) is not None:
            return protected(web.Response(status=303, headers={hdrs.LOCATION: HOME}))
        return self._page()

    async def enter(self, request: web.Request) -> web.StreamResponse:
        """Log in with a token and a name."""
        form = await form_of(request)
        if form is None or not is_same_origin(request):
            return self._page("This login was not sent by this page. Try again.", status=403)
        if self._too_many_guesses():
            return self._page("Too many wrong tokens. Wait a minute, then try again.", status=429)
        if not self._sessions.opens(form.get("token", "")):
            self._wrong.append(time.monotonic())
            return self._page(
                "This is not the token. It is the value of DISPATCHER_CONSOLE_TOKEN.", status=403
            )
        who = " ".join(form.get("who", "").split())
        if not who or len(who) > MAX_NAME or not who.isprintable():
            return self._page("Say who you are: it stands beside what you do.", status=400)
        session = Session(who, int(time.time()) + LIFETIME, secrets.token_urlsafe(16))
        response = web.Response(status=303, headers={hdrs.LOCATION: HOME})
        response.set_cookie(
            COOKIE,
            self._sessions.cookie(session),
            max_age=LIFETIME,
            path=HOME,
            httponly=True,
            samesite="Strict",
            secure=is_secure(request),
        )
        return protected(response)

    async def leave(self, _: web.Request, __: Session) -> web.StreamResponse:
        """Log out."""
        response = web.Response(status=303, headers={hdrs.LOCATION: LOGIN})
        response.del_cookie(COOKIE, path=HOME)
        return protected(response)

    def _page(self, trouble: str = "", *, status: int = 200) -> web.Response:
        return self._guard.page("login.html", {"session": None, "trouble": trouble}, status=status)

    def _too_many_guesses(self) -> bool:
        full = len(self._wrong) == WRONG_PER_MINUTE
        return full and time.monotonic() - self._wrong[0] < 60  # noqa: PLR2004 - a minute


def routes(guard: Auth, sessions: Sessions) -> list[web.AbstractRouteDef]:
    """Return the routes of the door."""
    door = LoginPages(guard, sessions)
    files = {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for path in _STATIC.iterdir()
        if path.suffix in _TYPES
    }

    async def static(request: web.Request) -> web.Response:
        try:
            body, content_type = files[request.match_info["name"]]
        except KeyError:
            return protected(web.Response(status=404, text="there is no such file\n"))
        return protected(
            web.Response(
                body=body,
                content_type=content_type,
                charset="utf-8",
                headers={hdrs.CACHE_CONTROL: _A_DAY},
            )
        )

    return [
        web.get(LOGIN, door.show),
        web.post(LOGIN, door.enter),
        web.post("/console/logout", guard.inside(door.leave)),
        web.get("/console/static/{name}", static),
    ]
