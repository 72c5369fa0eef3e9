"""One HTTP server for everything that listens; each part brings its routes."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

MAX_BODY = 256 * 1024  # bytes; a batch of 50 reports takes about 20 KB
SLOW_SENDER = 15.0  # seconds for a whole request; longer and the connection is closed
DRAIN = 5.0  # seconds for requests that are being answered when the server stops


@asynccontextmanager
async def serving(
    host: str, port: int, routes: Iterable[web.AbstractRouteDef]
) -> AsyncIterator[tuple[str, int]]:
    """Serve *routes* on *host*:*port* (0: any free port); give the address that was bound.

    Raises OSError if the address cannot be bound.
    """
    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: tuple[str, int] = runner.addresses[0][:2]
        yield bound
    finally:
        await runner.cleanup()
