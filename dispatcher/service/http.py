"""The HTTP server of a service: health, metrics, reports and the console."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import structlog
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dispatcher.console import ConsoleBackend, closed_console_routes, console_routes
from dispatcher.db import spool
from dispatcher.db.database import pooled
from dispatcher.db.errors import DatabaseAwayError
from dispatcher.receiver.intake import KIND as REPORTS
from dispatcher.receiver.receiver import SPOOL
from dispatcher.settings import Settings
from dispatcher.telemetry import Metrics, State
from dispatcher.worker.recorder import KIND as ANSWERS

log = structlog.get_logger(__name__)

CONSOLE_CONNECTIONS = 3  # for the console and /metrics; workers have their own
METRICS_MAX_AGE_SECONDS = 5.0


@asynccontextmanager
async def listening(
    settings: Settings,
    dsn: str,
    *,
    metrics: Metrics,
    ready: Callable[[], Awaitable[str | None]],
    routes: Iterable[web.AbstractRouteDef] = (),
    until: asyncio.Event | None = None,
) -> AsyncIterator[State]:
    """Serve as long as the context lasts; give what shows the connections of pools.

    *routes* are those of other parts, which outlive the server. With *until* there is the
    console; its live pages end when that event is set.
    """
    state = State(metrics.registry, now=lambda: datetime.now(UTC))
    async with pooled(
        dsn, min_size=0, max_size=CONSOLE_CONNECTIONS, statement_cache=settings.statement_cache
    ) as pool:
        state.watch("console", pool)
        # A receiver that stands alone need not know its own address.
        reports_expected = (
            settings.callback_url is not None or settings.report_path_token is not None
        )
        backend = ConsoleBackend(pool, dsn=dsn, reports_expected=reports_expected)
        for kind in (ANSWERS, REPORTS):
            state.watch_spool(kind, partial(spool.size, settings.data_dir / SPOOL, kind))

        async def refresh() -> None:
            snapshot = backlog = None
            with suppress(DatabaseAwayError):
                snapshot = await backend.snapshot(METRICS_MAX_AGE_SECONDS)
            with suppress(DatabaseAwayError):
                backlog = await backend.backlog(METRICS_MAX_AGE_SECONDS)
            state.show(snapshot, backlog)

        routes = [*health_routes(ready), *metrics_routes(metrics.registry, refresh), *routes]
        if until is not None:
            routes += _console(settings, backend, until)
        host, port = settings.listen.rsplit(":", 1)
        async with serving(host.strip("[]"), int(port), routes) as (bound, at):
            log.info("listening", host=bound, port=at)
            yield state


def _console(
    settings: Settings, backend: ConsoleBackend, until: asyncio.Event
) -> list[web.AbstractRouteDef]:
    if settings.console_token is None:
        return closed_console_routes()
    return console_routes(backend, settings.console_token.get_secret_value(), until)


MAX_BODY = 256 * 1024  # bytes; a batch of 50 reports takes about 20 KB
SILENT = 60.0  # seconds without a first answer; for clients that send nothing, or slowly
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


Ready = Callable[[], Awaitable[str | None]]  # None: ready; otherwise why not, in one line


def health_routes(ready: Ready) -> list[web.AbstractRouteDef]:
    """Return the routes /healthz (the process answers) and /readyz (it can do its work)."""

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def is_ready(_: web.Request) -> web.Response:
        why_not = await ready()
        if why_not is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {why_not}\n")

    return [web.get("/healthz", alive), web.get("/readyz", is_ready)]


# /metrics, for Prometheus.

Refresh = Callable[[], Awaitable[None]]


def metrics_routes(registry: CollectorRegistry, refresh: Refresh) -> list[web.AbstractRouteDef]:
    """Return the route /metrics; *refresh* looks up what is not counted here, and never raises."""

    async def metrics(request: web.Request) -> web.Response:
        await refresh()
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(registry), headers={hdrs.CONTENT_TYPE: content_type})

    return [web.get("/metrics", metrics)]
