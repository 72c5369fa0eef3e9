"""PgQueuer and Procrastinate on the same server, draining jobs that do nothing.

They are labelled for what they are: they run a callback for each job, we send SMS in batches.
Beside them, in the same rounds, `send` with one worker, for they run one process too.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from dispatcher.bench.children import Child, child
from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.send import LOAD_TIMEOUT, Variant, run_once
from dispatcher.bench.stage import Stage
from dispatcher.db.database import connect

JOB = "nothing"
BATCHES = (10, 100, 500)  # PgQueuer's default, and what its documents and benchmarks advise
CONCURRENCY = 100  # of Procrastinate: jobs at once, many more than by default
AT_ONCE = 5000  # jobs of one enqueueing call


async def measure(
    stage: Stage, *, rounds: int, jobs: int, messages: int, say: Callable[[str], None]
) -> Results:
    """Measure those that are installed (the extra `bench` brings them), *rounds* times."""
    results = Results("peers", {"rounds": rounds, "jobs": jobs, "messages": messages})
    variants: dict[str, list[str]] = {"dispatcher": []}
    if find_spec("pgqueuer"):
        variants |= {f"PgQueuer, batches of {size}": ["pgqueuer", str(size)] for size in BATCHES}
    if find_spec("procrastinate"):
        variants["Procrastinate"] = ["procrastinate", str(CONCURRENCY)]
    results.notes.append(
        "PgQueuer and Procrastinate run a callback for each job, and these callbacks do nothing;"
        " the dispatcher sends each message to the simulator over HTTP and records the answer."
    )
    async with stage.prepared():
        for number in range(rounds):
            for name in in_turn(variants, number):
                if name == "dispatcher":
                    rate = messages / (await run_once(stage, Variant("send", 1), messages)).seconds
                else:
                    rate = await _drain(stage, variants[name], jobs)
                results.add(name, "per second", rate)
                say(f"round {number + 1} of {rounds}: {name}: {rate:,.0f}/s")
    for name in variants:
        if name != "dispatcher":
            results.compare("per second", "dispatcher", name)
    return results


async def _drain(stage: Stage, arguments: list[str], jobs: int) -> float:
    async with (
        stage.database() as address,
        child(
            arguments[0],
            [arguments[0], address, *arguments[1:], str(jobs)],
            module="dispatcher.bench",
            log=stage.log(arguments[0]),
        ) as process,
    ):
        return jobs / await _raced(process)


async def _raced(process: Child) -> float:
    await process.line(LOAD_TIMEOUT)
    process.say("go")
    return float(await process.line(LOAD_TIMEOUT)) / 1e6  # it tells microseconds


async def prepare_pgqueuer(address: str, size: int, jobs: int) -> Callable[[], Awaitable[int]]:
    """Fill PgQueuer's queue; return what drains it and returns the microseconds that took."""
    from time import monotonic  # noqa: PLC0415 - beside what belongs to it

    from pgqueuer import PgQueuer  # noqa: PLC0415 - an extra that need not be there
    from pgqueuer.db import AsyncpgDriver  # noqa: PLC0415
    from pgqueuer.queries import Queries  # noqa: PLC0415
    from pgqueuer.types import QueueExecutionMode  # noqa: PLC0415

    connection = await connect(address)
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    await queries.install()
    for first in range(0, jobs, AT_ONCE):
        many = min(AT_ONCE, jobs - first)
        await queries.enqueue([JOB] * many, [b"062569"] * many, [0] * many)
    await connection.execute("ANALYZE")
    queue = PgQueuer(driver)

    async def nothing(_: Any) -> None:  # noqa: ANN401 - PgQueuer's own job
        return

    queue.entrypoint(JOB)(nothing)

    async def drain() -> int:
        began = monotonic()
        await queue.run(
            dequeue_timeout=timedelta(seconds=1), batch_size=size, mode=QueueExecutionMode.drain
        )
        return int((monotonic() - began) * 1e6)

    return drain


async def prepare_procrastinate(
    address: str, concurrency: int, jobs: int
) -> Callable[[], Awaitable[int]]:
    """Fill Procrastinate's queue; return what drains it, as above."""
    from time import monotonic  # noqa: PLC0415 - beside what belongs to it

    from procrastinate import App, PsycopgConnector  # noqa: PLC0415 - an extra as well

    app = App(connector=PsycopgConnector(conninfo=address, min_size=4, max_size=16))

    async def nothing(text: str) -> None:
        del text

    task: Any = app.task(name=JOB)(nothing)
    await app.open_async()
    await app.schema_manager.apply_schema_async()
    for first in range(0, jobs, AT_ONCE):
        many = min(AT_ONCE, jobs - first)
        await task.batch_defer_async(*[{"text": "062569"}] * many)
    connection = await connect(address)
    await connection.execute("ANALYZE")
    await connection.close()

    async def drain() -> int:
        began = monotonic()
        await app.run_worker_async(
            wait=False,
            concurrency=concurrency,
            install_signal_handlers=False,
            listen_notify=False,
            delete_jobs="successful",
        )
        return int((monotonic() - began) * 1e6)

    return drain
