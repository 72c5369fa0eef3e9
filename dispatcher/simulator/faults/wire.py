"""The connection of a request, for faults that break it."""

import asyncio
import contextlib
import socket
import struct

from aiohttp import web


class Wire:
    """The connection of a request."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request

    def reset(self) -> web.Response:
        """Close with RST: the client reads `connection reset`.

        Return a response for aiohttp, which finds the connection closed and sends nothing.
        """
        if self.request.transport is not None:
            reset(self.request.transport)
        return web.Response()

    def close(self) -> web.Response:
        """Close with FIN, after what was written. Return a response that is not sent."""
        if self.request.transport is not None:
            self.request.transport.close()
        return web.Response()


def reset(transport: asyncio.WriteTransport) -> None:
    """Close *transport* with RST."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        linger = struct.pack("ii", 1, 0)  # on, zero seconds: what is unsent is thrown away
        with contextlib.suppress(OSError):  # the client was faster in closing it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
