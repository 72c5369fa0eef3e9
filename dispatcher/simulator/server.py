"""The simulator as a whole: its sockets, its life, and what a test holds of it."""

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from dispatcher.simulator.api import PATH, Api
from dispatcher.simulator.bell import Bell
from dispatcher.simulator.control import Control
from dispatcher.simulator.door import Door
from dispatcher.simulator.faults.script import Faults
from dispatcher.simulator.faults.table import Fault
from dispatcher.simulator.journal import Journal
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.listener import Listener
from dispatcher.simulator.options import Options
from dispatcher.simulator.reports.options import ReportOptions
from dispatcher.simulator.reports.reporter import Reporter


class Simulator:
    """The provider on this machine.

    ::

        async with Simulator({"key": "secret"}) as sim:
            ...  # send to sim.url
            assert sim.ledger.numbers == 500

    *keys* maps each app_key to its secret. *listen* is HOST:PORT, port 0 taking a free one.
    *control* is a second address that serves the control paths alone and stays open while faults
    refuse connections at the first; without it the first address serves them too.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        listen: str = "127.0.0.1:0",
        control: str | None = None,
        options: Options | None = None,
        faults: Sequence[Fault] = (),
        reports: ReportOptions | None = None,
        tls: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bell = Bell()
        self._door = Door()
        self._api = Api(dict(keys), options or Options(), self._door, bell=self._bell, wall=wall)
        self._api.reports.options = reports
        self._control = Control(self.ledger, self.journal, self.faults, self.reports)
        self._first_faults = faults
        self._listen = listen
        self._control_listen = control
        self._tls = tls
        self._front: Listener | None = None
        self._side: Listener | None = None
        self._servers: list[web.Server] = []

    @property
    def url(self) -> str:
        """The address to send to, without the path: the endpoint of an app."""
        if self._front is None:
            raise RuntimeError("the simulator is not started")
        return self._front.url

    @property
    def control_url(self) -> str:
        """The address of the control paths."""
        return self.url if self._side is None else self._side.url

    @property
    def ledger(self) -> Ledger:
        """What was accepted."""
        return self._api.ledger

    @property
    def journal(self) -> Journal:
        """What came."""
        return self._api.journal

    @property
    def faults(self) -> Faults:
        """What goes wrong: ``await sim.faults.arm([...])``."""
        return self._api.faults

    @property
    def reports(self) -> Reporter:
        """What the carriers say: ``sim.reports.options``, ``.answers``, ``.witness()``."""
        return self._api.reports

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as *condition* holds; it is asked after each request and each report."""
        await self._bell.until(condition)

    async def start(self) -> None:
        """Listen. Raises OSError if an address is taken, ValueError if it is none."""
        server = web.Server(self._serve, access_log=None)
        self._servers.append(server)
        front = Listener(self._listen, server, self._tls)
        self._door.hang(front, server)
        try:
            await front.start()
            self._front = front
            if self._control_listen is not None:
                # A server of its own, so that a fault that drops connections leaves these alone.
                side_server = web.Server(self._serve_control, access_log=None)
                self._servers.append(side_server)
                self._side = Listener(self._control_listen, side_server)
                await self._side.start()
        except OSError:
            await self.stop()
            raise
        await self.faults.arm(self._first_faults)

    async def stop(self) -> None:
        """Stop listening, and give requests in work a moment to end."""
        await self.faults.clear()  # ends stalls
        self._door.close()
        if self._side is not None:
            self._side.stop()
        for server in self._servers:
            server.pre_shutdown()
            await server.shutdown(timeout=1.0)
        self._servers.clear()
        await self.reports.stop()

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

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != PATH:
            return await self._serve_control(request)
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await self._api.answer(request)

    async def _serve_control(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._control.routes.get((request.method, request.path))
        if route is None:
            raise web.HTTPNotFound
        return await route(request)
