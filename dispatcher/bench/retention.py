"""`retention`: `send` with a year of history in the tables, and while it is dropped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from dispatcher.bench.children import ChildError
from dispatcher.bench.environment import Environment
from dispatcher.bench.history import MONTHS, STATEMENT_TIMEOUT_SECONDS, make_history, table_sizes
from dispatcher.bench.results import Results, rotated
from dispatcher.bench.send import APP, RATE_FIGURE, Variant, load, run_worker, send
from dispatcher.bench.statements import query
from dispatcher.db.admin import pause
from dispatcher.db.database import OwnConnection, connect

VARIANT = Variant(2)
FRESH, BESIDE, DROPPING, AFTER = "fresh", "beside a year", "a year is dropped", "afterwards"
RETENTION = "7d"  # all of the history is older
INSERT_INTERVAL_SECONDS = 0.01  # of the application that inserts meanwhile
LONGEST_INSERT_FIGURE = "longest insert"
UNUSED_ENDPOINT = "http://127.0.0.1:9"
POLL_INTERVAL_SECONDS = 5.0  # of the months that are left
DROP_TIMEOUT_SECONDS = 7200.0


async def measure(
    environment: Environment,
    *,
    rounds: int,
    messages: int,
    history: int,
    progress: Callable[[str], None],
) -> Results:
    """Measure `send` with *history* messages of a year, *rounds* times, then until it is dropped.

    Each scenario alternates with a fresh table. An idle worker drops what is left after *rounds*.
    Meanwhile an application inserts one message after the other, due tomorrow; the duration of its
    longest INSERT is the effect that an application notices.
    """
    results = Results("retention", {"rounds": rounds, "messages": messages, "history": history})
    async with (
        environment.template(),
        environment.database() as fresh,
        environment.database() as old,
    ):
        await make_history(old, history, progress)
        connection = await connect(old)
        await _add_sizes(results, connection, BESIDE, history)
        progress("the year is made")
        try:
            run = partial(_run_once, environment, results, messages=messages, progress=progress)
            for number in range(rounds):
                for name, address in rotated([(FRESH, fresh), (BESIDE, old)], number):
                    await run(name, address)
            for _ in range(rounds):
                await run(FRESH, fresh)
                await run(DROPPING, old, retention=RETENTION)
            seconds = await _drop(environment, old, connection, progress)
            results.add(DROPPING, "the rest, alone", seconds, "s")
            await connection.execute("VACUUM", timeout=STATEMENT_TIMEOUT_SECONDS)
            await _add_sizes(results, connection, AFTER, history)
        finally:
            await connection.close()
    _compare(results, rounds)
    return results


def _compare(results: Results, rounds: int) -> None:
    """Add the ratio of each run to the run with the fresh table next to it."""
    fresh = results.figure(FRESH, RATE_FIGURE).values
    for scenario, others in ((BESIDE, fresh[:rounds]), (DROPPING, fresh[rounds:])):
        for rate, other in zip(results.figure(scenario, RATE_FIGURE).values, others, strict=True):
            results.add(scenario, "rate / fresh", rate / other)


async def _drop(
    environment: Environment,
    address: str,
    connection: OwnConnection,
    progress: Callable[[str], None],
) -> float:
    """Run a worker with RETENTION until the history is dropped; return the seconds."""
    began = monotonic()
    await pause(connection, APP, "the benchmark drops what is left")
    async with run_worker(
        environment, 0, address, UNUSED_ENDPOINT, DISPATCHER_RETENTION=RETENTION
    ) as worker:
        left = MONTHS
        while still := await connection.fetchval(query("count_history_months")):
            if still < left:
                progress(f"{still} of {MONTHS} months are left")
            if monotonic() - began > DROP_TIMEOUT_SECONDS:
                raise ChildError(f"{still} of {MONTHS} months were not dropped")
            left = still
            worker.check_running()
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
    return monotonic() - began


async def _run_once(
    environment: Environment,
    results: Results,
    name: str,
    address: str,
    *,
    messages: int,
    retention: str = "",
    progress: Callable[[str], None],
) -> None:
    """Send *messages* at *address*."""
    settings = {"DISPATCHER_RETENTION": retention} if retention else {}
    connection = await connect(address)
    try:
        await load(connection, messages)
        async with _application(address) as waits:
            sample = await send(
                environment, address, connection, VARIANT, messages, settings=settings
            )
    finally:
        await connection.close()
    rate = messages / sample.seconds
    results.add(name, RATE_FIGURE, rate)
    results.add(name, LONGEST_INSERT_FIGURE, max(waits) * 1e3, "ms")
    results.add(name, "WAL per message", sample.wal_bytes / messages, "bytes")
    progress(f"{name}: {rate:,.0f} messages/s, {LONGEST_INSERT_FIGURE} {max(waits) * 1e3:.0f} ms")


@asynccontextmanager
async def _application(address: str) -> AsyncIterator[list[float]]:
    """Insert one message after the other; yield the seconds that each took."""
    connection = await connect(address)
    waits: list[float] = []
    stop = asyncio.Event()

    async def insert() -> None:
        while not stop.is_set():
            began = monotonic()
            await connection.execute(query("insert_scheduled_message"))
            waits.append(monotonic() - began)
            await asyncio.sleep(INSERT_INTERVAL_SECONDS)

    task = asyncio.create_task(insert())
    try:
        yield waits
    finally:
        stop.set()
        await task
        await connection.close()


async def _add_sizes(
    results: Results, connection: OwnConnection, scenario: str, messages: int
) -> None:
    database = await connection.fetchval("SELECT pg_database_size(current_database())")
    results.add(scenario, "database", database / 2**20, "MiB")
    for name, size in (await table_sizes(connection)).items():
        if size.total > messages:  # a byte a message; smaller tables do not matter
            results.add(
                scenario, f"{name}, per message of the year", size.total / messages, "bytes"
            )
