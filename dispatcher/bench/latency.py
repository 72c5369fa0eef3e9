"""`latency`: time from the commit of an urgent message to its arrival at the provider."""

import asyncio
import random
import time
from collections.abc import Callable

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.children import ChildError
from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results, percentile, rotated
from dispatcher.bench.send import APP, load_messages, run_simulator, run_worker, wait_for_workers
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.operator import pause, resume

INSERT_INTERVAL_SECONDS = 0.03  # between urgent messages, on average
FIRST_URGENT_NUMBER = 9_000_000_000  # 190 0000 0000: those of the backlog begin with 139
ARRIVAL_TIMEOUT_SECONDS = 30.0
WARM_UP_SECONDS = 1.0  # the worker opens connections and plans statements


class AcceptedNumber(Struct):
    """A number that the simulator accepted."""

    number: str
    request: int


class ArrivedRequest(Struct):
    """A request that the simulator received."""

    serial: int
    at: float  # seconds, wall clock


async def measure(
    environment: Environment,
    *,
    rounds: int,
    urgent: int,
    backlog: int,
    progress: Callable[[str], None],
) -> Results:
    """Measure *urgent* messages a round, idle and while a backlog keeps the worker busy."""
    results = Results("latency", {"rounds": rounds, "urgent messages": urgent, "backlog": backlog})
    async with environment.template():
        for number in range(rounds):
            for name in rotated(("idle", "busy"), number):
                waits = await _run(environment, urgent, backlog if name == "busy" else 0)
                while waits is None:  # the backlog was sent before the last urgent message
                    backlog *= 2
                    results.settings["backlog"] = backlog
                    progress(
                        f"round {number + 1} of {rounds}: again, with a backlog of {backlog:,}"
                    )
                    waits = await _run(environment, urgent, backlog)
                for share, figure in ((0.5, "median"), (0.99, "99 %"), (1.0, "longest")):
                    results.add(name, figure, percentile(waits, share) * 1000, "ms")
                slowest = percentile(waits, 0.99) * 1000
                progress(f"round {number + 1} of {rounds}: {name}: 99 % within {slowest:.1f} ms")
    return results


async def _run(environment: Environment, urgent: int, backlog: int) -> list[float] | None:
    """Return the seconds of each urgent message, or None if the backlog did not last."""
    async with environment.database() as address:
        connection = await connect(address)
        await pause(connection, "benchmark", APP, "the benchmark begins in a moment")
        if backlog:
            await load_messages(connection, backlog)
        try:
            async with (
                run_simulator(environment) as (_, url),
                run_worker(environment, 0, address, url) as process,
            ):
                await wait_for_workers(connection, [process])
                await resume(connection, "benchmark", APP)
                await asyncio.sleep(WARM_UP_SECONDS)
                committed = await _insert(connection, urgent)
                if backlog and not await connection.fetchval(query("has_due_messages")):
                    return None
                return await _arrivals(url, committed)
        finally:
            await connection.close()


async def _insert(connection: OwnConnection, urgent: int) -> dict[str, float]:
    """Insert urgent messages one by one; return the wall clock at the commit of each."""
    insert = await connection.prepare(query("insert_urgent_message"))
    committed = {}
    for number in range(FIRST_URGENT_NUMBER, FIRST_URGENT_NUMBER + urgent):
        recipient = f"+861{number}"
        await insert.fetch(recipient)
        committed[recipient] = time.time()
        await asyncio.sleep(random.uniform(0, 2 * INSERT_INTERVAL_SECONDS))
    return committed


async def _arrivals(url: str, committed: dict[str, float]) -> list[float]:
    """Return the seconds from each number's commit to the arrival of its request."""
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_SECONDS
    accepted: list[AcceptedNumber] = []
    async with aiohttp.ClientSession() as session:
        while len(accepted) < len(committed):
            if time.monotonic() > deadline:
                raise ChildError(f"{len(committed) - len(accepted)} urgent messages did not arrive")
            async with session.get(f"{url}/_ledger") as answer:
                rows = [json.decode(line, type=AcceptedNumber) async for line in answer.content]
            accepted = [row for row in rows if row.number in committed]
        async with session.get(f"{url}/_requests") as answer:
            requests = [json.decode(line, type=ArrivedRequest) async for line in answer.content]
    arrived = {request.serial: request.at for request in requests}
    return [max(0.0, arrived[row.request] - committed[row.number]) for row in accepted]
