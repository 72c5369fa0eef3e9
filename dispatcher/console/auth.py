"""Sessions of the console, and the checks of its requests.

A session is a signed cookie that every process with the same console token can read; the server
keeps no state. The keys are derived from the console's token, so a new token ends all sessions.
"""

import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from itsdangerous import BadData, URLSafeTimedSerializer
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import FORM_CONTENT_TYPE, is_short, read_form
from dispatcher.console.proxy_sign_in import ProxySignIn
from dispatcher.console.render import Templates
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.health import database_unavailable
from dispatcher.core.language import _
from dispatcher.core.roles import SHARED_TOKEN_SUFFIX, Role, permits
from dispatcher.db.console_tokens import digest
from dispatcher.db.errors import shown_line

HOME_PATH = "/console"
LOGIN_PATH = "/console/login"
SESSION_COOKIE = "dispatcher_session"
FORM_TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a form's field
SESSION_LIFETIME_SECONDS = 12 * 3600  # a shift
# Connections of a client that is known: they stay open while a long form arrives.
ADMITTED = web.AppKey("ADMITTED", set[RequestHandler])
MAX_SIGNED_LENGTH = 1024  # characters of a cookie or form token; the console's own are shorter
MAX_RESULT_LENGTH = 8192  # the same of the result of an action, which may have a long name
MAX_KEPT_FIELDS = 30  # of a form that can be sent again; the longest form has 12
MAX_PATH_LENGTH = 2000  # characters of the address that a login leads to
READING_METHODS = (hdrs.METH_GET, hdrs.METH_HEAD)

_HEADERS = {
    # Nothing inline and nothing from elsewhere: no content of a message can run as a script.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then hide the Origin of the console's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Session(Struct, frozen=True):
    """One login."""

    actor: str  # the operator's name, for the audit log
    nonce: str  # differs between logins
    expires_at: int  # Unix time
    role: Role = "rules"  # of the console's own token
    token_id: int | None = None  # of a token with a name
    by_proxy: bool = False  # which signs out too

    def may(self, role: Role) -> bool:
        """Return whether this operator may do what takes *role*."""
        return permits(self.role, role)


class Sessions:
    """Signs and reads the cookies and form tokens of one console token."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._cookies = _serializer(token, salt="dispatcher console: session")
        self._forms = _serializer(token, salt="dispatcher console: form")
        self._results = _serializer(token, salt="dispatcher console: result")

    def is_console_token(self, given: str) -> bool:
        """Return whether *given* is the console's token, in a time independent of its content."""
        # Digests, so that the comparison takes the same time for tokens of any length.
        return hmac.compare_digest(digest(given), digest(self._token))

    def new_cookie(self, actor: str, token_id: int | None = None) -> str:
        """Return the cookie of a new session, which begins now."""
        return self._cookies.dumps([actor, secrets.token_urlsafe(16), token_id])

    def read_cookie(self, cookie: str | None, *, now: float) -> Session | None:
        """Return the session of a cookie; None if it has expired or was not signed here."""
        match _load(self._cookies, cookie or ""):
            case ([str(actor), str(nonce), int() | None as token_id], signed_at):
                pass
            case _:  # none, or one of another release
                return None
        if token_id is None:
            actor += SHARED_TOKEN_SUFFIX
        role: Role = "rules" if token_id is None else "see"  # Auth knows the role of a named token
        expires_at = signed_at + SESSION_LIFETIME_SECONDS
        session = Session(actor, nonce, expires_at, role, token_id)
        return session if now < session.expires_at else None

    def form_token(self, session: Session) -> str:
        """Return the token that each form of this session must send (against forged requests)."""
        return self._forms.dumps([session.actor, session.nonce])

    def is_form_token(self, session: Session, given: str, *, now: float) -> bool:
        """Return whether *given* is an unexpired token of a form of this session."""
        signed = _load(self._forms, given)
        if signed is None:
            return False
        fields, signed_at = signed
        fresh = now < signed_at + SESSION_LIFETIME_SECONDS
        return fresh and fields == [session.actor, session.nonce]

    def sign_result(self, lines: list[str]) -> str:
        """Return *lines* about what an action did, for an address that can be loaded again."""
        return self._results.dumps(lines)

    def read_result(self, signed: str, *, now: float) -> list[str] | None:
        """Return the lines of `sign_result`; None if they are too old or were not signed here."""
        match _load(self._results, signed, MAX_RESULT_LENGTH):
            case ([*lines], signed_at) if now < signed_at + SESSION_LIFETIME_SECONDS:
                return [str(line) for line in lines]
            case _:
                return None


def _serializer(token: str, *, salt: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        token,
        salt=salt,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )


def _load(
    serializer: URLSafeTimedSerializer, text: str, most: int = MAX_SIGNED_LENGTH
) -> tuple[list[Any], int] | None:
    """Return what was signed, and the Unix time of that; None if the signature is not valid."""
    if not text.isascii() or len(text) > most:
        return None
    try:
        fields, signed_at = serializer.loads(text, return_timestamp=True)
    except BadData:
        return None
    return fields, int(signed_at.timestamp())


AnyResponse = TypeVar("AnyResponse", bound=web.StreamResponse)
SessionHandler = Callable[[web.Request, Session], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Auth:
    """Lets requests through that have a session, and forms that the console's pages sent."""

    def __init__(
        self,
        sessions: Sessions,
        templates: Templates,
        backend: ConsoleBackend,
        proxies: ProxySignIn | None = None,
    ) -> None:
        """Check sessions; *proxies* may sign operators in by a header."""
        self.sessions = sessions
        self._templates = templates
        self._backend = backend
        self._proxies = proxies

    async def session(self, request: web.Request) -> Session | None:
        """Return the session of *request*, or None without a valid one.

        Raises DatabaseUnavailable if it cannot be known whether its token was revoked.
        """
        if self._proxies is not None and (found := self._proxies.operator(request)) is not None:
            expires_at = int(time.time()) + SESSION_LIFETIME_SECONDS
            return Session(found.name, "", expires_at, found.role, by_proxy=True)
        cookie = request.cookies.get(SESSION_COOKIE)
        session = self.sessions.read_cookie(cookie, now=time.time())
        if session is None or session.token_id is None:
            return session
        tokens = await self._backend.tokens()
        role = next((each.role for each in tokens if each.id == session.token_id), None)
        return replace(session, role=role) if role is not None else None

    def required(
        self, handler: SessionHandler, role: Role = "see", *, form_is_checked: bool = True
    ) -> Handler:
        """Return *handler* for requests with a session that has *role*.

        A form must come from the console; a handler that reads a long form itself calls `is_own`.
        """

        async def guarded(request: web.Request) -> web.StreamResponse:
            session = None
            try:
                session = await self.session(request)
                if session is None:
                    return await self._login_required(request)
                if not session.may(role):
                    return self.forbidden(session)
                if "\0" in unquote(request.path_qs):  # PostgreSQL takes no text with it
                    values = {"session": session, "what": _("There is no such page.")}
                    return self.page("missing.html", values, status=404)
                checked = form_is_checked and request.method not in READING_METHODS
                if checked and not await self._is_own_form(request, session):
                    return await self.refused(request, session)
                return await handler(request, session)
            except (DatabaseUnavailable, web.HTTPRequestEntityTooLarge) as error:
                return self._failed(request, session, error)

        return guarded

    def page(self, name: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Return a page, with the token for its forms; *values* must hold the session."""
        session = values["session"]
        token = self.sessions.form_token(session) if isinstance(session, Session) else ""
        values = {FORM_TOKEN_FIELD: token, "as_of": datetime.now(UTC), **values}
        return protected(self._templates.page(name, values, status=status))

    def _failed(
        self,
        request: web.Request,
        session: Session | None,
        error: DatabaseUnavailable | web.HTTPRequestEntityTooLarge,
    ) -> web.Response:
        if isinstance(error, DatabaseUnavailable):
            diagnosis = database_unavailable(shown_line(str(error)))
            values = {"session": session, "diagnosis": diagnosis}
            return self.page("unavailable.html", values, status=503)
        what = _(
            "A form takes {count} KB; for more numbers there is `dispatcher suppress --file`."
        ).format(count=request.client_max_size // 1024)
        return self.page("missing.html", {"session": session, "what": what}, status=413)

    def forbidden(self, session: Session) -> web.Response:
        """Return the answer to an operator whose role does not permit what was asked for."""
        what = _("Your role ({role}) does not permit this.").format(role=_(session.role))
        return self.page("missing.html", {"session": session, "what": what}, status=403)

    def fragment(self, name: str, values: Mapping[str, object], session: Session) -> str:
        """Return a part of a page; it has no forms."""
        return self._templates.text(name, {"session": session, **values})

    async def _is_own_form(self, request: web.Request, session: Session) -> bool:
        if not is_same_origin(request):
            return False
        given = (await read_form(request) or {}).get(FORM_TOKEN_FIELD)
        return given is not None and self.is_own(request, session, given)

    def is_own(self, request: web.Request, session: Session, form_token: str) -> bool:
        """Return whether a page of this session sent a form with *form_token*."""
        own = self.sessions.is_form_token(session, form_token, now=time.time())
        return own and is_same_origin(request)

    async def refused(self, request: web.Request, session: Session) -> web.Response:
        """Return the answer to a form that no page of this session sent.

        What a page of an earlier session sent can be sent again, once the operator has seen it.
        """
        values = {
            "session": session,
            "back": referring_page(request),
            "kept": await _kept_fields(request),
            "address": request.path_qs,
        }
        return self.page("refused.html", values, status=403)

    async def _login_required(self, request: web.Request) -> web.Response:
        """Return the answer to a request without a session: the login for a browser's page load."""
        if "text/html" not in request.headers.get("Accept", ""):
            return protected(web.Response(status=401, text="log in first\n"))
        if request.method not in READING_METHODS:
            kept = await _kept_fields(request) if is_short(request) else {}
            values = {"session": None, "kept": kept, "address": request.path_qs}
            return self.page("ended.html", values, status=401)
        to = own_page(request.path_qs)
        login = LOGIN_PATH if to == HOME_PATH else f"{LOGIN_PATH}?{urlencode({'to': to})}"
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            # Browsers keep the cookie from a link of another site: a page of ours leads on with it.
            return self.page("onward.html", {"session": None, "address": login})
        return redirect(login)


def is_same_origin(request: web.Request) -> bool:
    """Return whether a page of the console sent a form.

    Browsers say so in Sec-Fetch-Site where they trust the connection, and otherwise in Origin.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc == request.host


def is_secure(request: web.Request) -> bool:
    """Return whether the browser uses https, perhaps to a proxy in front of this server."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def redirect(path: str) -> web.Response:
    """Return the answer that leads a browser to *path*."""
    return protected(web.Response(status=303, headers={hdrs.LOCATION: path}))


def cut(request: web.Request, response: AnyResponse) -> AnyResponse:
    """Break the connection of a *response* that has begun and cannot be finished.

    It is reset: after HTTP/1.0, which nginx speaks to it, a mere end means that the answer is
    whole, and another answer would be taken for a part of the file.
    """
    if request.transport is not None:
        socket = request.transport.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return response


def protected(response: AnyResponse) -> AnyResponse:
    """Return *response* with the headers that every answer of the console has."""
    response.headers.update({**_HEADERS, **response.headers})
    return response


async def _kept_fields(request: web.Request) -> dict[str, str]:
    """Return what the browser sent in a form of a page of this console, without files.

    Of a page of another site nothing is kept: a click on what it wrote would do it. Nor is a form
    kept with more fields than a page of this console has.
    """
    own = request.headers.get("Sec-Fetch-Site") or request.headers.get(hdrs.ORIGIN)
    if own is None or not is_same_origin(request) or request.content_type != FORM_CONTENT_TYPE:
        return {}
    fields = await read_form(request) or {}
    if len(fields) > MAX_KEPT_FIELDS:
        return {}
    return {name: value for name, value in fields.items() if name != FORM_TOKEN_FIELD}


def referring_page(request: web.Request) -> str:
    """Return path and query of the console's page that led here, or the first page."""
    page = urlsplit(request.headers.get(hdrs.REFERER, ""))
    return own_page(f"{page.path}?{page.query}" if page.query else page.path)


def own_page(address: str) -> str:
    """Return *address* if it is path and query of a page of the console, else the first page."""
    path = address.partition("?")[0]
    is_own = path == HOME_PATH or path.startswith(HOME_PATH + "/")
    readable = address.isascii() and address.isprintable() and len(address) <= MAX_PATH_LENGTH
    return address if is_own and readable else HOME_PATH
