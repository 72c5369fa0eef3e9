"""`send`: messages per second from queue rows to outcomes, through the simulated provider."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.children import Child, ChildError, run_child
from dispatcher.bench.environment import Environment
from dispatcher.bench.results import Results, rotated
from dispatcher.bench.sampling import Sample, Sampler
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.operator import pause, resume

APP = "default"
APP_KEY, APP_SECRET = "bench", "bench-secret"
RATE_FIGURE = "messages per second"
POLL_INTERVAL_SECONDS = 0.02  # of the counters: the resolution of a run's duration
LOAD_TIMEOUT_SECONDS = 900.0
INSERTING_CLIENTS = 8  # of messages that are inserted one by one
RUN_SETTINGS = {"concurrency": 8, "synchronous_commit": "on"}

Run = Callable[[Environment, int], Awaitable[Sample]]  # how many messages to send, once


class Variant(Struct, frozen=True):
    """Workers that send, and whether each message has its own text."""

    workers: int
    own_texts: bool = True
    one_by_one: bool = False  # inserted in a transaction each

    @property
    def name(self) -> str:
        """Its name in tables."""
        text = "" if self.own_texts else ", one text"
        inserted = ", inserted one by one" if self.one_by_one else ""
        return f"send, {plural_workers(self.workers)}{text}{inserted}"

    async def run(self, environment: Environment, messages: int) -> Sample:
        """Send *messages* once, in a new database."""
        async with environment.database() as address:
            connection = await connect(address)
            try:
                if self.one_by_one:
                    await load_one_by_one(address, connection, messages)
                else:
                    await load(connection, messages, own_texts=self.own_texts)
                return await send(environment, address, connection, self, messages)
            finally:
                await connection.close()


VARIANTS = (Variant(2), Variant(1), Variant(2, own_texts=False))


def plural_workers(workers: int) -> str:
    """Return "1 worker" or "2 workers"."""
    return f"{workers} worker{'s' if workers > 1 else ''}"


async def measure(
    environment: Environment, *, rounds: int, messages: int, progress: Callable[[str], None]
) -> Results:
    """Measure all variants, *rounds* times."""
    results = Results("send", {"messages": messages, "rounds": rounds, **RUN_SETTINGS})
    runs: dict[str, Run] = {variant.name: variant.run for variant in VARIANTS}
    await measure_runs(
        environment, results, runs, rounds=rounds, messages=messages, progress=progress
    )
    return results


async def measure_runs(
    environment: Environment,
    results: Results,
    runs: Mapping[str, Run],
    *,
    rounds: int,
    messages: int,
    progress: Callable[[str], None],
) -> None:
    """Do each of *runs* once in each round, and add what it took to *results*."""
    async with environment.template():
        for number in range(rounds):
            for name in rotated(runs, number):
                sample = await runs[name](environment, messages)
                rate = add_sample(results, name, sample, messages)
                progress(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} messages/s")


def add_sample(results: Results, name: str, sample: Sample, messages: int) -> float:
    """Add what one run took for each message; return its rate."""
    rate = messages / sample.seconds
    results.add(name, RATE_FIGURE, rate)
    micros_per_message = 1e6 / messages
    results.add(name, "worker CPU per message", sample.worker_cpu * micros_per_message, "µs")
    if sample.server_cpu is not None:
        results.add(
            name, "PostgreSQL CPU per message", sample.server_cpu * micros_per_message, "µs"
        )
    if sample.simulator_cpu is not None:
        results.add(
            name, "simulator CPU per message", sample.simulator_cpu * micros_per_message, "µs"
        )
    results.add(name, "WAL per message", sample.wal_bytes / messages, "bytes")
    results.add(name, "peak memory of a worker", sample.peak_memory_bytes / 2**20, "MiB")
    return rate


async def load(connection: OwnConnection, messages: int, *, own_texts: bool = True) -> None:
    """Insert *messages*; none is sent until the app is resumed."""
    await pause(connection, "benchmark", APP, "the benchmark begins in a moment")
    await load_messages(connection, messages, own_texts=own_texts)


async def load_one_by_one(address: str, connection: OwnConnection, messages: int) -> None:
    """Insert *messages* in a transaction each; none is sent until the app is resumed."""
    await pause(connection, "benchmark", APP, "the benchmark begins in a moment")

    async def insert(numbers: range) -> None:
        client = await connect(address)
        try:
            statement = await client.prepare(query("insert_message"))
            for number in numbers:
                await statement.fetch(number)
        finally:
            await client.close()

    async with asyncio.TaskGroup() as tasks:
        for first in range(1, INSERTING_CLIENTS + 1):
            tasks.create_task(insert(range(first, messages + 1, INSERTING_CLIENTS)))


async def load_messages(
    connection: OwnConnection,
    messages: int,
    *,
    own_texts: bool = True,
    priority: int = 5,
    due_in_seconds: float = 0.0,
) -> None:
    """Insert *messages* with distinct numbers, in one statement."""
    await connection.execute(
        query("load_messages"),
        messages,
        own_texts,
        priority,
        due_in_seconds,
        timeout=LOAD_TIMEOUT_SECONDS,
    )


@asynccontextmanager
async def run_simulator(
    environment: Environment, *options: str
) -> AsyncIterator[tuple[Child, str]]:
    """Run the simulator; yield its process and its address."""
    arguments = ["simulate", "--key", APP_KEY, "--secret", APP_SECRET, *options]
    async with run_child("the simulator", arguments, log=environment.log("simulator")) as process:
        yield process, await process.read_line()


@asynccontextmanager
async def run_worker(
    environment: Environment,
    number: int,
    address: str,
    url: str,
    *,
    module: str = "dispatcher",
    under: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Child]:
    """Run a worker on the database at *address* that sends to *url*; see `run_child`."""
    all_settings = {
        "DISPATCHER_DATABASE_URL": address,
        "DISPATCHER_DATA_DIR": str(environment.folder / f"worker-{number}"),
        "DISPATCHER_LISTEN": "127.0.0.1:0",
        "DISPATCHER_LOG_FORMAT": "json",
        "DISPATCHER_APPS__DEFAULT__ENDPOINT": url,
        "DISPATCHER_APPS__DEFAULT__APP_KEY": APP_KEY,
        "DISPATCHER_APPS__DEFAULT__APP_SECRET": APP_SECRET,
        "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND": "none",
        **settings,
    }
    async with run_child(
        f"worker {number}",
        ["run", "--only", "worker"],
        log=environment.log(f"worker-{number}"),
        settings=all_settings,
        module=module,
        under=under,
    ) as process:
        yield process


async def wait_for_workers(connection: OwnConnection, workers: list[Child]) -> None:
    """Wait until all of *workers* are registered."""
    while await connection.fetchval(query("count_running_workers")) < len(workers):
        for each in workers:
            each.check_running()
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def send(
    environment: Environment,
    address: str,
    connection: OwnConnection,
    variant: Variant,
    messages: int,
    *,
    others_due: bool = False,
    warm_up: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Sample:
    """Send *messages*, already loaded, with the workers of *variant*.

    Args:
        environment: where to run.
        address: of the database.
        connection: to the same database.
        variant: the workers.
        messages: how many to wait for.
        others_due: the queue holds other due messages, so the simulator's count is not checked.
        warm_up: first load and send so many messages, then load *messages*: the first scan of a
            worker covers everything that was ever claimed and is not measured.
        settings: further settings of the workers.

    Raises:
        ChildError: a process ended, or the simulator did not accept each number once.

    """
    async with AsyncExitStack() as stack:
        sim, url = await stack.enter_async_context(run_simulator(environment))
        workers = [
            await stack.enter_async_context(
                run_worker(environment, number, address, url, **settings or {})
            )
            for number in range(variant.workers)
        ]
        await wait_for_workers(connection, workers)
        if warm_up:
            await load(connection, warm_up, own_texts=variant.own_texts)
            await send_all(connection, workers, warm_up)
            await load(connection, messages, own_texts=variant.own_texts)
        sampler = Sampler(environment, connection, workers, sim)
        await sampler.start()
        await send_all(connection, workers, messages)
        sample = await sampler.finish()
        if not others_due:
            await check_accepted(url, messages, warm_up)
    return sample


async def send_all(connection: OwnConnection, workers: list[Child], messages: int) -> None:
    """Resume the app; wait until *messages* more have an outcome."""
    wanted = messages + await connection.fetchval(query("count_outcomes"))
    await resume(connection, "benchmark", APP)
    while await connection.fetchval(query("count_outcomes")) < wanted:
        for each in workers:
            each.check_running()
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def check_accepted(url: str, messages: int, warm_up: int = 0) -> None:
    """Raise ChildError unless the simulator accepted each number once, and once in the warm-up."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_accepted") as answer:
        accepted = json.decode(await answer.read(), type=AcceptedNumbers)
    if accepted.numbers != messages + warm_up or len(accepted.accepted) != max(messages, warm_up):
        raise ChildError(f"the simulator accepted {accepted.numbers} numbers, not {messages}")


class AcceptedNumbers(Struct):
    """The numbers that the simulator accepted."""

    numbers: int
    accepted: dict[str, int]
