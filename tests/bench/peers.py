"""`peers`: other job queues drain jobs that do nothing, on the same server.

The comparison is not of equals: they run a callback for each job, the dispatcher sends batches
over HTTP. In the same rounds `send` runs with one worker, because they run one process too. Each
has the batch settings that its documents recommend. The processor time is that of the process and
of PostgreSQL together.
"""

import shutil
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from dispatcher.bench import proc
from dispatcher.bench.children import Child, ChildError, run_child
from dispatcher.bench.environment import Environment, postmaster
from dispatcher.bench.results import Results, rotated
from dispatcher.bench.send import LOAD_TIMEOUT_SECONDS, Variant
from dispatcher.db.database import connect

JOB_NAME = "nothing"
PGQUEUER_BATCH_SIZES = (10, 100, 500)  # its default, and those of its documents and benchmarks
PROCRASTINATE_CONCURRENCY = 100  # jobs at once, many more than its default
JOBS_PER_ENQUEUE_CALL = 5000
NODE_MODULES = Path(__file__).with_name("node") / "node_modules"
NODE_PEERS = {"Graphile Worker": "graphile-worker", "pg-boss": "pg-boss"}
CPU = "processor time a job"


def installed(progress: Callable[[str], None]) -> Iterator[tuple[str, list[str]]]:
    """Yield name and arguments of each peer that is here; say what leaves out the others."""
    if find_spec("pgqueuer"):
        for size in PGQUEUER_BATCH_SIZES:
            yield f"PgQueuer, batches of {size}", ["pgqueuer", str(size)]
    if find_spec("procrastinate"):
        yield "Procrastinate", ["procrastinate", str(PROCRASTINATE_CONCURRENCY)]
    for name, package in NODE_PEERS.items():
        if shutil.which("node") is None:
            progress(f"{name} is left out: node is missing")
        elif not (NODE_MODULES / package).is_dir():
            progress(f"{name} is left out: npm install --prefix tests/bench/node")
        else:
            yield name, ["node", package]


async def measure(
    environment: Environment,
    *,
    rounds: int,
    jobs: int,
    messages: int,
    progress: Callable[[str], None],
) -> Results:
    """Measure the installed ones (extra `bench`, and tests/bench/node), *rounds* times."""
    results = Results("peers", {"rounds": rounds, "jobs": jobs, "messages": messages})
    variants: dict[str, list[str]] = {"dispatcher": [], **dict(installed(progress))}
    results.notes.append(
        "The others run a callback for each job, and these callbacks do nothing; the dispatcher"
        " sends each message to the simulator over HTTP and records the answer."
    )
    async with environment.template():
        for number in range(rounds):
            for name in rotated(variants, number):
                if name == "dispatcher":
                    sample = await Variant(1).run(environment, messages)
                    rate = messages / sample.seconds
                    cpu = (sample.worker_cpu + (sample.server_cpu or 0.0)) / messages
                else:
                    try:
                        rate, cpu = await _drain(environment, variants[name], jobs)
                    except ChildError as error:  # as with a Node that is too old for it
                        progress(f"{name} is left out: {error}")
                        del variants[name]
                        continue
                results.add(name, CPU, cpu * 1e6, "µs")  # the figure that `plot` draws
                results.add(name, "per second", rate)
                progress(f"round {number + 1} of {rounds}: {name}: {rate:,.0f}/s")
    for name in variants:
        if name != "dispatcher":
            results.compare("per second", "dispatcher", name)
            results.compare(CPU, name, "dispatcher")
    return results


async def _drain(environment: Environment, arguments: list[str], jobs: int) -> tuple[float, float]:
    """Return jobs a second, and the processor seconds of a job."""
    name, *settings = arguments
    first, rest = (settings, []) if name == "node" else ([], settings)  # before the address
    async with environment.database() as address:
        connection = await connect(address)
        try:
            server = await postmaster(connection) if environment.local else None
        finally:
            await connection.close()
        async with run_child(
            name,
            [name, *first, address, *rest, str(jobs)],
            module="bench.process",
            log=environment.log(name),
        ) as process:
            await process.read_line(LOAD_TIMEOUT_SECONDS)
            before = _cpu_seconds(process, server)
            process.write_line("go")
            seconds = float(await process.read_line(LOAD_TIMEOUT_SECONDS)) / 1e6
            return jobs / seconds, (_cpu_seconds(process, server) - before) / jobs


def _cpu_seconds(process: Child, server: int | None) -> float:
    return proc.seconds(process.pid) + (0.0 if server is None else proc.server_seconds(server))


async def prepare_pgqueuer(address: str, size: int, jobs: int) -> Callable[[], Awaitable[int]]:
    """Fill PgQueuer's queue; return a function that drains it and returns the microseconds."""
    from pgqueuer import PgQueuer  # noqa: PLC0415 - of the extra `bench`
    from pgqueuer.db import AsyncpgDriver  # noqa: PLC0415
    from pgqueuer.queries import Queries  # noqa: PLC0415
    from pgqueuer.types import QueueExecutionMode  # noqa: PLC0415

    connection = await connect(address)
    driver = AsyncpgDriver(connection)
    queries = Queries(driver)
    await queries.install()
    for first in range(0, jobs, JOBS_PER_ENQUEUE_CALL):
        many = min(JOBS_PER_ENQUEUE_CALL, jobs - first)
        await queries.enqueue([JOB_NAME] * many, [b"062569"] * many, [0] * many)
    await connection.execute("ANALYZE")
    queue = PgQueuer(driver)

    async def nothing(_: Any) -> None:
        return

    queue.entrypoint(JOB_NAME)(nothing)

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
    """Fill Procrastinate's queue; return a function that drains it and returns the microseconds."""
    from procrastinate import App, PsycopgConnector  # noqa: PLC0415 - of the extra `bench`

    app = App(connector=PsycopgConnector(conninfo=address, min_size=4, max_size=16))

    async def nothing(text: str) -> None:
        del text

    task: Any = app.task(name=JOB_NAME)(nothing)
    await app.open_async()
    await app.schema_manager.apply_schema_async()
    for first in range(0, jobs, JOBS_PER_ENQUEUE_CALL):
        many = min(JOBS_PER_ENQUEUE_CALL, jobs - first)
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
