"""Registers apps and workers, keeps heartbeats, and recovers the batches of dead workers."""

import asyncio
from collections.abc import Awaitable, Callable, Container, MutableMapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

import asyncpg
from msgspec import Struct

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.db.database import (
    TRANSACTION_TIMEOUT_SECONDS,
    Connection,
    Database,
    OwnConnection,
)
from dispatcher.db.dsn import read_address
from dispatcher.db.errors import CONNECT_ERRORS, UNAVAILABLE_ERRORS
from dispatcher.db.last_heartbeat import LastHeartbeat
from dispatcher.db.queries import sql


async def ping(database: Database) -> None:
    """Return if the database answers and accepts writes; raises DatabaseUnavailable otherwise."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("ping"))
        if row is None or row["read_only"]:
            raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")
        if row["commits_wait"]:
            raise DatabaseUnavailable(
                f"Commits at PostgreSQL at {read_address(database.dsn)} wait for a synchronous"
                " standby (wait_event SyncRep): bring it back, or take it out of"
                " synchronous_standby_names."
            )


async def connection_limit(database: Database) -> int | None:
    """Return how many connections this role, or all to this database, may have; None: no limit."""
    async with database.acquire() as connection:
        limit: int | None = await connection.fetchval(sql("connection_limit"))
    return limit


async def register_app(
    database: Database,
    name: str,
    *,
    numbers_per_second: float | None,
    on_unsure: str,
    resend_after: float,
    max_attempts: int | None = None,
    sender: str | None = None,
    promotional: bool = False,
    billing: str | None = None,
) -> None:
    """Make or refresh the run-time row of a configured app; times in seconds."""
    async with database.transaction() as connection:
        await connection.execute(
            sql("register_app"),
            name,
            numbers_per_second,
            on_unsure,
            resend_after,
            max_attempts,
            sender,
            promotional,
            billing,
        )


class Heartbeat(Struct, frozen=True):
    """What a heartbeat found."""

    # Seconds since the last one; None: the worker has no row any more. They are the database's:
    # the clock of a worker stands still while its machine is suspended.
    silence: float | None
    at: float | None  # when it was, by the database's clock, in seconds since 1970
    started: float | None  # when its row was written, the same
    paused: list[str]  # apps that were paused, because the database went back in time
    why: str


SET_BACK_SECONDS: Final = 1.0  # of the database's clock, from which on messages may wait for it
CLOCK_WAITS_TIMEOUT_SECONDS: Final = 30.0  # a queue may hold millions of dead rows
# An asynchronous standby lacks less when it is promoted.
WENT_BACK_SECONDS: Final = 60.0
# Since the last heartbeat, until waiting messages are taken for those of a restored backup.
RESTORED_AFTER_SECONDS: Final = 3600.0
RESTORED_AFTER_STOP_SECONDS: Final = 86_400.0  # if that worker stopped in good order
# To read the whole queue after a restore: tens of millions of rows, from disk. No worker that has
# seen the restore claims meanwhile.
READ_QUEUE_SECONDS: Final = 60.0


LOAD_ENDED: Final = (
    "The database may have been restored while this list was loaded: what is left of it may have"
    " been loaded before. Load it again only if it was not."
)


class WentBackError(Exception):
    """The database has gone back in time; the heartbeat that found it was not written."""


async def pause_after_restore(
    database: Database, last: LastHeartbeat | None = None
) -> tuple[list[str], str]:
    """Pause the apps whose queue looks like that of a restored backup; return them, and why.

    A backup has the messages that waited when it was made. They may have been sent since, and a
    worker that is started on it would send them again. Either the database lacks the *last*
    heartbeat of the worker before this one. Or its newest heartbeat lies far back, and messages
    wait since before then.
    """
    this_database = await database_id(database)  # a frozen one ends the start here, and soon
    looks: list[float | None] = [None]
    if last is not None and this_database == last.database:
        async with database.transaction() as connection:
            if await _went_back(connection, last.worker, last.started, last.at):
                looks = [last.at, None]
    for last_at in looks:
        absence = await _end_what_is_old(database, last_at)
        if absence is not None:
            async with database.transaction(seconds=READ_QUEUE_SECONDS) as connection:
                paused, why = await _pause_old_queue(connection, absence)
            if paused:
                return paused, why
    return [], ""


async def _went_back(
    connection: Connection, worker: int, started: float | None, last_at: float
) -> bool:
    """Tell whether the database lacks more than a minute of heartbeats before *last_at*."""
    before: float | None = await connection.fetchval(
        sql("newest_heartbeat"), worker, started, last_at
    )
    return before is None or before < last_at - WENT_BACK_SECONDS


class Absence(NamedTuple):
    """A time of which the database may lack what workers wrote."""

    at: datetime  # when one was last here
    sent_until: datetime
    is_known: bool  # it does: a worker was here that it does not know of


async def _end_what_is_old(database: Database, last_at: float | None) -> Absence | None:
    """End what would go on from before *last_at*, and tell if something may be missing since then.

    Actions on many messages and loads of lists that were under way are ended: they would queue what
    was sent meanwhile. Requests of before then, whose answers and reports the backup may lack, are
    never sent again by the policy resend. All that is committed before the queue is read, which
    would miss what it adds meanwhile.

    *last_at* is when this worker was here, in seconds since 1970. None: when a worker was last
    here, if that is long ago. That may have been an outage; then these requests wait for an
    operator too, for the two look the same.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            sql("last_seen"), RESTORED_AFTER_SECONDS, RESTORED_AFTER_STOP_SECONDS, last_at
        )
        if row is None:
            return None
        until = row["sent_until"]
        await connection.execute(sql("end_old_actions"), until, "dispatcher run")
        await connection.execute(sql("end_old_loads"), until, LOAD_ENDED, "dispatcher run")
        await connection.execute(sql("hold_restored_requests"), until)
    return Absence(row["at"], until, last_at is not None)


async def _pause_old_queue(connection: Connection, absence: Absence) -> tuple[list[str], str]:
    """Pause apps with messages from before *absence*; return them, and why."""
    rows = await connection.fetch(
        sql("apps_of_old_queue"), absence.sent_until, absence.at if absence.is_known else None
    )
    shown = f"{absence.at:%Y-%m-%d %H:%M} UTC"
    said = (
        f"This is a restored backup: what workers wrote until {shown} is missing"
        if absence.is_known
        else f"This may be a restored backup: no worker was here since {shown}"
    )
    why = (
        f"{said}, and messages wait since before then. They may have been sent after the backup"
        " was made: cancel those, then resume."
    )
    apps = [row["app"] for row in rows]
    for app in apps:
        await connection.execute(sql("pause"), app, why, "dispatcher run")
    return apps, why if apps else ""


class Registration(NamedTuple):
    """A worker, as the database knows it."""

    id: int  # new at each start; a restored database may give it again
    started: float  # when its row was written, seconds since 1970 by the database's clock


async def register_worker(
    database: Database, *, host: str, pid: int, version: str, apps: list[str], lease: float
) -> Registration:
    """Register a worker; its row counts as its first heartbeat."""
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("register_worker"), host, pid, version, apps, lease)
    [row] = rows
    return Registration(row["id"], row["started"])


async def database_id(database: Database) -> str:
    """Return the identity of the database, which it shares with its standbys and copies."""
    async with database.transaction() as connection:
        return str(await connection.fetchval(sql("database_id")))


class ExpiryCursor(NamedTuple):
    """The last message that was looked at: when it expires, and its id."""

    expires_at: datetime | None = None
    message: int = 0


async def expire(
    database: Database, after: ExpiryCursor | None = None
) -> tuple[int, ExpiryCursor | None]:
    """Expire messages that wait although their time is over, *after* what was looked at.

    Return how many, and from where to go on if there may be more.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("expire"), *(after or ExpiryCursor()))
    [(expired, last, last_id)] = rows
    return expired, ExpiryCursor(last, last_id) if last is not None else None


async def heartbeat(
    database: Database,
    worker: int,
    *,
    cut_off: Sequence[str] = (),
    failing: Sequence[str] = (),
    last_at: float | None = None,
    started: float | None = None,
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> Heartbeat:
    """Renew the lease of a worker.

    *cut_off*: the apps for which its host cannot send. *failing*: a line for each of its parts that
    fails. *last_at*: when its last heartbeat was, and *started*, when its row was written. If the
    database has lost more than a minute of heartbeats since, it has gone back in time: what waits
    in it may have been sent, and is paused. That may take READ_QUEUE_SECONDS instead of *seconds*,
    and longer than the lease: this worker claims nothing meanwhile.
    """
    beat = partial(_heartbeat, database, worker, cut_off, failing, last_at=last_at, started=started)
    try:
        return await beat(seconds=seconds)
    except WentBackError:
        absence = await _end_what_is_old(database, last_at)
        return await beat(seconds=READ_QUEUE_SECONDS, absence=absence)


async def _heartbeat(
    database: Database,
    worker: int,
    cut_off: Sequence[str],
    failing: Sequence[str],
    *,
    last_at: float | None,
    started: float | None,
    seconds: float,
    absence: Absence | None = None,
) -> Heartbeat:
    async with database.transaction(seconds=seconds) as connection:
        row = await connection.fetchrow(sql("heartbeat"), worker, cut_off, failing, started)
        paused: list[str] = []
        why = ""
        if last_at is not None and (
            row["before"] < last_at - WENT_BACK_SECONDS
            if row
            else await _went_back(connection, worker, started, last_at)
        ):
            if absence is None:
                raise WentBackError
            paused, why = await _pause_old_queue(connection, absence)
    if row is None:
        return Heartbeat(None, None, None, paused, why)
    return Heartbeat(row["silence"], row["at"], row["started"], paused, why)


async def end_clock_waits(database: Database, after: int) -> tuple[int, int | None]:
    """End what waits by a clock that was ahead, in one step from the id *after* on.

    Returns how many rows, and the last id looked at; None: there are no more.
    """
    async with database.transaction(seconds=CLOCK_WAITS_TIMEOUT_SECONDS) as connection:
        row = await connection.fetchrow(sql("end_clock_waits"), after)
    return (row["ended"], row["last"]) if row else (0, None)


async def worker_stopped(database: Database, worker: int, started: float | None = None) -> None:
    """Mark the worker as stopped; its open batches can then be rescued at once.

    *started* is when its row was written: in a restored database another worker may have its id.
    """
    async with database.transaction() as connection:
        await connection.execute(sql("worker_stopped"), worker, started)


async def heartbeats_ahead(database: Database) -> dict[int, tuple[float, float]]:
    """Return when the last heartbeat of workers was, where that lies ahead, and their leases.

    Both in seconds. The clock of the database was set back since.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("heartbeats_ahead"))
    return {row["id"]: (row["at"], row["lease"]) for row in rows}


async def rescue(database: Database, worker: int, dead: Sequence[int] = ()) -> tuple[int, int]:
    """Mark the open batches of dead workers unsure; return how many batches and messages.

    *dead* are further ones, whose last heartbeat lies ahead.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("rescue"), worker, dead)
    return (row["batches"], row["messages"]) if row else (0, 0)


async def has_silent(database: Database, *, margin: float = 0.0) -> bool:
    """Tell whether `resend_unsure` would find batches."""
    async with database.transaction() as connection:
        return bool(await connection.fetch(sql("lock_silent"), margin))


async def resend_unsure(database: Database, worker: int, *, margin: float = 0.0) -> tuple[int, int]:
    """Return unsure batches to the queue where the policy `resend` allows it; return how many.

    Each must be silent for *margin* seconds more than the policy says.
    """
    async with database.transaction() as connection:
        silent = [row["id"] for row in await connection.fetch(sql("lock_silent"), margin)]
        if not silent:
            return (0, 0)
        row = await connection.fetchrow(sql("resend_unsure"), worker, silent)
    return (row["batches"], row["messages"]) if row else (0, 0)


async def release_unsent(
    database: Database,
    worker: int,
    in_flight: Container[str],
    unconfirmed: MutableMapping[str, None],
    started: float | None = None,
) -> tuple[int, int]:
    """Return to the queue what a worker has open and never sent; return batches and messages.

    *started* is when its row was written: in a restored database another worker may have its id.

    *in_flight* are the tokens of the worker's batches that are not finished, *unconfirmed* those
    that a failed call may have written; both may change meanwhile. One that was found is taken out:
    in a database that is restored later its batch is open again, and another may have sent its
    messages. A token is in *in_flight* before its batch is written. An open batch that is in
    neither has finished: the database has lost the record of its result, as a standby may that is
    promoted. It may have been sent, and becomes unsure.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("open_of_worker"), worker, started)
        unknown = [row for row in rows if row["token"] not in in_flight]
        if not unknown:
            return (0, 0)
        found = {row["token"]: row["id"] for row in unknown if row["token"] in unconfirmed}
        lost = [row["id"] for row in unknown if row["token"] not in unconfirmed]
        if lost:
            await connection.execute(sql("disown"), worker, lost)
        row = await connection.fetchrow(sql("abandon"), worker, list(found.values()))
    for token in found:
        unconfirmed.pop(token, None)
    return (row["batches"], row["messages"]) if row else (0, 0)


URGENT_CHANNEL: Final = "dispatcher_urgent"
CHECK_INTERVAL_SECONDS: Final = 15.0  # between checks that the connection is alive
RECONNECT_SECONDS: Final = 1.0  # until the next try to connect


async def listen_urgent(
    connect: Callable[[], Awaitable[OwnConnection]], urgent: Callable[[str], None]
) -> None:
    """Call *urgent* with the app of each notification, for ever; reconnect when needed.

    Polling finds the same messages, a little later.
    """
    while True:
        try:
            connection = await connect()
        except CONNECT_ERRORS:
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        lost = asyncio.Event()

        def notified(_: object, __: int, ___: str, app: object) -> None:
            urgent(str(app))

        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(URGENT_CHANNEL, notified)
            while not lost.is_set():
                try:
                    async with asyncio.timeout(CHECK_INTERVAL_SECONDS):
                        await lost.wait()
                except TimeoutError:
                    # A host that vanished does not close its connections.
                    await connection.execute("SELECT 1", timeout=CHECK_INTERVAL_SECONDS)
        except UNAVAILABLE_ERRORS:
            await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            connection.terminate()
