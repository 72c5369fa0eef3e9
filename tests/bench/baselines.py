"""`baselines`: `send` beside the same SQL alone, and beside the usual single table."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from bench import single_table
from dispatcher.bench.children import Child, ChildError, run_child
from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results
from dispatcher.bench.sampling import Sample, Sampler
from dispatcher.bench.send import (
    APP,
    LOAD_TIMEOUT_SECONDS,
    RATE_FIGURE,
    RUN_SETTINGS,
    Run,
    Variant,
    check_accepted,
    load,
    measure_runs,
    plural_workers,
    run_simulator,
)
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.operator import resume

PROCESS_MODULE = "bench.process"


async def measure(
    environment: Environment, *, rounds: int, messages: int, progress: Callable[[str], None]
) -> Results:
    """Measure `send` and both baselines, *rounds* times."""
    results = Results("baselines", {"messages": messages, "rounds": rounds, **RUN_SETTINGS})
    runs: dict[str, Run] = {
        "sql baseline, 2 workers": partial(_run_sql_baseline, workers=2),
        "single table, 2 workers": partial(_run_single_table, workers=2),
        "send, 2 workers": Variant(2).run,
        "sql baseline, 1 worker": partial(_run_sql_baseline, workers=1),
        "send, 1 worker": Variant(1).run,
        "send, 2 workers, one text": Variant(2, own_texts=False).run,
        "send, 2 workers, inserted one by one": Variant(2, one_by_one=True).run,
    }
    await measure_runs(
        environment, results, runs, rounds=rounds, messages=messages, progress=progress
    )
    for workers in map(plural_workers, (1, 2)):
        results.compare(RATE_FIGURE, f"send, {workers}", f"sql baseline, {workers}")
    results.compare(RATE_FIGURE, "send, 2 workers", "single table, 2 workers")
    return results


async def _run_sql_baseline(environment: Environment, messages: int, *, workers: int) -> Sample:
    async with environment.database() as address, AsyncExitStack() as stack:
        connection = await connect(address)
        stack.push_async_callback(connection.close)
        await load(connection, messages)
        await resume(connection, "benchmark", APP)
        processes = [
            await stack.enter_async_context(
                run_child(
                    f"sql baseline {number}",
                    ["sql-baseline", address, str(number)],
                    module=PROCESS_MODULE,
                    log=environment.log(f"sql-baseline-{number}"),
                )
            )
            for number in range(workers)
        ]
        return await time_processes(environment, connection, processes, None, messages)


async def _run_single_table(environment: Environment, messages: int, *, workers: int) -> Sample:
    async with environment.database() as address, AsyncExitStack() as stack:
        connection = await connect(address)
        stack.push_async_callback(connection.close)
        await single_table.load(connection, messages)
        simulator, url = await stack.enter_async_context(run_simulator(environment))
        processes = [
            await stack.enter_async_context(
                run_child(
                    f"single table {number}",
                    ["single-table", address, url, str(number)],
                    module=PROCESS_MODULE,
                    log=environment.log(f"single-table-{number}"),
                )
            )
            for number in range(workers)
        ]
        sample = await time_processes(environment, connection, processes, simulator, messages)
        await check_accepted(url, messages)
        return sample


async def time_processes(
    environment: Environment,
    connection: OwnConnection,
    workers: list[Child],
    sim: Child | None,
    messages: int,
) -> Sample:
    """Start all *workers* at once; return what it took until the last one found no message."""
    for each in workers:
        await each.read_line()
    sampler = Sampler(environment, connection, workers, sim)
    await sampler.start()
    for each in workers:
        each.write_line("go")
    claimed = [int(await each.read_line(LOAD_TIMEOUT_SECONDS)) for each in workers]
    sample = await sampler.finish()
    if sum(claimed) != messages:
        raise ChildError(f"{sum(claimed)} of {messages} messages were claimed")
    return sample
