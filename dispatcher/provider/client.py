"""Sends one encoded request to the provider, signing each try anew.

tenacity repeats only a request that provably was not sent, or that the provider provably did not
accept (`core.outcome.is_retryable`). For a longer wait the messages return to the queue.
"""

import errno
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.payload import BytesPayload
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    wait_random_exponential,
)

from dispatcher.core.codes import NEVER_SENT, UNREACHABLE
from dispatcher.core.message import Answer, NoReply
from dispatcher.core.outcome import is_retryable
from dispatcher.core.signing import CONTENT_TYPE, AppKey, aksk_headers, wsse_headers
from dispatcher.core.wire import EMPTY_REQUEST, PATH, read_answer

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024  # 500 numbers take about 125 KB
MAX_TRIES: Final = 4
MAX_RETRY_AFTER_DIGITS: Final = 9  # of seconds: 31 years
RETRY_WAIT: Final = wait_random_exponential(multiplier=0.2, max=2)  # seconds
# Below the 5 s after which the most impatient of usual servers (Apache, Node) close an
# idle connection: a request that meets the closing ends unsure, because who was first is unknown.
KEEP_ALIVE_SECONDS: Final = 4


@dataclass(frozen=True, slots=True)
class Account:
    """Where and as whom to send: one provider application."""

    endpoint: str  # scheme://host[:port]; the Host that is signed is the one written here
    key: AppKey
    auth: Literal["aksk", "wsse"] = "aksk"
    wsse_digest: Literal["hex", "raw"] = "hex"
    timeout: float = 30.0  # seconds for one try, answer included
    connect_timeout: float = 5.0
    ca_bundle: Path | None = None
    proxy: str | None = field(default=None, repr=False)  # its address may hold a password

    @property
    def host(self) -> str:
        """The Host header: exactly as in the endpoint, port included if it is written there."""
        return urlsplit(self.endpoint).netloc

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.endpoint.rstrip("/") + PATH


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The result of a request after all its tries."""

    answer: Answer
    tries: int
    seconds: float


class _Body(BytesPayload):
    """A body that checks, immediately before it is written, whether it may still be sent.

    aiohttp first gets a connection, then writes in a separate task: a process that was frozen
    meanwhile continues when others may have sent the same. Headers wait for the body.
    """

    def __init__(self, body: bytes, may_leave: Callable[[], bool]) -> None:
        super().__init__(body, content_type=CONTENT_TYPE)
        self._may_leave = may_leave
        self.withheld = False
        self.begun = False  # some of it was written

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        if not self._may_leave():
            self.withheld = True
            raise ConnectionAbortedError("it may not be sent any more")
        # A connection that the server closed while it was idle accepts nothing.
        self.begun = _is_writable(writer)
        await super().write_with_length(writer, content_length)


class Client:
    """The provider, as one app sees it. An async context manager."""

    def __init__(
        self,
        account: Account,
        *,
        clock: Callable[[], datetime],
        nonce: Callable[[], str],
    ) -> None:
        self._account = account
        self._clock = clock
        self._nonce = nonce
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        account = self._account
        # create_default_context verifies chain and host name; there is no way to switch that off.
        context = ssl.create_default_context(cafile=account.ca_bundle)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=context, limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=60
            ),
            timeout=aiohttp.ClientTimeout(
                total=account.timeout, sock_connect=account.connect_timeout
            ),
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def post(self, body: bytes, *, may_try: Callable[[], bool]) -> RequestResult:
        """Send *body* until it is answered, or must not be sent again; failures raise nothing.

        *may_try* is called before each retry, and for each try immediately before it is written:
        an expired message or a lost lease ends the tries. A withheld body gives `NEVER_SENT`.
        """
        started = monotonic()
        answers: list[Answer] = []  # of each try

        def no_more(state: RetryCallState) -> bool:
            return state.attempt_number >= MAX_TRIES or not may_try()

        async def attempt() -> Answer:
            # Checked again after the wait: a lease may end in two seconds.
            if not answers or may_try():
                answers.append(await self._try(body, may_try))
            return answers[-1]

        retrying = AsyncRetrying(
            wait=RETRY_WAIT,
            stop=no_more,
            retry=retry_if_result(is_retryable),
            retry_error_callback=lambda _: answers[-1],  # no try is left
        )
        answer: Answer = await retrying(attempt)
        return RequestResult(answer, len(answers), monotonic() - started)

    async def probe(self) -> Answer:
        """Send one request without any message: any answer proves that requests arrive."""
        return await self._try(EMPTY_REQUEST, lambda: True)

    async def _try(self, body: bytes, may_leave: Callable[[], bool]) -> Answer:
        account = self._account
        leaving = _Body(body, may_leave)
        try:
            async with self._session.post(
                account.url,
                data=leaving,
                headers=self._headers(body),
                allow_redirects=False,
                proxy=account.proxy,
                skip_auto_headers=("User-Agent",),
            ) as response:
                skew = _clock_skew(response.headers.get("Date"), self._clock())
                raw = await response.content.read(MAX_ANSWER_BYTES)
                while len(raw) < MAX_ANSWER_BYTES and not response.content.at_eof():
                    raw += await response.content.read(MAX_ANSWER_BYTES - len(raw))
                return read_answer(
                    response.status,
                    raw,
                    clock_skew=skew,
                    retry_after=_retry_after(response.headers.get("Retry-After"), self._clock()),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _no_reply(error, leaving, account.timeout)

    def _headers(self, body: bytes) -> dict[str, str]:
        account = self._account
        now = self._clock()
        if account.auth == "wsse":
            signed = wsse_headers(
                account.key, now=now, nonce=self._nonce(), digest=account.wsse_digest
            )
        else:
            signed = aksk_headers(
                account.key, method="POST", path=PATH, host=account.host, body=body, now=now
            )
        return {"Content-Type": CONTENT_TYPE, "Host": account.host, **signed}


def _is_writable(writer: AbstractStreamWriter) -> bool:
    """Tell whether data written now may reach the network; in doubt it may."""
    if not isinstance(writer, StreamWriter):
        return True
    return writer.transport is not None and not writer.transport.is_closing()


def _no_reply(error: Exception, leaving: _Body, timeout: float) -> NoReply:
    """Describe how a request without an answer ended; *timeout* is in seconds."""
    if leaving.withheld:
        return NoReply("it might not leave any more", sent=False, code=NEVER_SENT)
    code = "no-answer"
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = "no connection within the connect time-out"
        case aiohttp.ClientProxyConnectionError():
            reason = f"no connection to the proxy: {why_unconnected(error)}"
        case aiohttp.ClientConnectorError():  # refused, no route, no such name, TLS failed
            reason = f"no connection: {why_unconnected(error)}"
        case aiohttp.ClientHttpProxyError():
            reason = f"the proxy refuses the connection: HTTP {error.status}"
        case aiohttp.InvalidURL():
            reason = "the endpoint is not an address"
        case TimeoutError():
            # Without a connection: slow names, or a time-out shorter than that of connecting.
            what, code = "answer" if leaving.begun else "connection", "timeout"
            reason = f"no {what} within {timeout:g} s"
        case aiohttp.ServerDisconnectedError():
            reason = "the connection was closed without an answer"
        case _:
            reason = f"the connection broke: {type(error).__name__}"
    return NoReply(reason, sent=leaving.begun, code=code if leaving.begun else UNREACHABLE)


# Of X509_V_ERR_*: expired, and for another host or address.
_CERTIFICATE_FAULTS: Final = {
    10: "the server's certificate is expired",
    62: "the server's certificate is for another host name",
    64: "the server's certificate is for another host name",
}
_SYSTEM_FAULTS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "the connection was closed",
    errno.ETIMEDOUT: "timed out",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "no route to the host",
}


def why_unconnected(error: aiohttp.ClientConnectorError) -> str:
    """Return why no connection could be made, in English, for the one who can mend it."""
    match error, error.os_error:
        case _, ssl.SSLCertVerificationError(verify_code=code):
            return _CERTIFICATE_FAULTS.get(code, "the server's certificate is not trusted")
        case aiohttp.ClientConnectorCertificateError(), _:
            return "the server's certificate is not trusted"
        case aiohttp.ClientConnectorDNSError(), _:
            return "the host name is not found"
        case _, ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
            return "the server does not speak TLS at this port"
        case _, OSError(errno=number, strerror=words):
            return _SYSTEM_FAULTS.get(number or 0) or words or type(error.os_error).__name__


def _clock_skew(date: str | None, now: datetime) -> float | None:
    """Return this clock minus the answer's Date in seconds; None without a readable Date."""
    theirs = None if date is None else _http_date(date)
    return None if theirs is None else (now - theirs).total_seconds()


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:MAX_RETRY_AFTER_DIGITS])
    until = _http_date(value)
    return None if until is None else max(0.0, (until - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):  # a zone of 15 digits overflows
        return None
