"""POST /reports/<token> and /replies/<token>: takes what a sender pushes that proves who it is.

Each request passes, in this order: its path, its network, its size and time, its signature, its
form. A refused request is answered with a status and a reason, and counted. A request that is
answered 200 is stored.
"""

import asyncio
import hmac
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.reply import UNSUBSCRIBE_WORDS, UplinkReply, read_posted
from dispatcher.core.report import CHECK_STATUS, MAX_BYTES, Report, trimmed
from dispatcher.db.database import Database
from dispatcher.db.replies import REPLIES_PATH, address_app
from dispatcher.db.reports import REPORTS_PATH, announce_check
from dispatcher.receiver.intake import Intake, NotStored
from dispatcher.receiver.plain_posts import Answer, DirectRoute, Post
from dispatcher.receiver.verification import Network, Signatures, client_address, within
from dispatcher.telemetry import ReportMetrics

SENDER_TIMEOUT_SECONDS: Final = 15.0  # for a whole request; then the connection is closed

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"  # of a post that names none
_APP_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,62}")


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
        apps: Iterable[str] = (),
        metrics: ReportMetrics | None = None,
    ) -> None:
        """Take pushes from *networks* (none: from any), each body within *sender_timeout*.

        Replies to the addresses of *apps* are the usual ones.
        """
        self._apps = list(apps)
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
        # One segment, whatever is in it: `_receive` compares it.
        token = self._path_token.decode()
        replies = f"/{REPLIES_PATH}/{token}"
        return [
            DirectRoute(
                [f"/{REPORTS_PATH}/{token}"],
                self.answer_reports,
                otherwise=web.post(f"/{REPORTS_PATH}/{{token}}", self._receive_reports),
            ),
            DirectRoute(
                [replies],
                self.answer_replies,
                otherwise=web.post(f"/{REPLIES_PATH}/{{token}}", self._receive_replies),
            ),
            DirectRoute(
                [f"{replies}/{app}" for app in self._apps],
                self.answer_replies,
                otherwise=web.post(f"/{REPLIES_PATH}/{{token}}/{{app}}", self._receive_replies),
            ),
        ]

    async def answer_reports(self, post: Post) -> Answer:
        """Answer a whole post of reports to the right path."""
        return await self._answer(post, REPORTS_PATH)

    async def answer_replies(self, post: Post) -> Answer:
        """Answer a whole post of replies to the right path, of an app or of none."""
        app = post.path.split("/")[3:]  # "", the kind, the token, perhaps an app
        return await self._answer(post, "/".join((REPLIES_PATH, *app)))

    async def _answer(self, post: Post, path: str) -> Answer:
        try:
            self._check_network(post.peer, post.forwarded)
            return await self._take(post, path)
        except RefusedError as refused:
            return self._refuse(refused)

    async def _receive_reports(self, request: web.Request) -> web.Response:
        return await self._receive(request, REPORTS_PATH)

    async def _receive_replies(self, request: web.Request) -> web.Response:
        app = request.match_info.get("app", "").lower()
        named = _APP_NAME.fullmatch(app)  # any other name is left out, for the reply is kept
        return await self._receive(request, f"{REPLIES_PATH}/{app}" if named else REPLIES_PATH)

    async def _receive(self, request: web.Request, path: str) -> web.Response:
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
                _unpacked(
                    await _body(request, self._sender_timeout),
                    request.headers.get("Content-Encoding", ""),
                ),
            )
            answer = await self._take(post, path)
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

    async def _take(self, post: Post, path: str) -> Answer:
        """Store the reports and replies of *post*, and answer it.

        *path* is where it came, without the token. Raises RefusedError.
        """
        body = post.body
        if post.query and not trimmed(body):  # a sender may write its fields there
            body = post.query.encode()
        unsigned = self._signatures.refuse(post)
        if unsigned is not None:
            raise RefusedError("signature", 401, unsigned)
        if len(body) > MAX_BYTES:
            raise RefusedError("too long", 413, f"The push is longer than {MAX_BYTES} bytes.")
        push = read_posted(body, is_reply=path != REPORTS_PATH, words=self._unsubscribe_words)
        match push.reports:
            case [Report(status=status, provider_id=word)] if status == CHECK_STATUS:
                await self._announce(word)
                return _CHECKED
            case reports:
                await self._keep(reports)
        await self._keep_replies(push.replies, address_app(path))
        if push.unreadable is not None:
            # The provider never repeats a push, and a later release may read it.
            kept = await self._intake.keep_unreadable(
                body, _content_type(post), push.unreadable.reason, path
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

    async def _keep_replies(self, replies: Sequence[UplinkReply], app: str) -> None:
        if not replies:
            return
        kept = await self._intake.keep_replies(replies, app)
        if isinstance(kept, NotStored):
            raise RefusedError("not kept", kept.status, kept.why)


def _content_type(post: Post) -> str:
    """Return the label of a body; bytes that are no UTF-8, which aiohttp passes on, are ``?``."""
    label = post.headers.get("content-type", DEFAULT_CONTENT_TYPE)
    return label.partition(";")[0].strip().encode(errors="replace").decode()


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


# Window bits of zlib: 47 reads the heads of gzip and zlib; senders of "deflate" may leave out both.
_UNPACKED_AS: Final = {"gzip": (47,), "x-gzip": (47,), "deflate": (47, -15)}


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Return *body* unpacked, or as it came if it is not packed as its label says.

    A proxy may have unpacked it and left the label. Raises RefusedError.
    """
    for bits in _UNPACKED_AS.get(encoding.strip().lower(), ()):
        unpacking = zlib.decompressobj(bits)
        try:
            unpacked = unpacking.decompress(body, MAX_BYTES + 1)
        except zlib.error:
            continue
        if len(unpacked) > MAX_BYTES:
            raise RefusedError("too long", 413, "The push is too long.")
        if unpacking.eof and not trimmed(unpacking.unused_data):
            return unpacked
    return body


def _answer(status: int, code: int, text: str) -> Answer:
    return Answer(status, msgspec.json.encode({"returnCode": code, "returnCodeDesc": text}))


CHECKED: Final = "Test report received"
_CHECKED: Final = _answer(200, 0, CHECKED)
_STORED: Final = _answer(200, 0, "Success")
