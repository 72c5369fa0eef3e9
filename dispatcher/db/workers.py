"""Who works: apps and workers announce themselves, workers beat, the dead are noticed."""

from collections.abc import Container

import asyncpg

from dispatcher.db.pool import Pool
from dispatcher.db.session import PATIENCE, transaction
from dispatcher.db.statements import sql


async def ping(pool: Pool) -> None:
    """Return if the database answers and takes writes; raises what is wrong otherwise."""
    async with transaction(pool) as connection:
        read_only = await connection.fetchval(sql("ping"))
    if read_only:
        raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")


async def register_app(
    pool: Pool,
    name: str,
    *,
    numbers_per_second: float | None,
    on_unsure: str,
    resend_after: float,
) -> None:
    """Make or refresh the run-time row of a configured app; times in seconds."""
    async with transaction(pool) as connection:
        await connection.execute(
            sql("register_app"), name, numbers_per_second, on_unsure, resend_after
        )


async def register_worker(
    pool: Pool, *, host: str, pid: int, version: str, apps: list[str], lease: float
) -> int:
    """Announce a worker; return the id it has for this boot."""
    async with transaction(pool) as connection:
        worker: int = await connection.fetchval(
            sql("register_worker"), host, pid, version, apps, lease
        )
    return worker


async def heartbeat(pool: Pool, worker: int, *, seconds: float = PATIENCE) -> bool:
    """Tell that the worker lives; False if its row is gone."""
    async with transaction(pool, seconds=seconds) as connection:
        return await connection.fetchval(sql("heartbeat"), worker) is not None


async def worker_stopped(pool: Pool, worker: int) -> None:
    """Tell that the worker left; what it left open is then rescued at once."""
    async with transaction(pool) as connection:
        await connection.execute(sql("worker_stopped"), worker)


async def rescue(pool: Pool, worker: int) -> tuple[int, int]:
    """Mark the open batches of dead workers unsure; return how many batches and messages."""
    async with transaction(pool) as connection:
        row = await connection.fetchrow(sql("rescue"), worker)
    return (row["batches"], row["messages"]) if row else (0, 0)


async def resend_unsure(pool: Pool, worker: int) -> tuple[int, int]:
    """Do what the apps' policy `resend` allows by now; return how many batches and messages."""
    async with transaction(pool) as connection:
        row = await connection.fetchrow(sql("resend_unsure"), worker)
    return (row["batches"], row["messages"]) if row else (0, 0)


async def abandon(pool: Pool, worker: int, in_flight: Container[str]) -> tuple[int, int]:
    """Put back what this worker has open without knowing it; return batches and messages.

    *in_flight* holds the tokens the worker knows. A token is known before its batch is written,
    so an open batch without one comes from a claim that failed, and was never sent.
    """
    async with transaction(pool) as connection:
        rows = await connection.fetch(sql("open_of_worker"), worker)
        unknown = [row["id"] for row in rows if row["token"] not in in_flight]
        if not unknown:
            return (0, 0)
        row = await connection.fetchrow(sql("abandon"), worker, unknown)
    return (row["batches"], row["messages"]) if row else (0, 0)
