"""The simulator: its listening addresses, start and stop, and the parts that tests use."""

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from dispatcher.simulator.api import PATH, Api
from dispatcher.simulator.control import Control
from dispatcher.simulator.fault_script import FaultScript
from dispatcher.simulator.faults import Fault
from dispatcher.simulator.ledger import Journal, Ledger
from dispatcher.simulator.listener import ChangeSignal, ConnectionGate, Listener
from dispatcher.simulator.options import Options, ReportOptions
from dispatcher.simulator.report_sender import ReportSender


class Simulator:
    """A simulated provider on this machine.

    ::

        async with Simulator({"key": "secret"}) as sim:
            ...  # send to sim.url
            assert sim.ledger.numbers == 500

    *keys* maps each app_key to its secret. *listen* is HOST:PORT; port 0 takes a free one.
    *control* is a second address for the control paths alone. It stays open while a fault refuses
    connections at the first. Without it, the first address serves the control paths too.
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
        self._changes = ChangeSignal()
        self._gate = ConnectionGate()
        self._api = Api(
            dict(keys), options or Options(), self._gate, changes=self._changes, wall=wall
        )
        self._api.reports.options = reports
        self._control = Control(self.ledger, self.journal, self.faults, self.reports)
        self._initial_faults = faults
        self._listen = listen
        self._control_listen = control
        self._tls = tls
        self._listener: Listener | None = None
        self._control_listener: Listener | None = None
        self._servers: list[web.Server] = []

    @property
    def url(self) -> str:
        """The address for requests, without the path: the endpoint of an app."""
        if self._listener is None:
            raise RuntimeError("the simulator is not started")
        return self._listener.url

    @property
    def control_url(self) -> str:
        """The address of the control paths."""
        return self.url if self._control_listener is None else self._control_listener.url

    @property
    def ledger(self) -> Ledger:
        """The accepted numbers."""
        return self._api.ledger

    @property
    def journal(self) -> Journal:
        """The records of all requests."""
        return self._api.journal

    @property
    def faults(self) -> FaultScript:
        """The active faults; set them with ``await sim.faults.arm([...])``."""
        return self._api.faults

    @property
    def reports(self) -> ReportSender:
        """The status reports: ``sim.reports.options``, ``.answers``, ``.acknowledged()``."""
        return self._api.reports

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as *condition* holds; it is checked after each request and each report."""
        await self._changes.until(condition)

    async def start(self) -> None:
        """Listen. Raises OSError if an address is taken, ValueError if it is not HOST:PORT."""
        server = web.Server(self._serve, access_log=None)
        self._servers.append(server)
        listener = Listener(self._listen, server, self._tls)
        self._gate.attach(listener, server)
        try:
            await listener.start()
            self._listener = listener
            if self._control_listen is not None:
                # A separate server: a fault that drops connections does not drop these.
                control_server = web.Server(self._serve_control, access_log=None)
                self._servers.append(control_server)
                self._control_listener = Listener(self._control_listen, control_server)
                await self._control_listener.start()
        except OSError:
            await self.stop()
            raise
        await self.faults.arm(self._initial_faults)

    async def stop(self) -> None:
        """Stop listening, and give requests in progress one second to end."""
        await self.faults.clear()  # ends stalls
        self._gate.close()
        if self._control_listener is not None:
            self._control_listener.stop()
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
