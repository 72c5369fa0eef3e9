"""The front door: opens, shuts for a while, and drops who is inside."""

import asyncio

from aiohttp import web

from dispatcher.simulator.faults.wire import reset
from dispatcher.simulator.listener import Listener


class Door:
    """The provider's own address, as faults see it."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._server: web.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    def hang(self, listener: Listener, server: web.Server) -> None:
        """Tell which address and which connections it is about."""
        self._listener = listener
        self._server = server

    def shut(self, *, seconds: float | None, drop: bool, spare: object = None) -> None:
        """Refuse connections, for *seconds*; reset the open ones too, but *spare*, if *drop*."""
        self._forget_reopening()
        if self._listener is not None:
            self._listener.refuse()
        if drop and self._server is not None:
            for connection in self._server.connections:
                if connection is not spare and connection.transport is not None:
                    reset(connection.transport)
        if seconds is not None:
            self._reopening = asyncio.create_task(self._reopen_in(seconds))

    async def reopen(self) -> None:
        """Accept connections again."""
        self._forget_reopening()
        if self._listener is not None:
            await self._listener.resume()

    def close(self) -> None:
        """Shut it for good."""
        self._forget_reopening()
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    async def _reopen_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._reopening = None  # so that reopen() does not cancel the task it runs in
        await self.reopen()

    def _forget_reopening(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
