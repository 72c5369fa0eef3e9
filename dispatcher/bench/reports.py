"""Reports taken in by one receiver process: `reports`, with the bare handler beside it.

The ratio is of one round: both are posted to by the same generator, one after the other, for the
same time. The receiver's messages are there and accepted, so that matching works behind it; that
it keeps up is seen by what waits for it at the end.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from msgspec import json

from dispatcher.bench import processes
from dispatcher.bench.children import Child, ChildError, child
from dispatcher.bench.posting import Posted
from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.stage import Stage, statement
from dispatcher.db.pool import OwnConnection, connect
from dispatcher.db.reports import backlog

TOKEN = "bench-bench-bench"  # noqa: S105 - of a receiver that nobody else can reach
PATH = f"/reports/{TOKEN}"
MODULE = "dispatcher.bench"
MOST_A_SECOND = 12_000  # reports made for each second; more than one process can take
CATCH_UP = 60.0  # seconds for what waits to be matched at the end
LOOK = 0.2


async def measure(
    stage: Stage, *, rounds: int, seconds: float, connections: int, say: Callable[[str], None]
) -> Results:
    """Measure the receiver and the bare handler, *rounds* times *seconds* each."""
    results = Results(
        "reports",
        {
            "rounds": rounds,
            "seconds": seconds,
            "connections": connections,
            "synchronous_commit": "on",
        },
    )
    batches = -(-int(seconds * MOST_A_SECOND) // 500)
    async with stage.prepared():
        for number in range(rounds):
            for name in in_turn(("receiver", "bare"), number):
                measured = _receiver if name == "receiver" else _bare
                posted = await measured(stage, batches, seconds, connections, results)
                rate = posted.answered / posted.seconds
                results.add(name, "reports", rate, "/s")
                results.add(name, "answer, median", posted.p50 * 1000, "ms")
                results.add(name, "answer, 99 %", posted.p99 * 1000, "ms")
                if posted.refused:
                    raise ChildError(f"{name} refused {posted.refused} reports")
                say(f"round {number + 1} of {rounds}: {name}: {rate:,.0f} reports/s")
    results.compare("reports", "receiver", "bare")
    results.compare("processor time a report", "receiver", "bare")
    return results


async def _bare(
    stage: Stage, batches: int, seconds: float, connections: int, results: Results
) -> Posted:
    port = _free_port()
    arguments = ["bare", str(port)]
    async with child("bare", arguments, log=stage.log("bare"), module=MODULE) as bare:
        await bare.line()
        async with _posting(stage, port, batches, seconds, connections) as poster:
            return await _posted(poster, bare, seconds, results)


async def _receiver(
    stage: Stage, batches: int, seconds: float, connections: int, results: Results
) -> Posted:
    async with stage.database() as dsn:
        connection = await connect(dsn)
        await connection.execute(statement("load_reported"), batches)
        await connection.execute("ANALYZE dispatcher.message, dispatcher.outcome, dispatcher.batch")
        waiting: list[int] = []
        async with (
            _receiving(stage, dsn) as (port, receiver),
            _posting(stage, port, batches, seconds, connections) as poster,
        ):
            over = asyncio.Event()
            watching = asyncio.create_task(_watch(connection, waiting, over))
            posted = await _posted(poster, receiver, seconds, results)
            over.set()
            await watching
            behind = await _catch_up(connection, posted.answered)
        await connection.close()
    half = len(waiting) // 2
    results.add("receiver", "waiting to be matched, first half", max(waiting[:half], default=0))
    results.add("receiver", "waiting to be matched, second half", max(waiting[half:], default=0))
    results.add("receiver", "all matched after", behind, "s")
    return posted


async def _watch(connection: OwnConnection, waiting: list[int], over: asyncio.Event) -> None:
    """Note again and again how many reports wait to be matched."""
    while not over.is_set():
        waiting.append((await backlog(connection)).reports)
        await asyncio.sleep(LOOK)


async def _catch_up(connection: OwnConnection, answered: int) -> float:
    """Wait until every answered report is matched; return how long that took."""
    began = monotonic()
    while (matched := await connection.fetchval(statement("reports_matched"))) < answered:
        if monotonic() - began > CATCH_UP:
            raise ChildError(f"{answered - matched} reports were answered and are not matched")
        await asyncio.sleep(LOOK)
    return monotonic() - began


@asynccontextmanager
async def _receiving(stage: Stage, dsn: str) -> AsyncIterator[tuple[int, Child]]:
    """Run a receiver on a port of its own."""
    port = _free_port()
    settings = {
        "DISPATCHER_DATABASE_URL": dsn,
        "DISPATCHER_DATA_DIR": str(stage.folder / "receiver"),
        "DISPATCHER_LISTEN": f"127.0.0.1:{port}",
        "DISPATCHER_REPORT_PATH_TOKEN": TOKEN,
        "DISPATCHER_LOG_FORMAT": "json",
    }
    log = stage.log("receiver")
    async with child("receiver", ["run", "--only", "reports"], log=log, settings=settings) as one:
        await _listens(one, port)
        yield port, one


async def _listens(receiver: Child, port: int) -> None:
    began = monotonic()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            receiver.must_live()
            if monotonic() - began > CATCH_UP:
                raise ChildError("the receiver does not listen") from None
            await asyncio.sleep(LOOK)
        else:
            writer.close()
            return


@asynccontextmanager
async def _posting(
    stage: Stage, port: int, batches: int, seconds: float, connections: int
) -> AsyncIterator[Child]:
    """Run the generator; it has begun when this gives it."""
    arguments = ["post", str(port), PATH, str(batches), str(seconds), str(connections)]
    async with child("poster", arguments, log=stage.log("poster"), module=MODULE) as poster:
        await poster.line()
        yield poster


async def _posted(poster: Child, server: Child, seconds: float, results: Results) -> Posted:
    """Wait until the generator has ended; note what one report cost *server*."""
    before = processes.seconds(server.pid)
    posted = json.decode(await poster.line(seconds + CATCH_UP), type=Posted)
    spent = processes.seconds(server.pid) - before
    results.add(server.name, "processor time a report", spent / posted.answered * 1e6, "µs")
    return posted


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
