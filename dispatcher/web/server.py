"""One HTTP server for everything that listens; each part brings its routes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import monotonic

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MAX_BODY = 256 * 1024  # bytes; a batch of 50 reports takes about 20 KB
SLOW_SENDER = 15.0  # seconds for a whole request; longer and the connection is closed
SILENT = 60.0  # seconds without a first answer; whoever connects and sends nothing, or drop by drop
LOOK = 5.0  # seconds between two looks for them
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
    answered: set[RequestHandler] = set()

    async def note(request: web.Request, _: web.StreamResponse) -> None:
        answered.add(request.protocol)

    app.on_response_prepare.append(note)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN)
    await runner.setup()
    sweeping = asyncio.create_task(_sweep(runner, answered))
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound: tuple[str, int] = runner.addresses[0][:2]
        yield bound
    finally:
        sweeping.cancel()
        await runner.cleanup()


async def _sweep(runner: web.AppRunner, answered: set[RequestHandler]) -> None:
    """Close connections that were never answered: aiohttp waits for a first request for ever.

    Each holds a file descriptor, and who has none left hears nobody. What comes after a first
    answer has aiohttp's own time-out.
    """
    since: dict[RequestHandler, float] = {}
    while runner.server is not None:
        now = monotonic()
        open_ = set(runner.server.connections)
        answered &= open_
        since = {each: since.get(each, now) for each in open_ - answered}
        for connection, begun in since.items():
            if now - begun > SILENT:
                connection.force_close()
        await asyncio.sleep(LOOK)
