"""Faults between the finished answer and the client."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from dispatcher.simulator.faults.phases import DeliveryFault, Parcel
from dispatcher.simulator.faults.trigger import Seconds


class Cut(DeliveryFault, frozen=True, kw_only=True, tag="cut"):
    """The numbers are accepted, then the connection is cut without a byte of an answer."""

    reset: bool = False  # RST instead of FIN

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Cut it."""
        return parcel.wire.reset() if self.reset else parcel.wire.close()


class HalfAnswer(DeliveryFault, frozen=True, kw_only=True, tag="half-answer"):
    """The answer breaks off in the middle of its body, although its head promised all of it."""

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Send the head, half of the body, and FIN."""
        body = parcel.response.body
        whole = body if isinstance(body, bytes) else b""
        broken = web.StreamResponse(status=parcel.response.status, headers=parcel.response.headers)
        broken.content_length = len(whole)
        await broken.prepare(parcel.wire.request)
        await broken.write(whole[: len(whole) // 2])
        parcel.wire.close()
        return broken


class Delay(DeliveryFault, frozen=True, kw_only=True, tag="delay"):
    """The answer comes, but late; at once when the faults are taken away."""

    seconds: Seconds

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Wait, then let the answer go."""
        await parcel.state.stall(self.seconds)
        return parcel.response


class StallAfterReading(DeliveryFault, frozen=True, kw_only=True, tag="stall-after-reading"):
    """The request is read and no answer ever comes; *accept* decides what became of it."""

    seconds: Seconds = 3600.0
    accept: bool = False

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Wait, then close."""
        await parcel.state.stall(self.seconds)
        return parcel.wire.close()


class Http(DeliveryFault, frozen=True, kw_only=True, tag="http"):
    """Something in front of the API answers instead: 429, 500, 502, 503 or any other status.

    With *accept* the API had taken the numbers all the same; status 200 with HTML is an answer
    that nobody can read.
    """

    status: Annotated[int, Meta(ge=200, le=599)] = 503
    html: bool = False
    retry_after: int | None = None
    accept: bool = False

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Answer with the status and a page of HTML, or no body at all."""
        page = f"<html><body><h1>{self.status}</h1><hr>proxy</body></html>" if self.html else ""
        other = web.Response(status=self.status, text=page, content_type="text/html")
        other.headers["Date"] = parcel.response.headers["Date"]
        if self.retry_after is not None:
            other.headers["Retry-After"] = str(self.retry_after)
        return other
