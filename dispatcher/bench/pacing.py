"""Whether the pace is kept, as the simulator sees it: the fullest second, and the whole."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import time

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.results import Results
from dispatcher.bench.send import APP, LOAD_TIMEOUT, simulator, worker, workers_ready
from dispatcher.bench.stage import Stage, statement
from dispatcher.db.admin import pause, resume
from dispatcher.db.database import connect

RATE = 500
PROVIDER_RATE = 300  # what the simulator lets pass where it asks for less
SETTLED = 1 / 3  # of the time until a slowed rate has settled


class Visit(Struct):
    """A request that came."""

    monotonic: float
    numbers: int
    accepted: int


async def measure(stage: Stage, *, seconds: float, say: Callable[[str], None]) -> Results:
    """Measure one, two and four workers, the first of several killed half way; then slowness."""
    results = Results("pace", {"numbers per second": RATE, "seconds": seconds})
    async with stage.prepared():
        for workers in (1, 2, 4):
            name = f"{workers} worker{'s, one killed' if workers > 1 else ''}"
            visits = await _run(stage, workers, seconds, kill=workers > 1)
            full, share = fullest_second(visits), _numbers(visits) / _span(visits) / RATE
            results.add(name, "fullest second", full, "numbers")
            results.add(name, "of what was allowed", share * 100, "%")
            say(f"{name}: {full} numbers in the fullest second, {share:.1%} of what was allowed")
        visits = await _run(stage, 1, seconds, kill=False, passes=PROVIDER_RATE)
        visits = visits[int(len(visits) * SETTLED) :]
        accepted = sum(visit.accepted for visit in visits)
        refused = 100 * (1 - accepted / _numbers(visits))
        name = f"refused above {PROVIDER_RATE}"
        results.add(name, "accepted per second", accepted / _span(visits))
        results.add(name, "refused", refused, "%")
        say(f"{name}: {accepted / _span(visits):.0f} accepted per second, {refused:.2f} % refused")
    return results


def fullest_second(visits: list[Visit]) -> int:
    """Return the most numbers that came within one second, wherever it begins."""
    fullest = within = first = 0
    for visit in visits:
        within += visit.numbers
        while visits[first].monotonic <= visit.monotonic - 1.0:
            within -= visits[first].numbers
            first += 1
        fullest = max(fullest, within)
    return fullest


def _numbers(visits: list[Visit]) -> int:
    return sum(visit.numbers for visit in visits)


def _span(visits: list[Visit]) -> float:
    return visits[-1].monotonic - visits[0].monotonic


async def _run(
    stage: Stage, workers: int, seconds: float, *, kill: bool, passes: int | None = None
) -> list[Visit]:
    """Send for so many *seconds*; return the requests that came, in order."""
    fault = {"fault": "number-code", "code": "E200015", "per_second": passes}
    faults = ["--faults", json.encode([fault]).decode()] if passes else []
    async with stage.database() as address, AsyncExitStack() as stack:
        connection = await connect(address)
        stack.push_async_callback(connection.close)
        await connection.execute(
            statement("load_messages"),
            int(RATE * seconds * 1.2),
            True,
            5,
            0.0,
            timeout=LOAD_TIMEOUT,
        )
        await pause(connection, APP, "the benchmark begins in a moment")
        _, url = await stack.enter_async_context(simulator(stage, *faults))
        running = [
            await stack.enter_async_context(
                worker(stage, number, address, url, **{f"{PACE}": str(RATE)})
            )
            for number in range(workers)
        ]
        await workers_ready(connection, running)
        await resume(connection, APP)
        end = time() + seconds
        if kill:
            await asyncio.sleep(seconds / 2)
            running[0].kill()
        await asyncio.sleep(end - time())
        await pause(connection, APP, "the benchmark is over")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_requests") as answer:
            visits = [json.decode(line, type=Visit) async for line in answer.content]
    return sorted((visit for visit in visits if visit.numbers), key=lambda visit: visit.monotonic)


PACE = "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND"
