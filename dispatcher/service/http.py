"""The HTTP server of a service: health, metrics, reports and the console."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from dispatcher.console import (
    ADMITTED,
    ConsoleBackend,
    ProxySignIn,
    closed_console_routes,
    console_routes,
)
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.language import N_, _
from dispatcher.db import spool
from dispatcher.db.database import open_database
from dispatcher.receiver.intake import SPOOL_KIND as REPORTS
from dispatcher.receiver.plain_posts import DirectRoute, DirectServer
from dispatcher.receiver.receiver import SPOOL
from dispatcher.settings import Settings
from dispatcher.telemetry import Metrics, State
from dispatcher.worker.recorder import SPOOL_KIND as ANSWERS

log = structlog.get_logger(__name__)

# For the console and /metrics; workers have their own. A count of a campaign and an export may keep
# one each.
CONSOLE_CONNECTIONS: Final = 5
METRICS_MAX_AGE_SECONDS: Final = 5.0


@asynccontextmanager
async def listening(
    settings: Settings,
    dsn: str,
    *,
    metrics: Metrics,
    ready: Callable[[], Awaitable[str | None]],
    routes: Iterable[web.AbstractRouteDef] = (),
    until: asyncio.Event | None = None,
    shared_port: bool = False,
) -> AsyncIterator[State]:
    """Serve as long as the context lasts; give the collector that shows pools and spools.

    *routes* are those of other parts, which outlive the server. With *until* there is the
    console; its live pages end when that event is set. With *shared_port* other processes may
    listen on the same port.
    """
    state = State(metrics.registry, now=lambda: datetime.now(UTC))
    async with open_database(
        dsn,
        max_size=CONSOLE_CONNECTIONS,
        statement_cache=settings.statement_cache,
        retry_refusals=True,
    ) as database:
        state.watch("console", database.pool)
        # A receiver that stands alone need not know its own address.
        reports_expected = (
            settings.callback_url is not None or settings.report_path_token is not None
        )
        backend = ConsoleBackend(
            database,
            reports_expected=reports_expected,
            other_mainland=settings.mainland_without_plus == "all",
        )
        for kind in (ANSWERS, REPORTS):
            state.watch_spool(kind, partial(spool.size, settings.data_dir / SPOOL, kind))

        async def refresh() -> None:
            snapshot = backlog = None
            with suppress(DatabaseUnavailable):
                snapshot = await backend.snapshot(METRICS_MAX_AGE_SECONDS)
            with suppress(DatabaseUnavailable):
                backlog = await backend.backlog(METRICS_MAX_AGE_SECONDS)
            state.show(snapshot, backlog)

        async def notes() -> list[str]:
            try:
                apps = (await backend.snapshot(METRICS_MAX_AGE_SECONDS)).apps
            except DatabaseUnavailable:
                return []
            return [
                f"{app.name} is paused since {app.paused_at:%Y-%m-%d %H:%M} UTC:"
                f" {app.pause_code or app.paused_by}"
                for app in apps
                if app.paused_at is not None
            ]

        routes = [*health_routes(ready, notes), *metrics_routes(metrics.registry, refresh), *routes]
        if until is not None:
            routes += _console(settings, backend, until)
        host, port = settings.listen.rsplit(":", 1)
        served = serving(host.strip("[]"), int(port), routes, shared_port=shared_port)
        async with served as (bound, at):
            log.info("listening", host=bound, port=at)
            yield state


def _console(
    settings: Settings, backend: ConsoleBackend, until: asyncio.Event
) -> list[web.AbstractRouteDef]:
    if settings.console_token is None:
        return closed_console_routes()
    proxies = None
    if settings.console_user_header is not None:
        proxies = ProxySignIn(
            settings.console_proxies,
            settings.console_user_header,
            settings.console_groups_header,
            settings.console_roles,
        )
    return console_routes(backend, settings.console_token.get_secret_value(), until, proxies)


MAX_BODY_BYTES: Final = 256 * 1024  # a batch of 50 reports takes about 20 KB
SILENT_TIMEOUT_SECONDS: Final = 60.0  # without a first answer: the client sends nothing, or slowly
UNREAD_TIMEOUT_SECONDS: Final = 300.0  # in which a client reads nothing of an answer that waits
SWEEP_INTERVAL_SECONDS: Final = 5.0  # between two searches for such clients
DRAIN_TIMEOUT_SECONDS: Final = 5.0  # for requests that are being answered when the server stops


@asynccontextmanager
async def serving(
    host: str, port: int, routes: Iterable[web.AbstractRouteDef], *, shared_port: bool = False
) -> AsyncIterator[tuple[str, int]]:
    """Serve *routes* on *host*:*port* (0: any free port); give the address that was bound.

    Raises ListenError if the address cannot be bound.
    """
    routes = list(routes)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    app[ADMITTED] = answered = set[RequestHandler]()

    async def note(request: web.Request, _: web.StreamResponse) -> None:
        answered.add(request.protocol)

    app.on_response_prepare.append(note)
    # The routes of reports unpack a body themselves: a wrong label must not cost a report.
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=DRAIN_TIMEOUT_SECONDS, auto_decompress=False
    )
    await runner.setup()
    http = runner.server
    assert http is not None  # noqa: S101 - it was set up
    plain = [route for route in routes if isinstance(route, DirectRoute)]
    direct = DirectServer(plain, http)
    sweeping = asyncio.create_task(_sweep(direct, http, answered))
    try:
        protocol = direct if plain else http
        async with _listening(protocol, host, port, shared_port=shared_port) as bound:
            yield bound
    finally:
        await direct.drain(DRAIN_TIMEOUT_SECONDS)
        sweeping.cancel()
        await runner.cleanup()


@asynccontextmanager
async def _listening(
    protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int, *, shared_port: bool
) -> AsyncIterator[tuple[str, int]]:
    """Accept connections on *host*:*port*; raises ListenError."""
    try:
        server = await asyncio.get_running_loop().create_server(
            protocol, host, port, reuse_port=shared_port or None
        )
    except OSError as error:
        raise ListenError(host, port, error) from error
    try:
        bound: tuple[str, int] = server.sockets[0].getsockname()[:2]
        yield bound
    finally:
        server.close()


class ListenError(Exception):
    """The HTTP server cannot listen on its address; one line that says what to do."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        super().__init__(host, port, error)
        self._at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # asyncio's own text repeats the address; errno has the reason alone.
        if isinstance(error, socket.gaierror):  # its number is none of the system's
            self._why = N_("unknown host name")
        else:
            self._why = os.strerror(error.errno) if error.errno else str(error)

    def __str__(self) -> str:
        """Return the line in the language of who shows it."""
        return _(
            "cannot listen on {at} ({why}): set DISPATCHER_LISTEN to another address, or stop what"
            " uses this one."
        ).format(at=self._at, why=_(self._why).lower())


async def _sweep(direct: DirectServer, http: web.Server, answered: set[RequestHandler]) -> None:
    """Close connections that were never answered: aiohttp waits for a first request for ever.

    Each holds a file descriptor, and a process without free ones accepts no connection. After a
    first answer aiohttp's own time-out applies. A client that the console knows counts as answered.
    A client that reads nothing of its answer holds the answer in memory, and is cut.
    """
    since: dict[RequestHandler, float] = {}
    unread: dict[RequestHandler, tuple[int, float]] = {}  # bytes, and since when not fewer
    while True:
        now = monotonic()
        open_ = set(http.connections)
        answered &= open_
        since = {each: since.get(each, now) for each in open_ - answered}
        for connection, begun in since.items():
            if now - begun > SILENT_TIMEOUT_SECONDS:
                connection.force_close()
        unread = {each: _unread(each, unread.get(each), now) for each in open_}
        for connection, (size, begun) in unread.items():
            if size and now - begun > UNREAD_TIMEOUT_SECONDS and connection.transport is not None:
                connection.transport.abort()
        direct.close_silent(asyncio.get_running_loop().time(), SILENT_TIMEOUT_SECONDS)
        await asyncio.sleep(SWEEP_INTERVAL_SECONDS)


def _unread(
    connection: RequestHandler, before: tuple[int, float] | None, now: float
) -> tuple[int, float]:
    """Return the bytes of an answer that the client has not read, and since when not fewer."""
    transport = connection.transport
    size = transport.get_write_buffer_size() if transport is not None else 0
    return (size, before[1]) if before is not None and size >= before[0] > 0 else (size, now)


Ready = Callable[[], Awaitable[str | None]]  # None: ready; otherwise why not, in one line
Notes = Callable[[], Awaitable[list[str]]]  # what else is to be known, in lines


def health_routes(ready: Ready, notes: Notes) -> list[web.AbstractRouteDef]:
    """Return the routes /healthz (the process answers) and /readyz (it can do its work).

    A paused app is noted, and the process is ready all the same: it still receives reports.
    """

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def is_ready(_: web.Request) -> web.Response:
        why_not = await ready()
        if why_not is None:
            return web.Response(text="\n".join(["ready", *await notes(), ""]))
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
