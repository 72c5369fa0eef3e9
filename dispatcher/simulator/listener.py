"""One listening address that can refuse connections for a while and keep its port."""

import asyncio
import socket
import ssl

from aiohttp import web

MAX_PORT = 65_535


class Listener:
    """Accepts connections at *address* (HOST:PORT) for *server*; port 0 takes a free one.

    Raises ValueError if the address is none.

    A second socket stays bound to the port and never listens: while the listening one is closed,
    the kernel refuses connections, and gives the port to nobody else, not even to a client that
    would then be connected to itself.
    """

    def __init__(self, address: str, server: web.Server, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(f"{address} is not HOST:PORT")
        self.host = host.strip("[]")
        self.port = int(port)
        self._server = server
        self._tls = tls
        self._holder: socket.socket | None = None
        self._accepting: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address as a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}"

    @property
    def open(self) -> bool:
        """Whether connections are accepted."""
        return self._accepting is not None

    async def start(self) -> None:
        """Take the port and accept connections. Raises OSError if another process has it."""
        # SO_REUSEPORT would let a second simulator share the port silently: ask without it first.
        with self._socket(shared=False) as probe:
            probe.listen(1)
            self.port = probe.getsockname()[1]
        self._holder = self._socket(shared=True)
        await self.resume()

    async def resume(self) -> None:
        """Accept connections again."""
        if self._accepting is None:
            self._accepting = await asyncio.get_running_loop().create_server(
                self._server, sock=self._socket(shared=True), ssl=self._tls, backlog=1024
            )

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay so."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def stop(self) -> None:
        """Refuse connections and give the port back."""
        self.refuse()
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _socket(self, *, shared: bool) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((self.host, self.port))
        except OSError:
            made.close()
            raise
        return made
