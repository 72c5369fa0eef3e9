"""POST /reports/<token>: accepts status reports from a sender that has to prove who it is.

Each request passes, in this order: its path, its network, its size and time, its signature, its
form. A refused request is answered with a status and a reason, and counted. A request that is
answered 200 is stored.
"""

import asyncio
import hmac
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report import CHECK_STATUS, MAX_BYTES, Report, read_push
from dispatcher.db.database import Database
from dispatcher.db.reports import announce_check
from dispatcher.receiver.connection import Answer, DirectRoute, Post
from dispatcher.receiver.intake import Intake, NotStored
from dispatcher.receiver.verification import Network, Signatures, client_address, within
from dispatcher.telemetry import ReportMetrics

SENDER_TIMEOUT_SECONDS: Final = 15.0  # for a whole request; then the connection is closed

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"  # of a post that names none


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
        metrics: ReportMetrics | None = None,
    ) -> None:
        """Take reports from *networks* (none: from any), each body within *sender_timeout*."""
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
        # One segment, whatever is in it: `_receive` compares it.
        otherwise = web.post("/reports/{token}", self._receive)
        return [
            DirectRoute(f"/reports/{self._path_token.decode()}", self.answer, otherwise=otherwise)
        ]

    async def answer(self, post: Post) -> Answer:
        """Answer a whole post to the right path."""
        try:
            self._check_network(post.peer, post.forwarded)
            return await self._take(post)
        except RefusedError as refused:
            return self._refuse(refused)

    async def _receive(self, request: web.Request) -> web.Response:
        """Answer a request of any kind, whose body may still be on its way."""
        forwarded = request.headers.getall("X-Forwarded-For", [])
        try:
            self._check_token(request.match_info["token"])
            self._check_network(request.remote, forwarded)
            post = Post(
                request.remote,
                request.rel_url.raw_path,
                request.rel_url.raw_query_string,
                {name.lower(): value for name, value in request.headers.items()},
                forwarded,
                await _body(request, self._sender_timeout),
            )
            answer = await self._take(post)
        except RefusedError as refused:
            answer = self._refuse(refused)
        response = web.Response(
            status=answer.status, body=answer.body, content_type="application/json"
        )
        if answer.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            response.force_close()  # do not wait for the rest of the body
        return response

    def _refuse(self, refused: RefusedError) -> Answer:
        self.refused[refused.kind] += 1
        self._metrics.refused(refused.kind, refused.detail)
        return _answer(refused.status, refused.status, refused.reason)

    def _check_token(self, given: str) -> None:
        token = given.encode(errors="surrogateescape")
        if not hmac.compare_digest(token, self._path_token):
            raise RefusedError("path", 404, "There is nothing here.")

    def _check_network(self, peer: str | None, forwarded: Sequence[str]) -> None:
        if not self._networks:
            return
        address = client_address(peer, forwarded, self._trusted_proxies)
        if address is None or not within(address, self._networks):
            raise RefusedError("network", 403, "Reports are not taken from this address.")

    async def _take(self, post: Post) -> Answer:
        """Store the reports of *post*, and answer it.

        Raises RefusedError.
        """
        body = post.body
        unsigned = self._signatures.refuse(post)
        if unsigned is not None:
            raise RefusedError("signature", 401, unsigned)
        if len(body) > MAX_BYTES:
            raise RefusedError("too long", 413, f"The push is longer than {MAX_BYTES} bytes.")
        push = read_push(body)
        match push.reports:
            case [Report(status=status, provider_id=word)] if status == CHECK_STATUS:
                await self._announce(word)
                return _CHECKED
            case reports:
                await self._keep(reports)
        if push.unreadable is not None:
            # The provider never repeats a push, and a later release may read it.
            content_type = post.headers.get("content-type", DEFAULT_CONTENT_TYPE)
            kept = await self._intake.keep_unreadable(
                body, content_type.partition(";")[0].strip(), push.unreadable.reason
            )
            if isinstance(kept, NotStored):
                raise RefusedError("not kept", kept.status, kept.why)
            self.refused["unreadable"] += 1
        return _STORED

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


def _answer(status: int, code: int, text: str) -> Answer:
    return Answer(status, msgspec.json.encode({"returnCode": code, "returnCodeDesc": text}))


CHECKED: Final = "Test report received"
_CHECKED: Final = _answer(200, 0, CHECKED)
_STORED: Final = _answer(200, 0, "Success")
