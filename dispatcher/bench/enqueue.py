"""Inserts per second, with our trigger and without it: COPY, many rows at once, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic

from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.stage import Stage, statement
from dispatcher.db.database import OwnConnection, connect

COLUMNS = ("sender", "recipient", "template_id", "params", "priority")
AT_ONCE = 1000  # rows of one INSERT
CLIENTS = 8  # connections that insert one row at a time
Row = tuple[str, str, str, list[str], int]
Way = Callable[[str, int, float], Awaitable[float]]  # address, rows, seconds: rows per second


async def measure(
    stage: Stage, *, rounds: int, messages: int, seconds: float, say: Callable[[str], None]
) -> Results:
    """Measure each way, with and without the trigger, *rounds* times."""
    results = Results(
        "enqueue",
        {
            "rounds": rounds,
            "rows": messages,
            "seconds of single INSERTs": seconds,
            "rows of one INSERT": AT_ONCE,
            "connections of single INSERTs": CLIENTS,
        },
    )
    ways: dict[str, Way] = {"COPY": _copy, "INSERT of many rows": _many, "single INSERTs": _single}
    variants = [(way, trigger) for way in ways for trigger in ("", ", no trigger")]
    async with stage.prepared():
        for number in range(rounds):
            for name in in_turn([way + trigger for way, trigger in variants], number):
                way, _, bare = name.partition(",")
                async with stage.database() as address:
                    if bare:
                        await _without_trigger(address)
                    rate = await ways[way](address, messages, seconds)
                results.add(name, "rows per second", rate)
                say(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} rows/s")
    for way in ways:
        results.compare("rows per second", way, f"{way}, no trigger")
    return results


def _row(number: int) -> Row:
    text = f"{number * 7919 % 1_000_000:06d}"
    return "csms12345678", f"+86139{number:08d}", "8ff55eac1d0b478ab3c06c3c6a492300", [text], 5


async def _without_trigger(address: str) -> None:
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
    parts = [rows[at : at + AT_ONCE] for at in range(0, messages, AT_ONCE)]
    connection = await connect(address)
    try:
        insert = await connection.prepare(_insert_of(AT_ONCE))
        began = monotonic()
        for part in parts:
            if len(part) == AT_ONCE:
                await insert.fetch(*[value for row in part for value in row])
        return messages // AT_ONCE * AT_ONCE / (monotonic() - began)
    finally:
        await connection.close()


def _insert_of(rows: int) -> str:
    """Return the INSERT of so many rows, as an application would write it."""
    width = len(COLUMNS)
    places = ", ".join(
        "(" + ", ".join(f"${row * width + column + 1}" for column in range(width)) + ")"
        for row in range(rows)
    )
    return statement("insert_rows") + places


async def _single(address: str, _: int, seconds: float) -> float:
    async with AsyncExitStack() as stack:
        connections = []
        for _client in range(CLIENTS):
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
    while monotonic() < end:
        await insert.fetch(*_row(first + made))
        made += 1
    return made
