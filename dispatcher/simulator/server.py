"""The simulator as a whole: its sockets, its life, and what a test holds of it."""

import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from aiohttp import web

from dispatcher.simulator.api import PATH, Api
from dispatcher.simulator.control import Control
from dispatcher.simulator.journal import Journal
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.listener import Listener
from dispatcher.simulator.options import Options


class Simulator:
    """The provider on this machine.

    ::

        async with Simulator({"key": "secret"}) as sim:
            ...  # send to sim.url
            assert sim.ledger.numbers == 500

    *keys* maps each app_key to its secret. *listen* is HOST:PORT, port 0 taking a free one.
    *control* is a second address that serves the control paths alone and stays open while faults
    refuse connections at the first; without it the first address serves them too, always.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        listen: str = "127.0.0.1:0",
        control: str | None = None,
        options: Options | None = None,
        tls: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._api = Api(dict(keys), options or Options(), wall=wall)
        self._control = Control(self.ledger, self.journal)
        self._listen = listen
        self._control_listen = control
        self._tls = tls
        self._server: web.Server | None = None
        self._listeners: list[Listener] = []

    @property
    def url(self) -> str:
        """The address to send to, without the path: the endpoint of an app."""
        return self._listeners[0].url

    @property
    def control_url(self) -> str:
        """The address of the control paths."""
        return self._listeners[-1].url

    @property
    def ledger(self) -> Ledger:
        """What was accepted."""
        return self._api.ledger

    @property
    def journal(self) -> Journal:
        """What came."""
        return self._api.journal

    async def start(self) -> None:
        """Listen. Raises OSError if an address is taken."""
        self._server = web.Server(self._route, access_log=None)
        addresses = [(self._listen, self._tls)]
        if self._control_listen is not None:
            addresses.append((self._control_listen, None))
        try:
            for address, tls in addresses:
                listener = Listener(address, self._server, tls)
                await listener.start()
                self._listeners.append(listener)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, and give requests in work a moment to end."""
        for listener in self._listeners:
            listener.stop()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(timeout=1.0)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == PATH:
            if request.method != "POST":
                raise web.HTTPMethodNotAllowed(request.method, ["POST"])
            return await self._api.answer(request)
        route = self._control.routes.get((request.method, request.path))
        if route is None:
            raise web.HTTPNotFound
        return await route(request)
