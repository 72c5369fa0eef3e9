"""Who works: apps and workers announce themselves, workers beat, the dead are noticed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import asyncpg

from dispatcher.db.database import TRANSACTION_TIMEOUT_SECONDS, Database, OwnConnection
from dispatcher.db.errors import AWAY
from dispatcher.db.queries import sql


async def ping(database: Database) -> None:
    """Return if the database answers and accepts writes; raises DatabaseUnavailable otherwise."""
    async with database.transaction() as connection:
        if await connection.fetchval(sql("ping")):
            raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")


async def register_app(
    database: Database,
    name: str,
    *,
    numbers_per_second: float | None,
    on_unsure: str,
    resend_after: float,
) -> None:
    """Make or refresh the run-time row of a configured app; times in seconds."""
    async with database.transaction() as connection:
        await connection.execute(
            sql("register_app"), name, numbers_per_second, on_unsure, resend_after
        )


async def register_worker(
    database: Database, *, host: str, pid: int, version: str, apps: list[str], lease: float
) -> int:
    """Announce a worker; return the id it has for this boot."""
    async with database.transaction() as connection:
        worker: int = await connection.fetchval(
            sql("register_worker"), host, pid, version, apps, lease
        )
    return worker


async def heartbeat(
    database: Database,
    worker: int,
    *,
    cut_off: Sequence[str] = (),
    seconds: float = TRANSACTION_TIMEOUT_SECONDS,
) -> float | None:
    """Tell that the worker lives; return the seconds since it last did, None if its row is gone.

    *cut_off*: the apps for which its host cannot send.

    They are the database's seconds: a worker whose clock stands still while it is suspended has
    no other way to know.
    """
    async with database.transaction(seconds=seconds) as connection:
        silence: float | None = await connection.fetchval(sql("heartbeat"), worker, cut_off)
    return silence


async def worker_stopped(database: Database, worker: int) -> None:
    """Tell that the worker left; what it left open is then rescued at once."""
    async with database.transaction() as connection:
        await connection.execute(sql("worker_stopped"), worker)


async def rescue(database: Database, worker: int) -> tuple[int, int]:
    """Mark the open batches of dead workers unsure; return how many batches and messages."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(sql("rescue"), worker)
    return (row["batches"], row["messages"]) if row else (0, 0)


async def resend_unsure(database: Database, worker: int) -> tuple[int, int]:
    """Do what the apps' policy `resend` allows by now; return how many batches and messages."""
    async with database.transaction() as connection:
        silent = [row["id"] for row in await connection.fetch(sql("lock_silent"))]
        if not silent:
            return (0, 0)
        row = await connection.fetchrow(sql("resend_unsure"), worker, silent)
    return (row["batches"], row["messages"]) if row else (0, 0)


class KnownBatches(Protocol):
    """What a worker knows of the batches it has open, by their tokens."""

    def __contains__(self, token: object) -> bool:
        """Tell whether it is on its way."""

    def never_sent(self, token: str) -> bool:
        """Tell whether it was written, if at all, by a call that failed."""


async def release_unsent(database: Database, worker: int, known: KnownBatches) -> tuple[int, int]:
    """Put back what this worker has open and never had in its hands; return batches and messages.

    A token is known before its batch is written. An open batch that the worker knows to be over is
    none of these: the database has lost the record of its end, as a standby may that is promoted.
    It may have been sent, and becomes unsure.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(sql("open_of_worker"), worker)
        unknown = [row for row in rows if row["token"] not in known]
        if not unknown:
            return (0, 0)
        never = [row["id"] for row in unknown if known.never_sent(row["token"])]
        over = [row["id"] for row in unknown if not known.never_sent(row["token"])]
        if over:
            await connection.execute(sql("disown"), worker, over)
        row = await connection.fetchrow(sql("abandon"), worker, never)
    return (row["batches"], row["messages"]) if row else (0, 0)


CHANNEL = "dispatcher_urgent"
ALIVE_EVERY = 15.0  # seconds between questions whether the connection still lives
RETRY = 1.0  # seconds until the next try to connect


async def listen_urgent(
    connect: Callable[[], Awaitable[OwnConnection]], urgent: Callable[[str], None]
) -> None:
    """Call *urgent* with the app of every notification, for ever; connects again by itself."""
    while True:
        try:
            connection = await connect()
        except AWAY:
            await asyncio.sleep(RETRY)
            continue
        lost = asyncio.Event()

        def heard(_: object, __: int, ___: str, app: object) -> None:
            urgent(str(app))

        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(CHANNEL, heard)
            while not lost.is_set():
                try:
                    async with asyncio.timeout(ALIVE_EVERY):
                        await lost.wait()
                except TimeoutError:
                    # A host that vanished closes nothing: ask.
                    await connection.execute("SELECT 1", timeout=ALIVE_EVERY)
        except AWAY:
            await asyncio.sleep(RETRY)
        finally:
            connection.terminate()
