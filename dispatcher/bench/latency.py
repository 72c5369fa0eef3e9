"""How long an urgent message takes from its commit to the provider's door."""

import asyncio
import random
import time
from collections.abc import Callable

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.children import ChildError
from dispatcher.bench.results import Results, in_turn, percentile
from dispatcher.bench.send import APP, LOAD_TIMEOUT, simulator, worker, workers_ready
from dispatcher.bench.stage import Stage, statement
from dispatcher.db.admin import pause, resume
from dispatcher.db.database import OwnConnection, connect

EVERY = 0.03  # seconds between urgent messages, on average
FIRST = 900_000_000  # urgent numbers begin here; those of the backlog are lower
ARRIVE_TIMEOUT = 30.0


class Seen(Struct):
    """A number that the simulator accepted."""

    number: str
    request: int


class Visit(Struct):
    """A request that came."""

    serial: int
    at: float


async def measure(
    stage: Stage, *, rounds: int, urgent: int, backlog: int, say: Callable[[str], None]
) -> Results:
    """Measure *urgent* messages a round, idle and while a backlog keeps the worker busy."""
    results = Results("latency", {"rounds": rounds, "urgent messages": urgent, "backlog": backlog})
    async with stage.prepared():
        for number in range(rounds):
            for name in in_turn(("idle", "busy"), number):
                waits = await _run(stage, urgent, backlog if name == "busy" else 0)
                for share, figure in ((0.5, "median"), (0.99, "99 %"), (1.0, "longest")):
                    results.add(name, figure, percentile(waits, share) * 1000, "ms")
                most = percentile(waits, 0.99) * 1000
                say(f"round {number + 1} of {rounds}: {name}: 99 % within {most:.1f} ms")
    return results


async def _run(stage: Stage, urgent: int, backlog: int) -> list[float]:
    async with stage.database() as address:
        connection = await connect(address)
        await pause(connection, APP, "the benchmark begins in a moment")
        if backlog:
            await connection.execute(
                statement("load_messages"), backlog, True, 5, 0.0, timeout=LOAD_TIMEOUT
            )
        try:
            async with simulator(stage) as (_, url), worker(stage, 0, address, url) as process:
                await workers_ready(connection, [process])
                await resume(connection, APP)
                await asyncio.sleep(1.0)  # the worker warms up: connections, plans
                committed = await _insert(connection, urgent)
                if backlog and not await connection.fetchval(statement("anything_waits")):
                    raise ChildError(
                        "the backlog was too small: it was sent before the last urgent message"
                    )
                return await _arrivals(url, committed)
        finally:
            await connection.close()


async def _insert(connection: OwnConnection, urgent: int) -> dict[str, float]:
    """Insert urgent messages one by one; return when each was committed, by the wall clock."""
    insert = await connection.prepare(statement("insert_urgent"))
    committed = {}
    for number in range(FIRST, FIRST + urgent):
        recipient = f"+861{number}"
        await insert.fetch(recipient)
        committed[recipient] = time.time()
        await asyncio.sleep(random.uniform(0, 2 * EVERY))
    return committed


async def _arrivals(url: str, committed: dict[str, float]) -> list[float]:
    """Return how long after its commit each number's request arrived."""
    deadline = time.monotonic() + ARRIVE_TIMEOUT
    seen: list[Seen] = []
    async with aiohttp.ClientSession() as session:
        while len(seen) < len(committed):
            if time.monotonic() > deadline:
                raise ChildError(f"{len(committed) - len(seen)} urgent messages did not arrive")
            async with session.get(f"{url}/_ledger") as answer:
                rows = [json.decode(line, type=Seen) async for line in answer.content]
            seen = [row for row in rows if row.number in committed]
        async with session.get(f"{url}/_requests") as answer:
            visits = [json.decode(line, type=Visit) async for line in answer.content]
    arrived = {visit.serial: visit.at for visit in visits}
    return [max(0.0, arrived[row.request] - committed[row.number]) for row in seen]
