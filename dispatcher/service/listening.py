"""What this service listens for, put together: health, metrics, the console."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import structlog
from aiohttp import web

from dispatcher import spool
from dispatcher.core.belonging import Backlog
from dispatcher.db.pool import Pool, pooled
from dispatcher.db.reports import backlog
from dispatcher.metrics import Metrics, State
from dispatcher.service.answers import KIND as ANSWERS
from dispatcher.service.desk import Looks, made_desk
from dispatcher.service.glance import Glance
from dispatcher.service.receiver import SPOOL
from dispatcher.settings import Settings
from dispatcher.web.console import Desk, closed_console_routes, console_routes
from dispatcher.web.health import health_routes
from dispatcher.web.intake import KIND as REPORTS
from dispatcher.web.metrics import metrics_routes
from dispatcher.web.server import serving

log = structlog.get_logger(__name__)

DESK_CONNECTIONS = 3  # for operators and machines that look: never those that work
FRESH = 5.0  # seconds that a figure of /metrics may be old


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
        dsn, min_size=0, max_size=DESK_CONNECTIONS, statement_cache=settings.statement_cache
    ) as pool:
        state.watch("desk", pool)
        # A receiver that stands alone need not know its own address.
        told = settings.callback_url is not None or settings.report_path_token is not None
        looks = Looks(pool, dsn=dsn, reports=told)
        waiting = Glance(partial(_backlog, pool), dsn=dsn)
        for kind in (ANSWERS, REPORTS):
            state.watch_spool(kind, partial(spool.size, settings.data_dir / SPOOL, kind))

        async def refresh() -> None:
            seen = await looks.now(FRESH)
            backlog = await waiting.look(FRESH)
            state.show(
                None if isinstance(seen, str) else seen,
                None if isinstance(backlog, str) else backlog,
            )

        routes = [*health_routes(ready), *metrics_routes(metrics.registry, refresh), *routes]
        if until is not None:
            routes += _console(settings, made_desk(pool, looks, dsn=dsn), until)
        host, port = settings.listen.rsplit(":", 1)
        async with serving(host.strip("[]"), int(port), routes) as (bound, at):
            log.info("listening", host=bound, port=at)
            yield state


async def _backlog(pool: Pool) -> Backlog:
    async with pool.acquire() as connection:
        return await backlog(connection)


def _console(settings: Settings, desk: Desk, until: asyncio.Event) -> list[web.AbstractRouteDef]:
    if settings.console_token is None:
        return closed_console_routes()
    return console_routes(desk, settings.console_token.get_secret_value(), until)
