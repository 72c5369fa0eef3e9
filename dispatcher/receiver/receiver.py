"""Runs the receiver: stores status reports, matches them to messages, orders the feed of events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

import structlog
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace
from pydantic import SecretStr

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.signing import AppKey
from dispatcher.db import events, reports
from dispatcher.db.database import Database, open_database
from dispatcher.db.report_matching import MatchingStep, match
from dispatcher.receiver.intake import AT_ONCE, Intake
from dispatcher.receiver.routes import Counts, ReportRouteConfig, report_routes
from dispatcher.receiver.verification import Signatures
from dispatcher.settings import Settings
from dispatcher.telemetry import ReportMetrics

log = structlog.get_logger(__name__)

SPOOL = "spool"  # folder in the data directory
CONNECTIONS = (
    AT_ONCE + 2
)  # commits of the intake, one step of the matching, one that updates the feed
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
        open_database(
            dsn,
            max_size=CONNECTIONS,
            statement_cache=settings.statement_cache,
            retry_refusals=True,
        ) as database,
        asyncio.TaskGroup() as tasks,
    ):
        matching = tasks.create_task(_reconcile(settings, database, stop, metrics))
        background: list[asyncio.Task[None]] = []
        routes: list[web.AbstractRouteDef] = []
        token = settings.report_path_token
        if listen and token is not None:
            intake = Intake(database, settings.data_dir / SPOOL, metrics)
            counts = Counts()
            background.append(tasks.create_task(intake.run()))
            background.append(tasks.create_task(_count(database, counts)))
            door = _door(settings, intake, token, partial(reports.announce_check, database))
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
    announce: Callable[[str], Awaitable[None]],
) -> ReportRouteConfig:
    assume = {"host": settings.push_host, "connection": settings.push_connection}
    return ReportRouteConfig(
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


async def _count(database: Database, counts: Counts) -> None:
    """Write what was refused into the counters, now and then."""
    while True:
        await asyncio.sleep(COUNT_EVERY)
        refused = counts.refused.copy()
        if not refused:
            continue
        try:
            await reports.count_refused(database, refused)
        except DatabaseUnavailable:
            continue  # they stay in the counts
        counts.refused.subtract(refused)
        counts.refused = +counts.refused
        log.warning("pushes refused", **{kind.replace(" ", "_"): n for kind, n in refused.items()})


async def _reconcile(
    settings: Settings, database: Database, stop: asyncio.Event, metrics: ReportMetrics
) -> None:
    async def named(act: Callable[[], Awaitable[Done]]) -> Done | str:
        try:
            return await act()
        except DatabaseUnavailable as error:
            return str(error)

    async def matched() -> MatchingStep:
        step = await match(database, suppress_blocked=settings.suppress_blocked)
        if step.reports:
            metrics.matched(step.reports, step.unmatched, step.settled, step.waited)
        return step

    steps = Steps(
        match=lambda: named(matched),
        place=lambda: named(partial(events.place, database, notify=settings.notify_events)),
    )
    await run_reconcile(steps, every=MATCH_EVERY, stop=stop)


class Matched(Protocol):
    """What one step of matching has done (see `db.report_matching.MatchingStep`)."""

    @property
    def settled(self) -> int:
        """Messages that were unsure, and are accepted."""

    @property
    def closed(self) -> int:
        """Batches of which nothing is unsure any more."""

    @property
    def unmatched(self) -> int:
        """Reports that belong to no message."""

    @property
    def more(self) -> bool:
        """Whether there is probably more to do at once."""


class Steps(Struct, frozen=True):
    """What a round does; each is safe to repeat, and for many processes at once.

    A string says why it could not be done now.
    """

    match: Callable[[], Awaitable[Matched | str]]
    place: Callable[[], Awaitable[int | str]]  # rows of the feed that got their place


async def run_reconcile(steps: Steps, *, every: float, stop: asyncio.Event) -> None:
    """Do a round every *every* seconds until *stop*, and the next at once while there is more."""
    while not stop.is_set():
        matched = await steps.match()
        placed = matched if isinstance(matched, str) else await steps.place()
        match matched, placed:
            case str() as why, _:
                log.warning("reports wait to be matched: the database is away", why=why)
            case _, str() as why:
                log.warning("events wait for their place: the database is away", why=why)
            case done, int():
                _say(done)
                if done.more:
                    continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()


def _say(done: Matched) -> None:
    if done.settled:
        log.info("messages settled by reports", messages=done.settled, batches_closed=done.closed)
    if done.unmatched:
        log.warning("reports that belong to no message", reports=done.unmatched)
