"""Runs the receiver: stores status reports, matches them to messages, and orders events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog
from aiohttp import web

from dispatcher.core.signing import AppKey
from dispatcher.db import events, reports
from dispatcher.db.database import Database, open_database
from dispatcher.db.loop import FailingParts, StoppingTaskGroup, attempt, run_every
from dispatcher.db.report_matching import MatchingStep, match
from dispatcher.receiver.intake import MAX_COMMITS, Intake
from dispatcher.receiver.routes import ReportRoutes
from dispatcher.receiver.verification import Signatures
from dispatcher.settings import Settings
from dispatcher.telemetry import ReportMetrics

log = structlog.get_logger(__name__)

SPOOL: Final = "spool"  # folder in the data directory
# The commits of the intake, one step of matching, one that orders events.
NOT_VERIFIED: Final = "neither __PUSH_KEY nor DISPATCHER_REPORT_NETWORKS is set"
MAX_CONNECTIONS: Final = MAX_COMMITS + 2
COUNT_INTERVAL_SECONDS: Final = 10.0  # between two writes of what was refused
MATCH_INTERVAL_SECONDS: Final = 0.5  # also how late an event is in the event log


@asynccontextmanager
async def receiving(
    settings: Settings,
    dsn: str,
    stop: asyncio.Event,
    *,
    listen: bool = True,
    metrics: ReportMetrics | None = None,
    failing: FailingParts | None = None,
) -> AsyncIterator[list[web.AbstractRouteDef]]:
    """Match reports until *stop*; with *listen*, and a path token, also accept them.

    Give the routes to serve. Stop serving them before this ends, so that each report that they
    accepted is stored. The database may be unavailable at any time, at the start too. An error of
    a part sets *stop*, and is raised when this ends.
    """
    metrics = metrics or ReportMetrics()
    async with (
        open_database(
            dsn,
            max_size=MAX_CONNECTIONS,
            statement_cache=settings.statement_cache,
            retry_refusals=True,
        ) as database,
        StoppingTaskGroup(stop) as tasks,
    ):
        matching = tasks.create_task(_run_matching(settings, database, stop, metrics, failing))
        background: list[asyncio.Task[None]] = []
        routes: list[web.AbstractRouteDef] = []
        token = settings.report_path_token
        if listen and token is not None:
            verified = are_verified(settings)
            if not verified and len(settings.apps) > 1:
                log.warning("a reply whose app is not known stops no promotion", why=NOT_VERIFIED)
            intake = Intake(database, settings.data_dir / SPOOL, metrics, verified=verified)
            served = _report_routes(settings, token.get_secret_value(), database, intake, metrics)
            routes = served.routes()
            background.append(tasks.create_task(intake.run()))
            background.append(tasks.create_task(_run_counting(database, served, stop)))
        try:
            yield routes
        finally:
            stop.set()
            await asyncio.wait([matching])
            for task in background:
                task.cancel()


def _report_routes(
    settings: Settings,
    path_token: str,
    database: Database,
    intake: Intake,
    metrics: ReportMetrics,
) -> ReportRoutes:
    assume = {"host": settings.push_host, "connection": settings.push_connection}
    return ReportRoutes(
        path_token,
        database=database,
        intake=intake,
        signatures=Signatures(
            push_keys(settings),
            lambda: datetime.now(UTC),
            {name: value for name, value in assume.items() if value is not None},
            settings.callback_url,
        ),
        networks=settings.report_networks,
        trusted_proxies=settings.trusted_proxies,
        unsubscribe_words=settings.unsubscribe_words,
        apps=settings.apps,
        metrics=metrics,
    )


def are_verified(settings: Settings) -> bool:
    """Return whether only pushes are taken that are signed, or from an allowed network."""
    return bool(settings.report_networks or push_keys(settings))


def push_keys(settings: Settings) -> list[AppKey]:
    """Return the key pairs that pushes may be signed with; none: pushes are not verified."""
    pairs = [
        pair
        for app in settings.apps.values()
        for pair in ((app.push_key, app.push_secret), (app.push_key_2, app.push_secret_2))
    ]
    return [AppKey(key, secret.get_secret_value()) for key, secret in pairs if key and secret]


async def _run_counting(database: Database, routes: ReportRoutes, stop: asyncio.Event) -> None:
    """Add what was refused to the counters, every COUNT_INTERVAL_SECONDS seconds."""

    async def count() -> None:
        refused = routes.refused.copy()
        if not refused:
            return
        await reports.count_refused(database, refused)
        routes.refused.subtract(refused)
        routes.refused = +routes.refused
        log.warning("pushes refused", **{kind.replace(" ", "_"): n for kind, n in refused.items()})

    await run_every(
        COUNT_INTERVAL_SECONDS,
        stop,
        count,
        unavailable="refused pushes wait to be counted: the database is away",
    )


async def _run_matching(
    settings: Settings,
    database: Database,
    stop: asyncio.Event,
    metrics: ReportMetrics,
    failing: FailingParts | None,
) -> None:
    """Match reports to messages, and give events their positions, until *stop*.

    Both steps are safe to repeat, and for many processes at once. Events get their positions
    whatever the matching meets.
    """

    async def match_once() -> bool:
        step = await match(database, suppress_blocked=settings.suppress_blocked)
        if step.reports:
            metrics.matched(step.reports, step.unmatched, step.settled, step.waited)
        _log(step)
        return step.more

    async def match_and_place() -> bool:
        more = await attempt(
            match_once,
            unavailable="reports wait: the database is away",
            part="reports",
            failing=failing,
        )
        await events.place(database, notify=settings.notify_events)
        return bool(more)

    await run_every(
        MATCH_INTERVAL_SECONDS,
        stop,
        match_and_place,
        unavailable="events wait: the database is away",
        part="events",
        failing=failing,
    )


def _log(step: MatchingStep) -> None:
    if step.settled:
        log.info("messages settled by reports", messages=step.settled, batches_closed=step.closed)
    if step.unmatched:
        log.warning("reports that belong to no message", reports=step.unmatched)
