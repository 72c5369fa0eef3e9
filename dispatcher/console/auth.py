"""Sessions of the console, and what protects its forms and pages.

A session is a signed cookie, which any process with the same token can read; the server keeps no
state. The key is made from the console's token, so a new token ends all sessions.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.backend import AwayError
from dispatcher.console.render import Templates
from dispatcher.core.health import database_unavailable

LIFETIME = 12 * 3600  # seconds: a shift
MAX_COOKIE = 1024  # characters; a longer one is not ours


class Session(Struct, frozen=True):
    """One login."""

    who: str
    until: int  # Unix time
    nonce: str


class Sessions:
    """Makes and reads the cookies of one console token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"dispatcher console: sessions\0" + self._token).digest()

    def opens(self, token: str) -> bool:
        """Tell whether *token* is the console's; takes as long for a wrong one as for a right."""
        # Digests, so that the comparison takes the same time for tokens of any length.
        given, ours = hashlib.sha256(token.encode()), hashlib.sha256(self._token)
        return hmac.compare_digest(given.digest(), ours.digest())

    def cookie(self, session: Session) -> str:
        """Return *session* as a cookie's value."""
        payload = base64.urlsafe_b64encode(msgspec.json.encode(session)).decode()
        return f"{payload}.{self._sign('session', payload)}"

    def read(self, cookie: str | None, *, now: float) -> Session | None:
        """Return the session of a cookie; None if it is none of ours, or over."""
        if not cookie or len(cookie) > MAX_COOKIE or not cookie.isascii():
            return None
        payload, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature, self._sign("session", payload)):
            return None
        session = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=Session)
        return session if now < session.until else None

    def form_token(self, session: Session) -> str:
        """Return what a form of this session must bring back (against forged requests)."""
        return self._sign("form", f"{session.who}\0{session.until}\0{session.nonce}")

    def is_form_token(self, session: Session, given: str) -> bool:
        """Tell whether *given* came from a form of this session."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


HOME = "/console"
LOGIN = "/console/login"
COOKIE = "dispatcher_session"
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a form's field

_HEADERS = {
    # Nothing inline and nothing from elsewhere: whatever a message holds, it cannot run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then hide the Origin of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

Inside = Callable[[web.Request, Session], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Auth:
    """Lets in whoever has logged in, and what comes from the console's own pages."""

    def __init__(self, sessions: Sessions, pages: Templates) -> None:
        self._sessions = sessions
        self._pages = pages

    def session(self, request: web.Request) -> Session | None:
        """Return the session of *request*, or None without a good one."""
        return self._sessions.read(request.cookies.get(COOKIE), now=time.time())

    def inside(self, handler: Inside) -> Handler:
        """Return *handler* for those who are logged in, and only for forms of our own."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            session = self.session(request)
            if session is None:
                return outside(request)
            if request.method != hdrs.METH_GET and not await self._is_our_form(request, session):
                return self.refusal(request, session)
            try:
                return await handler(request, session)
            except AwayError as away:
                values = {"session": session, "diagnosis": database_unavailable(str(away))}
                return self.page("away.html", values, status=503)

        return guarded

    def page(self, name: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Return a page, with the token for its forms; *values* must hold the session."""
        session = values["session"]
        token = self._sessions.form_token(session) if isinstance(session, Session) else ""
        response = self._pages.page(name, {"form_token": token, **values}, status=status)
        return protected(response)

    def fragment(self, name: str, values: Mapping[str, object], session: Session) -> str:
        """Return a piece of a page, with the token for its forms."""
        token = self._sessions.form_token(session)
        return self._pages.text(name, {"form_token": token, "session": session, **values})

    def refusal(self, request: web.Request, session: Session | None) -> web.Response:
        """Return the answer to a form that is not ours, or of another session."""
        values = {"session": session, "back": _back(request)}
        return self.page("refused.html", values, status=403)

    async def _is_our_form(self, request: web.Request, session: Session) -> bool:
        if not is_same_origin(request):
            return False
        given = (await request.post()).get(FORM_TOKEN)
        return isinstance(given, str) and self._sessions.is_form_token(session, given)


def outside(request: web.Request) -> web.Response:
    """Return the answer to somebody who is not logged in: the way to the login, or nothing."""
    wants_page = request.method == hdrs.METH_GET and "text/html" in request.headers.get(
        "Accept", ""
    )
    if wants_page:
        return protected(web.Response(status=303, headers={hdrs.LOCATION: LOGIN}))
    return protected(web.Response(status=401, text="log in first\n"))


def is_same_origin(request: web.Request) -> bool:
    """Tell whether a form was sent by a page of our own.

    Browsers say so in Sec-Fetch-Site where they trust the connection, and otherwise in Origin.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc == request.host


def is_secure(request: web.Request) -> bool:
    """Tell whether the browser came by https, perhaps to a proxy in front of us."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def protected(response: web.Response) -> web.Response:
    """Return *response* with the headers that every answer of the console has."""
    response.headers.update({**_HEADERS, **response.headers})
    return response


def _back(request: web.Request) -> str:
    """Return where the form was, as a path of the console."""
    path = urlsplit(request.headers.get(hdrs.REFERER, "")).path
    return path if path == HOME or path.startswith(HOME + "/") else HOME
