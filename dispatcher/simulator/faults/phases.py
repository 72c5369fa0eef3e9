"""Where in the life of a request a fault can strike: one class a phase.

A request meets at most one fault of the phases that end it (arrival, refusal, delivery), the
first in the order of the script; faults of numbers, of shape and of the clock add up.
"""

from typing import Protocol

from aiohttp import web
from msgspec import Struct

from dispatcher.simulator.answer import Answer
from dispatcher.simulator.faults.state import State
from dispatcher.simulator.faults.trigger import ContentTrigger, Trigger
from dispatcher.simulator.faults.wire import Wire


class Gate(Protocol):
    """The front door, as far as faults may touch it."""

    def shut(self, *, seconds: float | None, drop: bool, spare: object = None) -> None:
        """Refuse connections, for *seconds*; reset the open ones too, but *spare*, if *drop*."""

    async def reopen(self) -> None:
        """Accept connections again."""


class Scene(Struct, frozen=True):
    """What a fault of the connection may touch."""

    wire: Wire
    gate: Gate
    state: State


class Parcel(Struct, frozen=True):
    """An answer on its way."""

    wire: Wire
    response: web.Response
    state: State


class ArrivalFault(Trigger, frozen=True, kw_only=True):
    """Strikes before the body is read; nothing is accepted."""

    async def strike(self, scene: Scene) -> web.StreamResponse:
        """End the request."""
        raise NotImplementedError


class ShapeFault(ContentTrigger, frozen=True, kw_only=True):
    """Changes the answer, not what is accepted."""

    def bend(self, answer: Answer) -> bool:
        """Change *answer* in place; return whether there was anything to change."""
        raise NotImplementedError


class DeliveryFault(ContentTrigger, frozen=True, kw_only=True):
    """Spoils the way of the answer."""

    accept: bool = True  # whether the numbers are accepted before it strikes

    async def deliver(self, parcel: Parcel) -> web.StreamResponse:
        """Send the response, or what is left of it."""
        raise NotImplementedError
