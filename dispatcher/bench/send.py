"""From pending rows to outcomes on disk: `send`, with the floor and the usual way beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from msgspec import Struct, json

from dispatcher.bench.children import Child, ChildError, child
from dispatcher.bench.meter import Meter, Sample
from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.stage import Stage, statement
from dispatcher.db.admin import pause, resume
from dispatcher.db.database import OwnConnection, connect

APP = "default"
RATE = "messages per second"
KEY, SECRET = "bench", "bench-secret"
LOOK = 0.02  # seconds between two looks at the counters: what a run's time is measured to
LOAD_TIMEOUT = 900.0


class Variant(Struct, frozen=True):
    """One way to send the same messages."""

    way: str  # send, floor, usual
    workers: int
    own_texts: bool = True

    @property
    def name(self) -> str:
        """How it is called in tables."""
        text = "" if self.own_texts else ", one text"
        return f"{self.way}, {self.workers} worker{'s' if self.workers > 1 else ''}{text}"


VARIANTS = (
    Variant("floor", 2),
    Variant("usual", 2),
    Variant("send", 2),
    Variant("floor", 1),
    Variant("send", 1),
    Variant("send", 2, own_texts=False),
)


async def measure(
    stage: Stage, *, rounds: int, messages: int, say: Callable[[str], None]
) -> Results:
    """Measure all variants, *rounds* times."""
    results = Results(
        "send",
        {"messages": messages, "rounds": rounds, "concurrency": 8, "synchronous_commit": "on"},
    )
    by_name = {variant.name: variant for variant in VARIANTS}
    async with stage.prepared():
        for number in range(rounds):
            for name in in_turn(by_name, number):
                sample = await run_once(stage, by_name[name], messages)
                rate = add(results, name, sample, messages)
                say(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} messages/s")
    for workers in (1, 2):
        many = f"{workers} worker{'s' if workers > 1 else ''}"
        results.compare(RATE, f"send, {many}", f"floor, {many}")
    results.compare(RATE, "send, 2 workers", "usual, 2 workers")
    return results


async def run_once(stage: Stage, variant: Variant, messages: int) -> Sample:
    """Send *messages* once, in a database of their own."""
    async with stage.database() as address:
        connection = await connect(address)
        try:
            await load(connection, variant, messages)
            return await RUNS[variant.way](stage, address, connection, variant, messages)
        finally:
            await connection.close()


def add(results: Results, name: str, sample: Sample, messages: int) -> float:
    """Note what one run took for each message; return its rate."""
    rate = messages / sample.seconds
    results.add(name, RATE, rate)
    each = 1e6 / messages
    results.add(name, "worker CPU per message", sample.workers * each, "µs")
    if sample.server is not None:
        results.add(name, "PostgreSQL CPU per message", sample.server * each, "µs")
    if sample.simulator is not None:
        results.add(name, "simulator CPU per message", sample.simulator * each, "µs")
    results.add(name, "WAL per message", sample.wal / messages, "bytes")
    results.add(name, "peak memory of a worker", sample.memory / 2**20, "MiB")
    return rate


async def load(connection: OwnConnection, variant: Variant, messages: int) -> None:
    """Fill the tables of *variant*; nothing of it is sent until the app is resumed."""
    await pause(connection, APP, "the benchmark begins in a moment")
    if variant.way == "usual":
        await connection.execute(statement("usual_table"))
        await connection.execute(
            statement("usual_load"), messages, variant.own_texts, timeout=LOAD_TIMEOUT
        )
        # Without fresh statistics its plans go wrong; ours must do without.
        await connection.execute("ANALYZE usual.message")
    else:
        await connection.execute(
            statement("load_messages"), messages, variant.own_texts, 5, 0.0, timeout=LOAD_TIMEOUT
        )


@asynccontextmanager
async def simulator(stage: Stage, *more: str) -> AsyncIterator[tuple[Child, str]]:
    """Run the simulator; give its process and its address."""
    arguments = ["simulate", "--key", KEY, "--secret", SECRET, *more]
    async with child("the simulator", arguments, log=stage.log("simulator")) as process:
        yield process, await process.line()


@asynccontextmanager
async def worker(
    stage: Stage, number: int, address: str, url: str, **app: str
) -> AsyncIterator[Child]:
    """Run a worker on the database at *address* that sends to *url*."""
    settings = {
        "DISPATCHER_DATABASE_URL": address,
        "DISPATCHER_DATA_DIR": str(stage.folder / f"worker-{number}"),
        "DISPATCHER_LISTEN": "127.0.0.1:0",
        "DISPATCHER_LOG_FORMAT": "json",
        "DISPATCHER_APPS__DEFAULT__ENDPOINT": url,
        "DISPATCHER_APPS__DEFAULT__APP_KEY": KEY,
        "DISPATCHER_APPS__DEFAULT__APP_SECRET": SECRET,
        "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND": "none",
        **app,
    }
    async with child(
        f"worker {number}",
        ["run", "--only", "worker"],
        log=stage.log(f"worker-{number}"),
        settings=settings,
    ) as process:
        yield process


async def workers_ready(connection: OwnConnection, workers: list[Child]) -> None:
    """Wait until all of *workers* have announced themselves."""
    while await connection.fetchval(statement("workers_alive")) < len(workers):
        for each in workers:
            each.must_live()
        await asyncio.sleep(LOOK)


async def send(
    stage: Stage,
    address: str,
    connection: OwnConnection,
    variant: Variant,
    messages: int,
    *,
    more: bool = False,
    warm_up: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Sample:
    """Send *messages* that are loaded, and no others, unless there are *more*.

    With *warm_up* they are loaded here, after the workers have sent so many others: what a worker
    looks at once, when it starts, is then not measured. The workers have the *settings* besides
    what they need.
    """
    async with AsyncExitStack() as stack:
        sim, url = await stack.enter_async_context(simulator(stage))
        workers = [
            await stack.enter_async_context(worker(stage, number, address, url, **settings or {}))
            for number in range(variant.workers)
        ]
        await workers_ready(connection, workers)
        if warm_up:
            await load(connection, variant, warm_up)
            await _finish(connection, workers, warm_up)
            await load(connection, variant, messages)
        meter = Meter(stage, connection, workers, sim)
        await meter.begin()
        await _finish(connection, workers, messages)
        sample = await meter.end()
        if not more:
            await _witness(url, messages, warm_up)
    return sample


async def _finish(connection: OwnConnection, workers: list[Child], messages: int) -> None:
    """Let the *workers* send until so many more *messages* have an outcome."""
    wanted = messages + await connection.fetchval(statement("finished"))
    await resume(connection, APP)
    while await connection.fetchval(statement("finished")) < wanted:
        for each in workers:
            each.must_live()
        await asyncio.sleep(LOOK)


async def _floor(
    stage: Stage, address: str, connection: OwnConnection, variant: Variant, messages: int
) -> Sample:
    await resume(connection, APP)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                child(
                    f"floor {number}",
                    ["floor", address, str(number)],
                    module="dispatcher.bench",
                    log=stage.log(f"floor-{number}"),
                )
            )
            for number in range(variant.workers)
        ]
        return await _race(stage, connection, workers, None, messages)


async def _usual(
    stage: Stage, address: str, connection: OwnConnection, variant: Variant, messages: int
) -> Sample:
    async with AsyncExitStack() as stack:
        sim, url = await stack.enter_async_context(simulator(stage))
        workers = [
            await stack.enter_async_context(
                child(
                    f"usual {number}",
                    ["usual", address, url, str(number)],
                    module="dispatcher.bench",
                    log=stage.log(f"usual-{number}"),
                )
            )
            for number in range(variant.workers)
        ]
        sample = await _race(stage, connection, workers, sim, messages)
        await _witness(url, messages)
    return sample


async def _race(
    stage: Stage,
    connection: OwnConnection,
    workers: list[Child],
    sim: Child | None,
    messages: int,
) -> Sample:
    """Let all *workers* begin at once; return what it took until the last one found no more."""
    for each in workers:
        await each.line()
    meter = Meter(stage, connection, workers, sim)
    await meter.begin()
    for each in workers:
        each.say("go")
    taken = [int(await each.line(LOAD_TIMEOUT)) for each in workers]
    sample = await meter.end()
    if sum(taken) != messages:
        raise ChildError(f"{sum(taken)} of {messages} messages were taken")
    return sample


async def _witness(url: str, messages: int, warm_up: int = 0) -> None:
    """Raise ChildError unless the simulator accepted every number once, and in a warm-up once."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_accepted") as answer:
        seen = json.decode(await answer.read(), type=Seen)
    if seen.numbers != messages + warm_up or len(seen.accepted) != max(messages, warm_up):
        raise ChildError(f"the simulator accepted {seen.numbers} numbers, not {messages}")


class Seen(Struct):
    """What the simulator says it accepted."""

    numbers: int
    accepted: dict[str, int]


Run = Callable[[Stage, str, OwnConnection, Variant, int], Awaitable[Sample]]
RUNS: dict[str, Run] = {"send": send, "floor": _floor, "usual": _usual}
