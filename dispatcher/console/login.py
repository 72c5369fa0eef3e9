"""Login, logout, and the files that pages load."""

import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from aiohttp import hdrs, web

from dispatcher.console.auth import (
    HOME_PATH,
    LOGIN_PATH,
    SESSION_COOKIE,
    SESSION_LIFETIME_SECONDS,
    Auth,
    Session,
    is_same_origin,
    is_secure,
    own_page,
    protected,
    redirect,
)
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import is_short, read_form
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.language import N_, _

MAX_NAME_LENGTH = 40  # characters
MAX_WRONG_TOKENS_PER_MINUTE = 20  # after that even the right token has to wait
_UNCHECKED = N_(
    "The database does not answer, so only the value of DISPATCHER_CONSOLE_TOKEN can be checked."
    " Try again soon."
)
_CONTENT_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC_FILES = {
    path.name: (path.read_bytes(), _CONTENT_TYPES[path.suffix])
    for path in (Path(__file__).parent / "static").iterdir()
    if path.suffix in _CONTENT_TYPES
}
# A day: addresses carry the version, so that a browser loads the files of a new release.
_STATIC_CACHE_CONTROL = "private, max-age=86400"


class LoginPages:
    """Login and logout; limits wrong tokens per minute."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend
        self._wrong_tokens: deque[float] = deque(maxlen=MAX_WRONG_TOKENS_PER_MINUTE)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Show the login; the address may have the page that it leads to."""
        to = own_page(request.query.get("to", ""))
        try:
            session = await self._auth.session(request)
        except DatabaseUnavailable:
            return self._page(_(_UNCHECKED), to=to, status=503)
        return self._page(to=to) if session is None else redirect(to)

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Begin a session, for the console's token and a name."""
        form = await read_form(request) if is_short(request) else None
        to = own_page((form or {}).get("to", ""))
        if form is None or not is_same_origin(request):
            return self._page(
                _("This login was not sent by this page. Try again."), to=to, status=403
            )
        if self._is_limited():
            return self._page(
                _("Too many wrong tokens. Wait a minute, then try again."), to=to, status=429
            )
        token, named = form.get("token", ""), None
        if not self._auth.sessions.is_console_token(token):
            guessed_at = time.monotonic()
            self._wrong_tokens.append(guessed_at)  # before the query: guesses may come together
            try:
                named = await self._backend.log_in(token)
            except DatabaseUnavailable:
                return self._page(_(_UNCHECKED), to=to, status=503)
            if named is None:
                return self._page(
                    _("This is not the token. It is the value of DISPATCHER_CONSOLE_TOKEN."),
                    to=to,
                    status=403,
                )
            with suppress(ValueError):  # after a minute it may have left
                self._wrong_tokens.remove(guessed_at)
        # The shared token says nothing of who has it; one with a name does.
        actor = named.name if named else " ".join(form.get("actor", "").split())
        if named is None and not _is_name(actor):
            return self._page(_("Give your name: the audit log records it."), to=to, status=400)
        response = redirect(to)
        response.set_cookie(
            SESSION_COOKIE,
            self._auth.sessions.new_cookie(actor, named.id if named else None),
            max_age=SESSION_LIFETIME_SECONDS,
            path=HOME_PATH,
            httponly=True,
            samesite="Strict",
            secure=is_secure(request),
        )
        return response

    async def log_out(self, _request: web.Request, _session: Session) -> web.StreamResponse:
        """End the browser's session."""
        response = redirect(LOGIN_PATH)
        response.del_cookie(SESSION_COOKIE, path=HOME_PATH)
        return response

    def _page(self, error: str = "", *, to: str, status: int = 200) -> web.Response:
        values = {"session": None, "error": error, "to": "" if to == HOME_PATH else to}
        return self._auth.page("login.html", values, status=status)

    def _is_limited(self) -> bool:
        full = len(self._wrong_tokens) == MAX_WRONG_TOKENS_PER_MINUTE
        return full and time.monotonic() - self._wrong_tokens[0] < 60  # noqa: PLR2004 - a minute


def _is_name(text: str) -> bool:
    return bool(text) and len(text) <= MAX_NAME_LENGTH and text.isprintable()


async def static_file(request: web.Request) -> web.Response:
    """Return a style sheet, a script or the icon."""
    try:
        body, content_type = _STATIC_FILES[request.match_info["name"]]
    except KeyError:
        return protected(web.Response(status=404, text="there is no such file\n"))
    return protected(
        web.Response(
            body=body,
            content_type=content_type,
            charset="utf-8",
            headers={hdrs.CACHE_CONTROL: _STATIC_CACHE_CONTROL},
        )
    )
