"""POST /reports/<token>: status reports, from a sender that anybody may claim to be.

Each request passes, in this order: its path, its network, its size and time, its signature, its
form. What is refused is answered with a status and a reason of its own, and counted. Whatever is
answered 200 is stored.
"""

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Struct

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report import CHECK_STATUS, Malformed, Report, parse_form, parse_json
from dispatcher.receiver.intake import Intake, NotStored
from dispatcher.receiver.verification import Network, Signatures, client_address, within
from dispatcher.telemetry import ReportMetrics

SLOW_SENDER = 15.0  # seconds for a whole request; longer and the connection is closed

CHECKED: Final = "Test report received"
_SUCCESS: Final = b'{"returnCode":0,"returnCodeDesc":"Success"}'


class ReportRouteConfig(Struct, frozen=True):
    """Who may report, and what is done with it."""

    path_token: str
    intake: Intake
    signatures: Signatures
    announce: Callable[[str], Awaitable[None]]  # a test report came
    networks: Sequence[Network] = ()  # none: any
    trusted_proxies: Sequence[Network] = ()
    slow_sender: float = SLOW_SENDER  # seconds for a whole body
    metrics: ReportMetrics = msgspec.field(default_factory=ReportMetrics)


class RefusedError(Exception):
    """A push is not taken; it does not leave this room."""

    def __init__(self, kind: str, status: int, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.kind = kind  # the words it is counted under
        self.detail = detail
        self.status = status
        self.reason = reason


class Counts(Struct):
    """What a receiver has refused, and not written yet."""

    refused: Counter[str] = msgspec.field(default_factory=Counter)  # posts, by kind


def report_routes(door: ReportRouteConfig, counts: Counts) -> list[web.AbstractRouteDef]:
    """Return the route of the receiver; *counts* is kept up to date."""

    async def receive(request: web.Request) -> web.Response:
        try:
            taken = await _take(request, door)
        except RefusedError as refused:
            counts.refused[refused.kind] += 1
            door.metrics.refused(refused.kind, refused.detail)
            return _refuse(refused)
        if taken:
            return web.Response(body=_SUCCESS, content_type="application/json")
        return _answer(200, 0, CHECKED)

    # One segment, whatever is in it: the comparison above decides.
    return [web.post("/reports/{token}", receive)]


async def _take(request: web.Request, door: ReportRouteConfig) -> int:
    """Return how many reports were kept, 0 for a test report; raise RefusedError for the rest."""
    given = request.match_info["token"].encode(errors="surrogateescape")
    if not hmac.compare_digest(given, door.path_token.encode()):
        raise RefusedError("path", 404, "There is nothing here.")
    if door.networks and not _from_known_network(request, door):
        raise RefusedError("network", 403, "Reports are not taken from this address.")
    body = await _body(request, door.slow_sender)
    unsigned = door.signatures.refuse(request, body)
    if unsigned is not None:
        raise RefusedError("signature", 401, unsigned)
    match _parse(request.content_type, body):
        case Malformed(reason, status, reports, word):
            # The sound reports of a bad batch would be lost with it: nobody sends them again.
            await _keep(reports, door)
            kind = "too long" if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else "malformed"
            raise RefusedError(kind, status, reason, word)
        case [Report(status=status, provider_id=word)] if status == CHECK_STATUS:
            try:
                await door.announce(word)
            except DatabaseUnavailable:
                raise RefusedError(
                    "not kept", 503, "The database is away; reports go to disk meanwhile."
                ) from None
            return 0
        case reports:
            await _keep(reports, door)
            return len(reports)


async def _keep(reports: Sequence[Report], door: ReportRouteConfig) -> None:
    if not reports:
        return
    kept = await door.intake.keep(reports)
    if isinstance(kept, NotStored):
        ours = kept.status == HTTPStatus.SERVICE_UNAVAILABLE
        raise RefusedError("not kept" if ours else "malformed", kept.status, kept.why)


def _from_known_network(request: web.Request, door: ReportRouteConfig) -> bool:
    address = client_address(
        request.remote, request.headers.getall("X-Forwarded-For", []), door.trusted_proxies
    )
    return address is not None and within(address, door.networks)


async def _body(request: web.Request, seconds: float) -> bytes:
    try:
        if request.content.is_eof():  # it came with the head, as nearly always
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


def _parse(content_type: str, body: bytes) -> list[Report] | Malformed:
    """Read *body* as what it is called, or looks like: a report is not lost for a wrong label."""
    if content_type == "application/json" or body.lstrip()[:1] == b"{":
        return parse_json(body)
    return parse_form(body)


def _refuse(refused: RefusedError) -> web.Response:
    response = _answer(refused.status, refused.status, refused.reason)
    if refused.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        response.force_close()  # whatever else is on its way is not waited for
    return response


def _answer(status: int, code: int, text: str) -> web.Response:
    body = msgspec.json.encode({"returnCode": code, "returnCodeDesc": text})
    return web.Response(status=status, body=body, content_type="application/json")
