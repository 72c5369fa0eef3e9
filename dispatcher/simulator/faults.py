"""All faults of the simulator, each a small class: its fields are its options in JSON.

A request passes the phases arrival, refusal, numbers, answer and delivery. It meets at most one
fault that ends it (arrival, refusal, delivery): the first in the order of the script. Faults of
numbers, of the answer and of the clock add up.
"""

from random import Random
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from dispatcher.simulator.answer import Answer
from dispatcher.simulator.fault_trigger import ContentTrigger, Count, FaultState, FaultTrigger
from dispatcher.simulator.listener import ConnectionGate, reset_connection
from dispatcher.simulator.options import Seconds, Share
from dispatcher.simulator.request import ACCEPTED, RequestRefusedError, SmsRequest


class RequestConnection:
    """The connection of a request."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request

    def reset(self) -> web.Response:
        """Close with RST, which the client reads as `connection reset`.

        Returns a response for aiohttp, which finds the connection closed and sends nothing.
        """
        if self.request.transport is not None:
            reset_connection(self.request.transport)
        return web.Response()

    def close(self) -> web.Response:
        """Close with FIN after the written bytes. Returns a response that is not sent."""
        if self.request.transport is not None:
            self.request.transport.close()
        return web.Response()


class ConnectionContext(Struct, frozen=True):
    """What a fault of the connection works on."""

    connection: RequestConnection
    gate: ConnectionGate
    state: FaultState


class Delivery(Struct, frozen=True):
    """An answer that is about to be sent."""

    connection: RequestConnection
    response: web.Response
    state: FaultState


class ArrivalFault(FaultTrigger, frozen=True, kw_only=True):
    """Ends a request before its body is read; nothing is accepted."""

    async def apply(self, context: ConnectionContext) -> web.StreamResponse:
        """End the request and return its response."""
        raise NotImplementedError


class AnswerFault(ContentTrigger, frozen=True, kw_only=True):
    """Changes the answer; the accepted numbers stay accepted."""

    def alter_answer(self, answer: Answer) -> bool:
        """Change *answer* in place; return whether it was changed."""
        raise NotImplementedError


class DeliveryFault(ContentTrigger, frozen=True, kw_only=True):
    """Delays, cuts or replaces the answer."""

    accept: bool = True  # whether the numbers are accepted all the same

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Return the response to send, or the one that was sent."""
        raise NotImplementedError


class Refuse(ArrivalFault, frozen=True, kw_only=True, tag="refuse"):
    """Refuses new connections and resets the open ones.

    Without a condition of count or chance it begins when it is set, otherwise with the request
    that it applies to. It ends after *seconds*, or when the faults are set again or cleared.
    """

    seconds: Seconds | None = None  # None: until the faults are set again or cleared
    drop: bool = True  # whether open connections are reset
    silent: bool = False  # whether connecting clients get no answer, as where packets are lost

    @property
    def at_once(self) -> bool:
        """Whether it begins when it is set."""
        return not (
            self.nth
            or self.every
            or self.first
            or self.after
            or self.after_accepted
            or self.probability is not None
        )

    async def apply(self, context: ConnectionContext) -> web.StreamResponse:
        """Reset this connection and refuse new ones."""
        context.gate.refuse(seconds=self.seconds, drop=self.drop, silent=self.silent)
        return context.connection.reset()


class Reset(ArrivalFault, frozen=True, kw_only=True, tag="reset"):
    """Resets the connection before the request is read."""

    async def apply(self, context: ConnectionContext) -> web.StreamResponse:
        """Reset the connection."""
        return context.connection.reset()


class StallBeforeReading(ArrivalFault, frozen=True, kw_only=True, tag="stall-before-reading"):
    """Keeps the connection open, leaves the request unread and sends no answer."""

    seconds: Seconds = 3600.0

    async def apply(self, context: ConnectionContext) -> web.StreamResponse:
        """Wait, then reset. The server has read a little of the body ahead."""
        await context.state.stall(self.seconds)
        return context.connection.reset()


class RequestCode(ContentTrigger, frozen=True, kw_only=True, tag="code"):
    """Refuses with a top-level code, at its HTTP status in the API reference or another one."""

    code: str
    http_status: int | None = None
    detail: str = ""

    def refusal(self) -> RequestRefusedError:
        """Return the error that the client receives."""
        return RequestRefusedError(self.code, self.detail, self.http_status)


class BadEntry(RequestCode, frozen=True, kw_only=True, tag="bad-entry"):
    """Refuses for one bad entry: give *template* or *param*, and the code (E000503, E000027)."""

    code: str = "E000503"


class CountryClosed(RequestCode, frozen=True, kw_only=True, tag="country-closed"):
    """Refuses because a country's quota is used up: give *country* or *prefix*."""

    code: str = "E000630"


class Quota(RequestCode, frozen=True, kw_only=True, tag="quota"):
    """Refuses once the quota is used up: give *after_accepted*. One request may exceed it."""

    code: str = "E000623"


class WhiteList(RequestCode, frozen=True, kw_only=True, tag="white-list"):
    """Refuses because the client's address is not on the white list: give *for_seconds*."""

    code: str = "E000620"


class NumberCode(ContentTrigger, frozen=True, kw_only=True, tag="number-code"):
    """Refuses some numbers: the matching ones, a share of those, or those above a rate.

    E200015 is flow control, the other known codes are permanent, and any text is possible.
    """

    code: str = "E200015"
    share: Share | None = None
    per_second: int | None = None  # numbers accepted in each second; the others get the code

    def refuse_numbers(
        self,
        sms_request: SmsRequest,
        codes: list[str],
        state: FaultState,
        *,
        ordinal: int,
        now: float,
    ) -> int:
        """Change *codes* (one for each number) that are 000000; return how many it changed."""
        matching = [at for at in self.positions(sms_request) if codes[at] == ACCEPTED]
        if self.share is not None:
            random = Random(f"{self.seed}:{state.salt}:{ordinal}")
            matching = [at for at in matching if random.random() < self.share]
        if self.per_second is not None:
            if now - state.window_start >= 1.0:
                state.window_start, state.passed = now, 0
            passing = max(0, self.per_second - state.passed)
            state.passed += min(passing, len(matching))
            matching = matching[passing:]
        for at in matching:
            codes[at] = self.code
        return len(matching)


class Lack(AnswerFault, frozen=True, kw_only=True, tag="lack"):
    """Removes the last *count* numbers from the result."""

    count: Count = 1

    def alter_answer(self, answer: Answer) -> bool:
        """Remove the numbers."""
        if not answer.results:
            return False
        del answer.results[-self.count :]
        return True


class Repeat(AnswerFault, frozen=True, kw_only=True, tag="repeat"):
    """Repeats the first *count* numbers of the result, with *code* if it is given."""

    count: Count = 1
    code: str | None = None

    def alter_answer(self, answer: Answer) -> bool:
        """Append the copies."""
        if not answer.results:
            return False
        repeated = answer.results[: self.count]
        if self.code is not None:
            repeated = [row.replace(f'"{ACCEPTED}"', f'"{self.code}"') for row in repeated]
        answer.results += repeated
        return True


class Reorder(AnswerFault, frozen=True, kw_only=True, tag="reorder"):
    """Changes the order of the numbers in the result."""

    def alter_answer(self, answer: Answer) -> bool:
        """Shuffle the numbers."""
        if not answer.results:
            return False
        Random(self.seed).shuffle(answer.results)
        return True


class MixedAnswer(AnswerFault, frozen=True, kw_only=True, tag="mixed-answer"):
    """Sets top-level code and HTTP status of an answer with refused numbers.

    The provider's own choice is not known for certain (provider.md, The answer).
    """

    code: str = "E000510"  # E200037 (older servers), 000000, or any other
    http_status: int = 200
    always: bool = False  # also if every number is accepted

    def alter_answer(self, answer: Answer) -> bool:
        """Set the code and the status."""
        if answer.results is None or (answer.code == ACCEPTED and not self.always):
            return False
        answer.code, answer.http_status = self.code, self.http_status
        return True


class Clock(FaultTrigger, frozen=True, kw_only=True, tag="clock"):
    """Sets the provider's clock wrong in `Date`, and with *checks* in signature checks too."""

    offset: float  # seconds it is ahead
    checks: bool = False


class Cut(DeliveryFault, frozen=True, kw_only=True, tag="cut"):
    """Accepts the numbers, then closes the connection without a byte of an answer."""

    reset: bool = False  # RST instead of FIN

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Close the connection."""
        return delivery.connection.reset() if self.reset else delivery.connection.close()


class HalfAnswer(DeliveryFault, frozen=True, kw_only=True, tag="half-answer"):
    """Sends the whole head of the answer and half of its body."""

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Send the head, half of the body, and FIN."""
        body = delivery.response.body
        whole = body if isinstance(body, bytes) else b""
        broken = web.StreamResponse(
            status=delivery.response.status, headers=delivery.response.headers
        )
        broken.content_length = len(whole)
        await broken.prepare(delivery.connection.request)
        await broken.write(whole[: len(whole) // 2])
        delivery.connection.close()
        return broken


class OddAnswer(DeliveryFault, frozen=True, kw_only=True, tag="odd-answer"):
    """Writes the answer in a form that no document of the provider names.

    ``bom`` and ``gbk`` can be read, ``stranger`` adds the result of a number that nobody sent;
    the others (words without JSON, an empty body, a list, deep nesting) cannot be read.
    """

    form: Literal["bom", "gbk", "stranger", "words", "empty", "list", "deep"]

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Send the answer in its odd form, with the status of the real one."""
        given = delivery.response.body
        body = given if isinstance(given, bytes) else b""
        match self.form:
            case "bom":
                body = b"\xef\xbb\xbf" + body
            case "gbk":
                said = b'"description":"'
                body = body.replace(said, said + "\u6210\u529f".encode("gbk"), 1)
            case "stranger":
                body = body.replace(b'"result":[', b'"result":[' + _STRANGER + b",", 1)
            case "words":
                body = b"OK"
            case "empty":
                body = b""
            case "list":
                body = b"[]"
            case "deep":
                body = b"[" * 20_000
        return web.Response(
            status=delivery.response.status,
            body=body,
            content_type="application/json",
            headers={"Date": delivery.response.headers["Date"]},
        )


_STRANGER = (
    b'{"total":1,"originTo":"+8613999999999","createTime":"2026-01-01T00:00:00Z","from":"x",'
    b'"smsMsgId":"stranger","countryId":"CN","status":"000000"}'
)


class Delay(DeliveryFault, frozen=True, kw_only=True, tag="delay"):
    """Sends the answer late, or as soon as the faults are cleared."""

    seconds: Seconds

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Wait, then send the answer."""
        await delivery.state.stall(self.seconds)
        return delivery.response


class StallAfterReading(DeliveryFault, frozen=True, kw_only=True, tag="stall-after-reading"):
    """Reads the request and never answers; *accept* decides whether its numbers are accepted."""

    seconds: Seconds = 3600.0
    accept: bool = False

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Wait, then close."""
        await delivery.state.stall(self.seconds)
        return delivery.connection.close()


class Http(DeliveryFault, frozen=True, kw_only=True, tag="http"):
    """Answers as a proxy in front of the API does: 429, 500, 502, 503 or any other status.

    With *accept* the API accepts the numbers all the same. Status 200 with HTML is an answer
    that no client can read.
    """

    status: Annotated[int, Meta(ge=200, le=599)] = 503
    html: bool = False
    retry_after: int | None = None
    accept: bool = False

    async def deliver(self, delivery: Delivery) -> web.StreamResponse:
        """Answer with the status and a page of HTML, or without a body."""
        page = f"<html><body><h1>{self.status}</h1><hr>proxy</body></html>" if self.html else ""
        other = web.Response(status=self.status, text=page, content_type="text/html")
        other.headers["Date"] = delivery.response.headers["Date"]
        if self.retry_after is not None:
            other.headers["Retry-After"] = str(self.retry_after)
        return other


Fault = (
    Refuse
    | Reset
    | StallBeforeReading
    | RequestCode
    | BadEntry
    | CountryClosed
    | WhiteList
    | Quota
    | NumberCode
    | Lack
    | Repeat
    | Reorder
    | MixedAnswer
    | Clock
    | Cut
    | HalfAnswer
    | OddAnswer
    | Delay
    | StallAfterReading
    | Http
)
