"""Faults of the connection: the request is not even read."""

from aiohttp import web

from dispatcher.simulator.faults.phases import ArrivalFault, Scene
from dispatcher.simulator.faults.trigger import Seconds


class Refuse(ArrivalFault, frozen=True, kw_only=True, tag="refuse"):
    """Nobody listens: connections are refused, and the open ones are reset.

    Without a condition of count or chance it begins when it is set, otherwise with the request
    it strikes. It ends after *seconds*, or when the faults are set anew or taken away.
    """

    seconds: Seconds | None = None  # None: until then
    drop: bool = True  # whether open connections are reset

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

    async def strike(self, scene: Scene) -> web.StreamResponse:
        """Reset this connection and shut the door behind it."""
        scene.gate.shut(seconds=self.seconds, drop=self.drop)
        return scene.wire.reset()


class Reset(ArrivalFault, frozen=True, kw_only=True, tag="reset"):
    """The connection is reset before the request is read."""

    async def strike(self, scene: Scene) -> web.StreamResponse:
        """Reset it."""
        return scene.wire.reset()


class StallBeforeReading(ArrivalFault, frozen=True, kw_only=True, tag="stall-before-reading"):
    """The connection stands, the request stays unread, no answer comes."""

    seconds: Seconds = 3600.0

    async def strike(self, scene: Scene) -> web.StreamResponse:
        """Wait, then reset. The server reads a little ahead, and then no more."""
        await scene.state.stall(self.seconds)
        return scene.wire.reset()
