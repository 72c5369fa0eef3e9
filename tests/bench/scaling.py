"""`scaling`: speed of `send` and of the claim beside finished, scheduled and other due messages."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from msgspec import Struct

from bench.queries import research_query
from bench.sql_baseline import take_ids
from dispatcher.bench.environment import Environment, make_indexes
from dispatcher.bench.results import Results, percentile, rotated
from dispatcher.bench.retention import table_sizes
from dispatcher.bench.send import (
    APP,
    LOAD_TIMEOUT_SECONDS,
    RATE_FIGURE,
    Variant,
    load_messages,
    send,
)
from dispatcher.bench.statements import query
from dispatcher.core.claim_cursor import ClaimCursor
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.operator import resume

CLAIM_SIZE = 500  # rows of one timed claim
TIMED_CLAIMS = 1000  # the first of a session takes ten times as long: it is planned
MESSAGES_PER_CLAIM = 50  # of a run, for each timed claim: a small run times fewer
VARIANT = Variant(2)
# Sent before each run, if it has as many: the first scan of a worker covers everything that was
# ever claimed.
WARM_UP_MESSAGES = 20_000
MESSAGES_PER_SEED_STATEMENT = 500_000
SECONDS_PER_DAY = 86_400.0
LARGE_TABLE_BYTES = 8 * 2**20  # smaller ones are not listed


class Scenario(Struct, frozen=True):
    """Rows beside the messages that are sent."""

    name: str
    finished: int = 0  # messages with an outcome
    scheduled: int = 0  # messages due tomorrow
    due: int = 0  # other due messages of a lower priority, which stay
    snapshot_seconds: float = 0.0  # that a snapshot is held while 10 million messages go out


def scenarios(million: int, snapshot_seconds: float) -> tuple[Scenario, ...]:
    """Return all scenarios, with *million* messages to a million."""
    return (
        Scenario("fresh"),
        Scenario("1 million finished", finished=million),
        Scenario("10 million finished", finished=10 * million),
        Scenario("1 million for tomorrow", scheduled=million),
        Scenario("3 million due", due=3 * million),
        Scenario("a snapshot held", snapshot_seconds=snapshot_seconds),
    )


async def measure(
    environment: Environment,
    *,
    rounds: int,
    messages: int,
    million: int,
    snapshot_seconds: float,
    progress: Callable[[str], None],
) -> Results:
    """Measure each scenario *rounds* times; each keeps its database for all rounds."""
    results = Results(
        "scaling",
        {
            "rounds": rounds,
            "messages": messages,
            "million": million,
            "snapshot held (s)": snapshot_seconds,
        },
    )
    async with environment.template(), AsyncExitStack() as stack:
        addresses = {}
        for scenario in scenarios(million, snapshot_seconds):
            address = await stack.enter_async_context(environment.database())
            addresses[scenario.name] = (scenario, address)
            progress(f"creating: {scenario.name}")
            await _seed(address, scenario)
            if scenario.snapshot_seconds:
                await stack.enter_async_context(_held_snapshot(address))
                await _send_evenly(
                    environment, address, scenario.snapshot_seconds, messages, 10 * million
                )
        for number in range(rounds):
            for name in rotated(addresses, number):
                scenario, address = addresses[name]
                rate = await _send(environment, address, messages, others_due=scenario.due > 0)
                results.add(name, RATE_FIGURE, rate)
                claims = min(TIMED_CLAIMS, messages // MESSAGES_PER_CLAIM)
                took = await _time_claims(address, claims)
                results.add(
                    name, f"claim of {CLAIM_SIZE}, median", statistics.median(took) * 1e3, "ms"
                )
                results.add(
                    name, f"claim of {CLAIM_SIZE}, 99 %", percentile(took, 0.99) * 1e3, "ms"
                )
                progress(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} messages/s")
        for name, (_, address) in addresses.items():
            await _add_sizes(results, name, address)
    for name in addresses:
        if name != "fresh":
            results.compare(RATE_FIGURE, name, "fresh")
    return results


async def _add_sizes(results: Results, name: str, address: str) -> None:
    """Add the size of each table, for each of its messages if they stay, or in all."""
    connection = await connect(address)
    try:
        sent = await connection.fetchval("SELECT count(*) FROM dispatcher.message")
        for table, size in (await table_sizes(connection)).items():
            if size.total > LARGE_TABLE_BYTES:
                results.add(name, table, size.total / 2**20, "MiB")
                results.add(name, f"{table}, per message", size.total / sent, "bytes")
    finally:
        await connection.close()


async def _seed(address: str, scenario: Scenario) -> None:
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        for first in range(0, scenario.finished, MESSAGES_PER_SEED_STATEMENT):
            many = min(MESSAGES_PER_SEED_STATEMENT, scenario.finished - first)
            await connection.execute(query("make_partitions"), timeout=LOAD_TIMEOUT_SECONDS)
            await connection.execute(
                research_query("load_finished"), many, timeout=LOAD_TIMEOUT_SECONDS
            )
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        # A real history has had its indexes and its vacuum long ago.
        await make_indexes(connection)
        await connection.execute("VACUUM (ANALYZE)", timeout=LOAD_TIMEOUT_SECONDS)
        for many, priority, due_in_seconds in (
            (scenario.scheduled, 5, SECONDS_PER_DAY),
            (scenario.due, 9, 0.0),
        ):
            if many:
                await load_messages(
                    connection, many, priority=priority, due_in_seconds=due_in_seconds
                )
    finally:
        await connection.close()


@asynccontextmanager
async def _held_snapshot(address: str) -> AsyncIterator[None]:
    """Hold a snapshot, as a long query or an idle transaction would."""
    connection = await connect(address)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT FROM dispatcher.message LIMIT 1")
        yield
    finally:
        await connection.close()


async def _send_evenly(
    environment: Environment, address: str, seconds: float, messages: int, total: int
) -> None:
    """Send *total* messages, *messages* at a time, spread over *seconds*."""
    runs = max(1, total // messages)
    began = monotonic()
    for run in range(runs):
        await _send(environment, address, messages)
        await asyncio.sleep(began + seconds * (run + 1) / runs - monotonic())


async def _send(
    environment: Environment, address: str, messages: int, *, others_due: bool = False
) -> float:
    connection = await connect(address)
    try:
        sample = await send(
            environment,
            address,
            connection,
            VARIANT,
            messages,
            others_due=others_due,
            warm_up=min(WARM_UP_MESSAGES, messages),
        )
        return messages / sample.seconds
    finally:
        await connection.close()


async def _time_claims(address: str, claims: int) -> list[float]:
    """Load a few messages; return the seconds that each claim of them took. None is sent."""
    connection = await connect(address)
    cursor = ClaimCursor(monotonic)
    try:
        await load_messages(connection, CLAIM_SIZE * claims)
        await resume(connection, "benchmark", APP)
        return [await _time_claim(connection, cursor) for _ in range(claims)]
    finally:
        await connection.close()


async def _time_claim(connection: OwnConnection, cursor: ClaimCursor) -> float:
    async with connection.transaction():
        began = monotonic()
        await take_ids(connection, cursor, CLAIM_SIZE)
        return monotonic() - began
