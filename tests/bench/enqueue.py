"""`enqueue`: inserts per second with the queue's trigger and without: COPY, bulk and single."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic

from bench.queries import research_query
from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results, rotated
from dispatcher.db.database import OwnConnection, connect

COLUMNS = ("sender", "recipient", "template_id", "params", "priority")
ROWS_PER_INSERT = 1000
SINGLE_INSERT_CONNECTIONS = 8
Row = tuple[str, str, str, list[str], int]
# Takes address, rows and seconds; returns rows per second.
Method = Callable[[str, int, float], Awaitable[float]]


async def measure(
    environment: Environment,
    *,
    rounds: int,
    messages: int,
    seconds: float,
    progress: Callable[[str], None],
) -> Results:
    """Measure each method, with and without the trigger, *rounds* times."""
    results = Results(
        "enqueue",
        {
            "rounds": rounds,
            "rows": messages,
            "seconds of single INSERTs": seconds,
            "rows of one INSERT": ROWS_PER_INSERT,
            "connections of single INSERTs": SINGLE_INSERT_CONNECTIONS,
        },
    )
    methods: dict[str, Method] = {
        "COPY": _copy,
        "INSERT of many rows": _many,
        "single INSERTs": _single,
    }
    variants = [(method, trigger) for method in methods for trigger in ("", ", no trigger")]
    async with environment.template():
        for number in range(rounds):
            for name in rotated([method + trigger for method, trigger in variants], number):
                method, _, no_trigger = name.partition(",")
                async with environment.database() as address:
                    if no_trigger:
                        await _disable_trigger(address)
                    rate = await methods[method](address, messages, seconds)
                results.add(name, "rows per second", rate)
                progress(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} rows/s")
    for method in methods:
        results.compare("rows per second", method, f"{method}, no trigger")
    return results


def _row(number: int) -> Row:
    text = f"{number * 7919 % 1_000_000:06d}"
    return "csms12345678", f"+86139{number:08d}", "8ff55eac1d0b478ab3c06c3c6a492300", [text], 5


async def _disable_trigger(address: str) -> None:
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
    finally:
        await connection.close()


async def _copy(address: str, messages: int, _: float) -> float:
    rows = [_row(number) for number in range(messages)]
    connection = await connect(address)
    try:
        began = monotonic()
        await connection.copy_records_to_table(
            "message", schema_name="dispatcher", columns=COLUMNS, records=rows
        )
        return messages / (monotonic() - began)
    finally:
        await connection.close()


async def _many(address: str, messages: int, _: float) -> float:
    rows = [_row(number) for number in range(messages)]
    parts = [rows[at : at + ROWS_PER_INSERT] for at in range(0, messages, ROWS_PER_INSERT)]
    connection = await connect(address)
    try:
        insert = await connection.prepare(_insert_of(ROWS_PER_INSERT))
        began = monotonic()
        for part in parts:
            if len(part) == ROWS_PER_INSERT:
                await insert.fetch(*[value for row in part for value in row])
        return messages // ROWS_PER_INSERT * ROWS_PER_INSERT / (monotonic() - began)
    finally:
        await connection.close()


def _insert_of(rows: int) -> str:
    """Return an INSERT of so many rows, as an application would write it."""
    width = len(COLUMNS)
    places = ", ".join(
        "(" + ", ".join(f"${row * width + column + 1}" for column in range(width)) + ")"
        for row in range(rows)
    )
    return research_query("insert_rows") + places


async def _single(address: str, _: int, seconds: float) -> float:
    async with AsyncExitStack() as stack:
        connections = []
        for _client in range(SINGLE_INSERT_CONNECTIONS):
            connections.append(await connect(address))
            stack.push_async_callback(connections[-1].close)
        began = monotonic()
        made = await asyncio.gather(
            *(
                _insert_until(each, began + seconds, first * 1_000_000)
                for first, each in enumerate(connections)
            )
        )
        return sum(made) / (monotonic() - began)


async def _insert_until(connection: OwnConnection, end: float, first: int) -> int:
    insert = await connection.prepare(_insert_of(1))
    made = 0
    while made == 0 or monotonic() < end:
        await insert.fetch(*_row(first + made))
        made += 1
    return made
