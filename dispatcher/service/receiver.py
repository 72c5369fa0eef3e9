"""Status reports in one process: taken in, kept, matched; and the feed of events put in order."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog
from aiohttp import web
from msgspec.structs import replace
from pydantic import SecretStr

from dispatcher.core.signing import AppKey
from dispatcher.db import feed, reports
from dispatcher.db.errors import DatabaseAwayError, naming_absence
from dispatcher.db.matching import Step, match
from dispatcher.db.pool import Pool, pooled
from dispatcher.metrics import ReportMetrics
from dispatcher.reconcile import Steps, run_reconcile
from dispatcher.settings import Settings
from dispatcher.web.intake import AT_ONCE, Arrived, Away, Intake, Unfit
from dispatcher.web.push import Signatures
from dispatcher.web.reports import Counts, Door, report_routes

log = structlog.get_logger(__name__)

SPOOL = "spool"  # folder in the data directory
CONNECTIONS = AT_ONCE + 2  # commits of the intake, one step of the matching, one that tells
COUNT_EVERY = 10.0  # seconds between two writings of what was refused
MATCH_EVERY = 0.5  # seconds; also how late an event is in the feed

Done = TypeVar("Done")


@asynccontextmanager
async def receiving(
    settings: Settings,
    dsn: str,
    stop: asyncio.Event,
    *,
    listen: bool = True,
    metrics: ReportMetrics | None = None,
) -> AsyncIterator[list[web.AbstractRouteDef]]:
    """Match reports until *stop*; with *listen*, and a path token, also take them in.

    Give the routes to serve. They must be gone before this ends: what they have taken is then
    still kept. The database may be away at any time, at the start too.
    """
    metrics = metrics or ReportMetrics()
    async with (
        pooled(
            dsn, min_size=0, max_size=CONNECTIONS, statement_cache=settings.statement_cache
        ) as pool,
        asyncio.TaskGroup() as tasks,
    ):
        matching = tasks.create_task(_reconcile(settings, dsn, pool, stop, metrics))
        background: list[asyncio.Task[None]] = []
        routes: list[web.AbstractRouteDef] = []
        token = settings.report_path_token
        if listen and token is not None:
            intake = Intake(partial(_store, pool, dsn), settings.data_dir / SPOOL, metrics)
            counts = Counts()
            background.append(tasks.create_task(intake.run()))
            background.append(tasks.create_task(_count(pool, dsn, counts)))
            door = _door(settings, intake, token, partial(_announce, pool, dsn))
            routes = report_routes(replace(door, metrics=metrics), counts)
        try:
            yield routes
        finally:
            stop.set()
            await asyncio.wait([matching])
            for task in background:
                task.cancel()


def _door(
    settings: Settings,
    intake: Intake,
    token: SecretStr,
    announce: Callable[[str], Awaitable[str | None]],
) -> Door:
    assume = {"host": settings.push_host, "connection": settings.push_connection}
    return Door(
        path_token=token.get_secret_value(),
        intake=intake,
        signatures=Signatures(
            push_keys(settings),
            lambda: datetime.now(UTC),
            {name: value for name, value in assume.items() if value is not None},
            settings.callback_url,
        ),
        announce=announce,
        networks=settings.report_networks,
        trusted_proxies=settings.trusted_proxies,
    )


def push_keys(settings: Settings) -> list[AppKey]:
    """Return the key pairs that pushes may be signed with; none: pushes are not verified."""
    pairs = [
        pair
        for app in settings.apps.values()
        for pair in ((app.push_key, app.push_secret), (app.push_key_2, app.push_secret_2))
    ]
    return [AppKey(key, secret.get_secret_value()) for key, secret in pairs if key and secret]


async def _store(pool: Pool, dsn: str, arrived: Sequence[Arrived]) -> Away | Unfit | int:
    now = time.time()
    try:
        with reports.naming_trouble(dsn):
            aged = [(one.report, max(0.0, now - one.at)) for one in arrived]
            return await reports.store(pool, aged)
    except DatabaseAwayError as error:
        return Away(str(error))
    except reports.UnfitError as error:
        return Unfit(str(error))


async def _announce(pool: Pool, dsn: str, word: str) -> str | None:
    try:
        with reports.naming_trouble(dsn):
            await reports.announce_check(pool, word)
    except (DatabaseAwayError, reports.UnfitError):
        return "The database is away; reports go to disk meanwhile."
    return None


async def _count(pool: Pool, dsn: str, counts: Counts) -> None:
    """Write what was refused into the counters, now and then."""
    while True:
        await asyncio.sleep(COUNT_EVERY)
        refused = counts.refused.copy()
        if not refused:
            continue
        try:
            with naming_absence(dsn):
                await reports.count_refused(pool, refused)
        except DatabaseAwayError:
            continue  # they stay in the counts
        counts.refused.subtract(refused)
        counts.refused = +counts.refused
        log.warning("pushes refused", **{kind.replace(" ", "_"): n for kind, n in refused.items()})


async def _reconcile(
    settings: Settings, dsn: str, pool: Pool, stop: asyncio.Event, metrics: ReportMetrics
) -> None:
    async def named(act: Callable[[], Awaitable[Done]]) -> Done | str:
        try:
            with reports.naming_trouble(dsn):
                return await act()
        except (DatabaseAwayError, reports.UnfitError) as error:
            return str(error)

    async def matched() -> Step:
        step = await match(pool, suppress_blocked=settings.suppress_blocked)
        if step.reports:
            metrics.matched(step.reports, step.unmatched, step.settled, step.waited)
        return step

    steps = Steps(
        match=lambda: named(matched),
        place=lambda: named(partial(feed.place, pool, notify=settings.notify_events)),
    )
    await run_reconcile(steps, every=MATCH_EVERY, stop=stop)
