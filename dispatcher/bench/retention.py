"""Measures `send` on a database with a year of history, and while that history is dropped.

The history has twelve full partitions, indexed and vacuumed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from msgspec import Struct

from dispatcher.bench.children import ChildError
from dispatcher.bench.environment import Environment, make_indexes
from dispatcher.bench.results import Results, rotated
from dispatcher.bench.send import APP, RATE_FIGURE, Variant, load, run_worker, send
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.operator import pause

MONTHS = 12
DAYS_PER_MONTH = 30.0
AGE_DAYS = 10.0  # since the last message of the history
MESSAGES_PER_STATEMENT = 250_000
STATEMENT_TIMEOUT_SECONDS = 3600.0
TABLES = ("messages", "keys", "batches", "outcomes", "reports")


class TableSize(Struct, frozen=True):
    """Size of a table and its partitions on disk, in bytes."""

    heap: int
    indexes: int

    @property
    def total(self) -> int:
        """Heap and indexes together."""
        return self.heap + self.indexes


async def make_history(address: str, messages: int, progress: Callable[[str], None]) -> None:
    """Fill a migrated, empty database with *messages* of the last year, all finished."""
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        first = 1
        for month in range(MONTHS):
            await connection.execute(query("make_partitions"), timeout=STATEMENT_TIMEOUT_SECONDS)
            many = messages // MONTHS
            await _make_month(connection, first, many, month)
            first = await connection.fetchval(query("start_next_partition"), first + many - 1)
            progress(f"month {month + 1} of {MONTHS} is made")
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        await make_indexes(connection)
        progress("indexes are made")
        await connection.execute("VACUUM (ANALYZE)", timeout=STATEMENT_TIMEOUT_SECONDS)
        await connection.execute("CHECKPOINT", timeout=STATEMENT_TIMEOUT_SECONDS)
    finally:
        await connection.close()


async def _make_month(connection: OwnConnection, first: int, messages: int, month: int) -> None:
    days_per_message = DAYS_PER_MONTH / messages
    start_days_ago = AGE_DAYS + DAYS_PER_MONTH * (MONTHS - month)
    for done in range(0, messages, MESSAGES_PER_STATEMENT):
        many = min(MESSAGES_PER_STATEMENT, messages - done)
        days = (start_days_ago - done * days_per_message, many * days_per_message)
        for table in TABLES:
            given = days if table == "messages" else ()
            await connection.execute(
                query(f"history_{table}"),
                first + done,
                many,
                *given,
                timeout=STATEMENT_TIMEOUT_SECONDS,
            )


async def table_sizes(connection: OwnConnection) -> Mapping[str, TableSize]:
    """Return the size of each table on disk, partitions included."""
    rows = await connection.fetch(query("table_sizes"))
    return {row["name"]: TableSize(row["heap"], row["indexes"]) for row in rows}


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
    await pause(connection, "benchmark", APP, "the benchmark drops what is left")
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
