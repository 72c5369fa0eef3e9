"""`rate`: whether the rate limit holds at the simulator: the fullest second, and the mean rate."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import time

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results
from dispatcher.bench.send import (
    APP,
    load_messages,
    plural_workers,
    run_simulator,
    run_worker,
    wait_for_workers,
)
from dispatcher.db.database import connect
from dispatcher.db.operator import pause, resume

NUMBERS_PER_SECOND = 500
PROVIDER_NUMBERS_PER_SECOND = 300  # the simulator refuses more, in the last variant
SETTLING_RATIO = 1 / 3  # of the run, until a slowed rate has settled
LOAD_RATIO = 1.2  # messages loaded for each that may be sent
RATE_SETTING = "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND"


class RequestRecord(Struct):
    """A request that the simulator received."""

    monotonic: float
    numbers: int
    accepted: int


async def measure(
    environment: Environment, *, seconds: float, progress: Callable[[str], None]
) -> Results:
    """Measure 1, 2 and 4 workers, the first of several killed half way; then a slow provider."""
    results = Results("rate", {"numbers per second": NUMBERS_PER_SECOND, "seconds": seconds})
    async with environment.template():
        for workers in (1, 2, 4):
            name = plural_workers(workers) + (", one killed" if workers > 1 else "")
            requests = await _run(environment, workers, seconds, kill=workers > 1)
            full, share = (
                fullest_second(requests),
                _numbers(requests) / _span(requests) / NUMBERS_PER_SECOND,
            )
            results.add(name, "fullest second", full, "numbers")
            results.add(name, "of what was allowed", share * 100, "%")
            progress(
                f"{name}: {full} numbers in the fullest second, {share:.1%} of what was allowed"
            )
        requests = await _run(
            environment, 1, seconds, kill=False, provider_rate=PROVIDER_NUMBERS_PER_SECOND
        )
        requests = requests[int(len(requests) * SETTLING_RATIO) :]
        accepted = sum(request.accepted for request in requests)
        refused = 100 * (1 - accepted / _numbers(requests))
        name = f"refused above {PROVIDER_NUMBERS_PER_SECOND}"
        results.add(name, "accepted per second", accepted / _span(requests))
        results.add(name, "refused", refused, "%")
        progress(
            f"{name}: {accepted / _span(requests):.0f} accepted per second, {refused:.2f} % refused"
        )
    return results


def fullest_second(requests: list[RequestRecord]) -> int:
    """Return the most numbers received within one second, from any start."""
    fullest = within = first = 0
    for request in requests:
        within += request.numbers
        while requests[first].monotonic <= request.monotonic - 1.0:
            within -= requests[first].numbers
            first += 1
        fullest = max(fullest, within)
    return fullest


def _numbers(requests: list[RequestRecord]) -> int:
    return sum(request.numbers for request in requests)


def _span(requests: list[RequestRecord]) -> float:
    return requests[-1].monotonic - requests[0].monotonic


async def _run(
    environment: Environment,
    workers: int,
    seconds: float,
    *,
    kill: bool,
    provider_rate: int | None = None,
) -> list[RequestRecord]:
    """Send for *seconds*; return the received requests in order."""
    fault = {"fault": "number-code", "code": "E200015", "per_second": provider_rate}
    faults = ["--faults", json.encode([fault]).decode()] if provider_rate else []
    async with environment.database() as address, AsyncExitStack() as stack:
        connection = await connect(address)
        stack.push_async_callback(connection.close)
        await load_messages(connection, int(NUMBERS_PER_SECOND * seconds * LOAD_RATIO))
        await pause(connection, "benchmark", APP, "the benchmark begins in a moment")
        _, url = await stack.enter_async_context(run_simulator(environment, *faults))
        running = [
            await stack.enter_async_context(
                run_worker(
                    environment, number, address, url, **{RATE_SETTING: str(NUMBERS_PER_SECOND)}
                )
            )
            for number in range(workers)
        ]
        await wait_for_workers(connection, running)
        await resume(connection, "benchmark", APP)
        end = time() + seconds
        if kill:
            await asyncio.sleep(seconds / 2)
            running[0].kill()
        await asyncio.sleep(end - time())
        await pause(connection, "benchmark", APP, "the benchmark is over")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_requests") as answer:
            requests = [json.decode(line, type=RequestRecord) async for line in answer.content]
    return sorted(
        (request for request in requests if request.numbers), key=lambda request: request.monotonic
    )
