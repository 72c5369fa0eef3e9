"""POST /reports/<token> and /replies/<token>: takes what a sender pushes that proves who it is.

Each request passes, in this order: its path, its network, its size and time, its signature, its
form. A refused request is answered with a status and a reason, and counted. A request that is
answered 200 is stored.
"""

import asyncio
import hmac
import re
from collections import Counter
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.reply import UNSUBSCRIBE_WORDS, UplinkReply, read_posted
from dispatcher.core.report import CHECK_STATUS, MAX_BYTES, Report
from dispatcher.db.database import Database
from dispatcher.db.replies import REPLIES_PATH, address_app
from dispatcher.db.reports import REPORTS_PATH, announce_check
from dispatcher.receiver.intake import Intake, NotStored
from dispatcher.receiver.verification import Network, Signatures, client_address, within
from dispatcher.telemetry import ReportMetrics

SENDER_TIMEOUT_SECONDS: Final = 15.0  # for a whole request; then the connection is closed

CHECKED: Final = "Test report received"
_APP_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,62}")
_SUCCESS: Final = b'{"returnCode":0,"returnCodeDesc":"Success"}'


class RefusedError(Exception):
    """A push is refused; caught in this module."""

    def __init__(self, kind: str, status: int, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.kind = kind  # it is counted under these words
        self.detail = detail
        self.status = status
        self.reason = reason


class ReportRoutes:
    """The routes of a receiver, and what they have refused."""

    def __init__(
        self,
        path_token: str,
        *,
        database: Database,
        intake: Intake,
        signatures: Signatures,
        networks: Sequence[Network] = (),
        trusted_proxies: Sequence[Network] = (),
        sender_timeout: float = SENDER_TIMEOUT_SECONDS,
        unsubscribe_words: Collection[str] = UNSUBSCRIBE_WORDS,
        metrics: ReportMetrics | None = None,
    ) -> None:
        """Take pushes from *networks* (none: from any), each body within *sender_timeout*."""
        self._unsubscribe_words = unsubscribe_words
        self._path_token = path_token.encode()
        self._database = database
        self._intake = intake
        self._signatures = signatures
        self._networks = networks
        self._trusted_proxies = trusted_proxies
        self._sender_timeout = sender_timeout
        self._metrics = metrics or ReportMetrics()
        self.refused: Counter[str] = Counter()  # posts by kind, not written to the database yet

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes to serve."""
        # One segment, whatever is in it: `_take` compares it.
        return [
            web.post(f"/{REPORTS_PATH}/{{token}}", self._receive_reports),
            web.post(f"/{REPLIES_PATH}/{{token}}", self._receive_replies),
            web.post(f"/{REPLIES_PATH}/{{token}}/{{app}}", self._receive_replies),
        ]

    async def _receive_reports(self, request: web.Request) -> web.Response:
        return await self._receive(request, REPORTS_PATH)

    async def _receive_replies(self, request: web.Request) -> web.Response:
        app = request.match_info.get("app", "").lower()
        named = _APP_NAME.fullmatch(app)  # any other name is left out, for the reply is kept
        return await self._receive(request, f"{REPLIES_PATH}/{app}" if named else REPLIES_PATH)

    async def _receive(self, request: web.Request, path: str) -> web.Response:
        try:
            taken = await self._take(request, path)
        except RefusedError as refused:
            self.refused[refused.kind] += 1
            self._metrics.refused(refused.kind, refused.detail)
            return _refuse(refused)
        if taken:
            return web.Response(body=_SUCCESS, content_type="application/json")
        return _answer(200, 0, CHECKED)

    async def _take(self, request: web.Request, path: str) -> int:
        """Return how many reports and replies were stored, 0 for a test report.

        *path* is where it came, without the token. Raises RefusedError.
        """
        given = request.match_info["token"].encode(errors="surrogateescape")
        if not hmac.compare_digest(given, self._path_token):
            raise RefusedError("path", 404, "There is nothing here.")
        if self._networks and not self._from_known_network(request):
            raise RefusedError("network", 403, "Reports are not taken from this address.")
        body = await _body(request, self._sender_timeout)
        unsigned = self._signatures.refuse(request, body)
        if unsigned is not None:
            raise RefusedError("signature", 401, unsigned)
        if len(body) > MAX_BYTES:
            raise RefusedError("too long", 413, f"The push is longer than {MAX_BYTES} bytes.")
        push = read_posted(body, is_reply=path != REPORTS_PATH, words=self._unsubscribe_words)
        match push.reports:
            case [Report(status=status, provider_id=word)] if status == CHECK_STATUS:
                await self._announce(word)
                return 0
            case reports:
                await self._keep(reports)
        await self._keep_replies(push.replies, address_app(path))
        if push.unreadable is not None:
            # The provider never repeats a push, and a later release may read it.
            kept = await self._intake.keep_unreadable(
                body, request.content_type, push.unreadable.reason, path
            )
            if isinstance(kept, NotStored):
                raise RefusedError("not kept", kept.status, kept.why)
            self.refused["unreadable"] += 1
        return max(1, len(push.reports) + len(push.replies))

    async def _announce(self, word: str) -> None:
        try:
            await announce_check(self._database, word)
        except DatabaseUnavailable:
            raise RefusedError(
                "not kept", 503, "The database is away; reports go to disk meanwhile."
            ) from None

    async def _keep(self, reports: Sequence[Report]) -> None:
        if not reports:
            return
        kept = await self._intake.keep(reports)
        if isinstance(kept, NotStored):
            raise RefusedError("not kept", kept.status, kept.why)

    async def _keep_replies(self, replies: Sequence[UplinkReply], app: str) -> None:
        if not replies:
            return
        kept = await self._intake.keep_replies(replies, app)
        if isinstance(kept, NotStored):
            raise RefusedError("not kept", kept.status, kept.why)

    def _from_known_network(self, request: web.Request) -> bool:
        address = client_address(
            request.remote, request.headers.getall("X-Forwarded-For", []), self._trusted_proxies
        )
        return address is not None and within(address, self._networks)


async def _body(request: web.Request, seconds: float) -> bytes:
    try:
        if request.content.is_eof():  # it came with the headers, as nearly always
            return await request.read()
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise RefusedError(
            "slow", 408, f"The whole push did not come within {seconds:g} s."
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError("too long", 413, "The push is too long.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise RefusedError("cut", 400, "The push broke off, or its encoding is wrong.") from None


def _refuse(refused: RefusedError) -> web.Response:
    response = _answer(refused.status, refused.status, refused.reason)
    if refused.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        response.force_close()  # do not wait for the rest of the body
    return response


def _answer(status: int, code: int, text: str) -> web.Response:
    body = msgspec.json.encode({"returnCode": code, "returnCodeDesc": text})
    return web.Response(status=status, body=body, content_type="application/json")
