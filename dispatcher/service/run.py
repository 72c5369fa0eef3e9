"""Starts a worker on its database, and stops it on a signal."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from functools import partial
from typing import Final, Literal

import structlog

from dispatcher import __version__
from dispatcher.core.errors import DatabaseUnavailable, StatementRefused
from dispatcher.db import workers
from dispatcher.db.database import Database, open_database
from dispatcher.db.dsn import address, direct_address
from dispatcher.db.errors import UNAVAILABLE_ERRORS, as_unavailable
from dispatcher.db.last_heartbeat import read_last_heartbeat
from dispatcher.db.loop import FailingParts, attempt, wait_for_event
from dispatcher.db.migrate import migrate
from dispatcher.db.reports import register_statuses
from dispatcher.db.spool import why_unwritable
from dispatcher.postgres.server import embedded_server
from dispatcher.receiver.receiver import MAX_CONNECTIONS as RECEIVER_CONNECTIONS
from dispatcher.receiver.receiver import SPOOL, receiving
from dispatcher.service.http import CONSOLE_CONNECTIONS, listening
from dispatcher.settings import Settings
from dispatcher.telemetry import Metrics, State
from dispatcher.telemetry.traces import Trace, missing, tracing
from dispatcher.worker.worker import Worker

GC_THRESHOLD_OBJECTS: Final = 50_000  # made since the last collection; by default 700


def collect_rarely() -> None:
    """Collect cyclic garbage rarely, and never the objects that exist at the start.

    Rows, entries and answers are made and freed by the thousand and are in no cycle: to search
    them again and again took an eighth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 20, 100)


log = structlog.get_logger(__name__)

VITAL_CONNECTIONS: Final = 2  # for heartbeat and recovery, which must not wait for claims
MAX_CONNECTIONS: Final = 20
OTHER_CONNECTIONS: Final = 2  # LISTEN, maintenance
RETRY_SECONDS: Final = 0.5  # until a database that is unavailable is tried again

PREPARE_RETRY_SECONDS: Final = 2.0  # until a receiver tries again to migrate

REPORTS_END_SECONDS: Final = 72 * 3600.0  # after a request; the provider sends no report later

Only = Literal["worker", "reports"]


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """Give the address of the configured database, or of an embedded one started for as long."""
    if settings.database_url is not None:
        yield address(settings.database_url, settings.database_url_file)
    else:
        with embedded_server(settings.data_dir) as dsn:
            log.info("embedded PostgreSQL started", data_dir=str(settings.data_dir))
            yield dsn


async def run(
    settings: Settings, dsn: str, *, only: Only | None = None, shared_port: bool = False
) -> None:
    """Migrate, then work until SIGTERM or SIGINT; return when everything is written.

    What only receives does not wait for the migration: it listens at once.

    *only* leaves out the other parts: `reports` receives status reports and sends nothing,
    `worker` sends, and has the console: it takes no reports. With *shared_port* other processes
    listen on the same port (see `service.receivers`).

    An error of any part stops it in the same order as a signal, and is raised at the end: what is
    on its way is finished, and its results are recorded or kept on disk.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if only != "reports":
        await _unless(stop, _prepare(settings, dsn))
    if stop.is_set():
        return
    failing = FailingParts()
    async with AsyncExitStack() as stack:
        vital = await stack.enter_async_context(
            open_database(
                dsn,
                max_size=VITAL_CONNECTIONS,
                statement_cache=settings.statement_cache,
                retry_refusals=True,
            )
        )
        metrics = Metrics(together=shared_port)
        routes = await stack.enter_async_context(
            receiving(
                settings,
                dsn,
                stop,
                listen=only != "worker",
                metrics=metrics.reports,
                failing=failing,
            )
        )
        ready = partial(_why_not_ready, vital, stop)
        state = await stack.enter_async_context(
            listening(
                settings,
                dsn,
                metrics=metrics,
                ready=ready,
                routes=routes,
                until=stop if only != "reports" else None,
                shared_port=shared_port,
            )
        )
        state.watch("vital", vital.pool)
        if only == "reports":
            await _prepare_meanwhile(settings, dsn, stop)
            await stop.wait()
        else:
            await _work(settings, vital, stop, metrics=metrics, state=state, failing=failing)


async def _prepare(settings: Settings, dsn: str) -> None:
    """Migrate, and write what the statuses of reports mean."""
    try:
        await migrate(
            direct_address(settings) or dsn,
            warn=lambda line: log.warning("migration", why=line),
            on_wait=lambda: log.info("waiting for another process that migrates the database"),
        )
    except UNAVAILABLE_ERRORS as error:
        raise as_unavailable(error, dsn) from error
    async with open_database(dsn, max_size=1, statement_cache=settings.statement_cache) as database:
        await register_statuses(database)


async def _prepare_meanwhile(settings: Settings, dsn: str, stop: asyncio.Event) -> None:
    """Do the same while reports arrive already, however long it takes, or until *stop*.

    The provider never repeats a report. So a receiver listens first, and keeps reports on disk
    while the database is unavailable, or its tables are not yet those of this release.
    """

    async def prepare() -> bool:
        await _prepare(settings, dsn)
        return True

    async def prepare_until_done() -> None:
        while True:
            if await attempt(prepare, unavailable="not migrated: the database is away"):
                return
            await asyncio.sleep(PREPARE_RETRY_SECONDS)

    await _unless(stop, prepare_until_done())


async def _why_not_ready(vital: Database, stop: asyncio.Event) -> str | None:
    """Return why this service cannot do its work now, or None if it can."""
    if stop.is_set():
        return "stopping"
    try:
        await workers.ping(vital)
    except DatabaseUnavailable as error:
        return str(error)
    return None


async def _work(
    settings: Settings,
    vital: Database,
    stop: asyncio.Event,
    *,
    metrics: Metrics,
    state: State,
    failing: FailingParts,
) -> None:
    size = min(2 + 2 * len(settings.apps), MAX_CONNECTIONS)
    async with open_database(
        vital.dsn, max_size=size, statement_cache=settings.statement_cache
    ) as database:
        state.watch("work", database.pool)
        registration = await _register(settings, vital, stop)
        if registration is None:
            return
        await _look_ahead(settings, vital, failing)
        log.info("worker started", worker=registration.id, apps=list(settings.apps))
        with _tracing(settings) as trace:
            one = Worker(
                settings,
                database=database,
                vital=vital,
                registration=registration,
                stop=stop,
                metrics=metrics,
                failing=failing,
                trace=trace,
            )
            await _unless(stop, one.recorder.replay_spool())
            await one.work()
    log.info("worker stopped", worker=registration.id)


def connections_needed(settings: Settings) -> int:
    """Return how many connections a service with *settings* has at most."""
    claims = min(2 + 2 * len(settings.apps), MAX_CONNECTIONS)
    return (
        VITAL_CONNECTIONS + claims + CONSOLE_CONNECTIONS + RECEIVER_CONNECTIONS + OTHER_CONNECTIONS
    )


def explain_limit(limit: int, needed: int) -> str | None:
    """Return what is wrong with a *limit* of connections; None if it is enough."""
    if limit >= needed:
        return None
    return (
        f"This user or database may have {limit} connections (CONNECTION LIMIT), and a worker with"
        f" these settings uses up to {needed}: raise it with ALTER ROLE or ALTER DATABASE."
    )


async def _look_ahead(settings: Settings, vital: Database, failing: FailingParts) -> None:
    """Say at the start what will fail later: a spool that cannot be written, few connections."""
    if why := why_unwritable(settings.data_dir / SPOOL):
        failing["spool"] = why
    limit = await attempt(
        partial(workers.connection_limit, vital), unavailable="limits unknown: the database is away"
    )
    if limit is not None and (short := explain_limit(limit, connections_needed(settings))):
        failing["connections"] = short
    for part, why in failing.items():
        log.error("this will fail", part=part, why=why)


def _tracing(settings: Settings) -> AbstractContextManager[Trace | None]:
    """Return what traces requests, or nothing: as the environment and the installation have it."""
    if not settings.traces:
        return nullcontext()
    if missing():
        log.warning(
            "no traces: pip install '.[otel]', in a clone of the release, brings what sends them"
        )
        return nullcontext()
    return tracing()


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do *work*, which may wait for the database for ever, but cut it off at *stop*."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
    if not working.cancelled():
        working.result()  # raises the error of *work*


async def _register(
    settings: Settings, vital: Database, stop: asyncio.Event
) -> workers.Registration | None:
    """Register the apps and this worker; return None if *stop* is set before.

    The migration has just succeeded, so an unavailable database is tried again. An id that was
    given to a failed call stays unused.
    """
    for name, app in settings.apps.items():
        if app.on_unsure == "resend" and app.resend_after < REPORTS_END_SECONDS:
            log.warning(
                "messages may be sent twice: a report can come until 72 h after the request",
                app=name,
                setting=f"DISPATCHER_APPS__{name.upper()}__RESEND_AFTER",
            )

    last = read_last_heartbeat(settings.data_dir)

    async def register() -> workers.Registration:
        apps, why = await workers.pause_after_restore(vital, last)
        if apps:
            log.warning("started paused", apps=apps, why=why)
        for name, app in settings.apps.items():
            await workers.register_app(
                vital,
                name,
                numbers_per_second=app.numbers_per_second,
                on_unsure=app.on_unsure,
                resend_after=app.resend_after,
                max_attempts=app.max_attempts,
                sender=app.sender,
                promotional=app.promotional,
                billing=app.billing,
            )
        return await workers.register_worker(
            vital,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            apps=list(settings.apps),
            lease=settings.lease,
        )

    while not stop.is_set():
        try:
            return await register()
        except StatementRefused:
            raise
        except DatabaseUnavailable as error:
            log.warning("no start: the database is away", why=str(error))
        await wait_for_event(stop, RETRY_SECONDS)
    return None
