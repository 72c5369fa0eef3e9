"""Listening addresses: they can refuse connections for a while and keep their port."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable

from aiohttp import web

MAX_PORT = 65_535


class Listener:
    """Accepts connections at *address* (HOST:PORT) for *server*; port 0 takes a free one.

    A second socket stays bound to the port and never listens. While the listening socket is
    closed, the kernel refuses connections and keeps the port reserved, also against a client
    that would then connect to itself.

    Raises ValueError if *address* is not HOST:PORT.
    """

    def __init__(self, address: str, server: web.Server, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(f"{address} is not HOST:PORT")
        self.host = host.strip("[]")
        self.port = int(port)
        self._server = server
        self._tls = tls
        self._reserved: socket.socket | None = None
        self._listening: asyncio.Server | None = None
        self._full: socket.socket | None = None  # listens, and nothing is accepted

    @property
    def url(self) -> str:
        """The address as a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}"

    async def start(self) -> None:
        """Take the port and accept connections. Raises OSError if another process uses it."""
        # With SO_REUSEPORT a second simulator would share the port silently: try without it first.
        with self._socket(shared=False) as probe:
            probe.listen(1)
            self.port = probe.getsockname()[1]
        self._reserved = self._socket(shared=True)
        await self.resume()

    async def resume(self) -> None:
        """Accept connections again."""
        if self._listening is None:
            waiting, self._full = self._full, None
            self._listening = await asyncio.get_running_loop().create_server(
                self._server, sock=waiting or self._socket(shared=True), ssl=self._tls, backlog=1024
            )

    def refuse(self, *, silent: bool = False) -> None:
        """Refuse new connections; open ones stay open.

        *silent*: connecting clients get no answer until connections are accepted again, as where
        packets are lost; only the first of them is let into the queue of the kernel.
        """
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._full is not None:
            self._full.close()
            self._full = None
        if silent:
            self._full = self._socket(shared=True)
            self._full.listen(0)

    def stop(self) -> None:
        """Refuse connections and release the port."""
        self.refuse()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _socket(self, *, shared: bool) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        created = socket.socket(family, socket.SOCK_STREAM)
        try:
            created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            created.bind((self.host, self.port))
        except OSError:
            created.close()
            raise
        return created


class ConnectionGate:
    """Lets faults refuse connections at the provider's address and reset the open ones."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._server: web.Server | None = None
        self._resuming: asyncio.Task[None] | None = None

    def attach(self, listener: Listener, server: web.Server) -> None:
        """Set the listener and the server that the gate controls."""
        self._listener = listener
        self._server = server

    def refuse(
        self, *, seconds: float | None, drop: bool, silent: bool = False, spare: object = None
    ) -> None:
        """Refuse connections, for *seconds* if given; *drop* resets all open ones but *spare*.

        *silent*: connecting clients get no answer (see `Listener.refuse`).
        """
        self._cancel_resuming()
        if self._listener is not None:
            self._listener.refuse(silent=silent)
        if drop and self._server is not None:
            for connection in self._server.connections:
                if connection is not spare and connection.transport is not None:
                    reset_connection(connection.transport)
        if seconds is not None:
            self._resuming = asyncio.create_task(self._resume_after(seconds))

    async def resume(self) -> None:
        """Accept connections again."""
        self._cancel_resuming()
        if self._listener is not None:
            await self._listener.resume()

    def close(self) -> None:
        """Stop listening for good."""
        self._cancel_resuming()
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    async def _resume_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._resuming = None  # so that resume() does not cancel the task it runs in
        await self.resume()

    def _cancel_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None


class ChangeSignal:
    """Wakes coroutines that wait for a condition, so that tests need not sleep."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake all waiting coroutines, which then check their conditions again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as *condition* holds; it is checked after each notify()."""
        while not condition():
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting


def reset_connection(transport: asyncio.WriteTransport) -> None:
    """Close *transport* with RST."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        linger = struct.pack("ii", 1, 0)  # on, zero seconds: unsent bytes are discarded
        with contextlib.suppress(OSError):  # the client has closed it already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
