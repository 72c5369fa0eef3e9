"""A year in a minute: `send` beside millions of old messages, and while they are dropped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from dispatcher.bench.children import ChildError
from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.send import APP, RATE, Variant, load, send, worker
from dispatcher.bench.stage import Stage, statement
from dispatcher.bench.year import MONTHS, TIMEOUT, make_year, sizes
from dispatcher.db.admin import pause
from dispatcher.db.database import OwnConnection, connect

VARIANT = Variant("send", 2)
FRESH, BESIDE, DROPPING, AFTER = "fresh", "beside a year", "a year is dropped", "afterwards"
RETENTION = "7d"  # the history ended before that
EVERY = 0.01  # seconds between two messages of the application that inserts meanwhile
LONGEST = "longest insert"
NOWHERE = "http://127.0.0.1:9"
LOOK = 5.0  # seconds between two looks at what is left
LONGEST_DROP = 7200.0  # seconds


async def measure(
    stage: Stage, *, rounds: int, messages: int, history: int, say: Callable[[str], None]
) -> Results:
    """Measure `send` with *history* messages of a year, *rounds* times, then until it is dropped.

    Each scene is measured beside the fresh table, in turn; what is left after *rounds* of them is
    dropped by a worker that has nothing else to do. Meanwhile an application inserts one message
    after the other, for tomorrow: how long its longest INSERT took is what it noticed.
    """
    results = Results("keep", {"rounds": rounds, "messages": messages, "history": history})
    async with stage.prepared(), stage.database() as fresh, stage.database() as old:
        await make_year(old, history, say)
        looking = await connect(old)
        await _note_sizes(results, looking, BESIDE, history)
        say("the year is made")
        try:
            again = partial(_once, stage, results, messages=messages, say=say)
            for number in range(rounds):
                for name, address in in_turn([(FRESH, fresh), (BESIDE, old)], number):
                    await again(name, address)
            for _ in range(rounds):
                await again(FRESH, fresh)
                await again(DROPPING, old, keep=RETENTION)
            results.add(DROPPING, "the rest, alone", await _drop(stage, old, looking, say), "s")
            await looking.execute("VACUUM", timeout=TIMEOUT)
            await _note_sizes(results, looking, AFTER, history)
        finally:
            await looking.close()
    _compare(results, rounds)
    return results


def _compare(results: Results, rounds: int) -> None:
    """Note the ratio of each run to that of the fresh table next to it."""
    fresh = results.figure(FRESH, RATE).values
    for scene, others in ((BESIDE, fresh[:rounds]), (DROPPING, fresh[rounds:])):
        for rate, other in zip(results.figure(scene, RATE).values, others, strict=True):
            results.add(scene, "rate / fresh", rate / other)


async def _drop(
    stage: Stage, address: str, looking: OwnConnection, say: Callable[[str], None]
) -> float:
    """Let a worker keep RETENTION until nothing of the year is left; return how long that took."""
    began = monotonic()
    await pause(looking, APP, "the benchmark drops what is left")
    async with worker(stage, 0, address, NOWHERE, DISPATCHER_RETENTION=RETENTION) as keeper:
        left = MONTHS
        while still := await looking.fetchval(statement("keep_left")):
            if still < left:
                say(f"{still} of {MONTHS} months are left")
            if monotonic() - began > LONGEST_DROP:
                raise ChildError(f"{still} of {MONTHS} months were not dropped")
            left = still
            keeper.must_live()
            await asyncio.sleep(LOOK)
    return monotonic() - began


async def _once(
    stage: Stage,
    results: Results,
    name: str,
    address: str,
    *,
    messages: int,
    keep: str = "",
    say: Callable[[str], None],
) -> None:
    """Send *messages* at *address*."""
    settings = {"DISPATCHER_RETENTION": keep} if keep else {}
    connection = await connect(address)
    try:
        await load(connection, VARIANT, messages)
        async with _application(address) as waits:
            sample = await send(stage, address, connection, VARIANT, messages, settings=settings)
    finally:
        await connection.close()
    rate = messages / sample.seconds
    results.add(name, RATE, rate)
    results.add(name, LONGEST, max(waits) * 1e3, "ms")
    results.add(name, "WAL per message", sample.wal / messages, "bytes")
    say(f"{name}: {rate:,.0f} messages/s, {LONGEST} {max(waits) * 1e3:.0f} ms")


@asynccontextmanager
async def _application(address: str) -> AsyncIterator[list[float]]:
    """Insert one message after the other; give how long each took."""
    connection = await connect(address)
    waits: list[float] = []
    stop = asyncio.Event()

    async def insert() -> None:
        while not stop.is_set():
            began = monotonic()
            await connection.execute(statement("keep_insert"))
            waits.append(monotonic() - began)
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(insert())
    try:
        yield waits
    finally:
        stop.set()
        await task
        await connection.close()


async def _note_sizes(
    results: Results, connection: OwnConnection, scene: str, messages: int
) -> None:
    database = await connection.fetchval("SELECT pg_database_size(current_database())")
    results.add(scene, "database", database / 2**20, "MiB")
    for name, size in (await sizes(connection)).items():
        if size.whole > messages:  # a byte a message: the others are small
            results.add(scene, f"{name}, per message of the year", size.whole / messages, "bytes")
