"""Counts the instructions that the worker and the receiver execute for a message or a report.

Rates swing by a factor of two with the load of a machine; the number of instructions does not, so
it shows a difference of two per cent. valgrind counts them, because many virtual machines have no
counters for `perf`. One worker sends to the simulator in a process of its own; 64 connections
post reports in step with each other; hashes have no random seed.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qsl

from msgspec import json

from dispatcher.bench.children import Child, ChildError
from dispatcher.bench.environment import (
    RECEIVER_PATH,
    Environment,
    run_receiver,
)
from dispatcher.bench.posting import encode_request, report_order
from dispatcher.bench.send import load, run_simulator, run_worker, send_all, wait_for_workers
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect

MODULE = "bench.stretched"
REPEATABLE = {"PYTHONHASHSEED": "0"}
WARM_UP_MESSAGES = 5_000  # they open the connections and prepare the statements
WARM_UP_REPORTS = 500
CONNECTIONS = 64  # that post reports
REPORTS_PER_BATCH_POST = 50  # the most that the provider puts into one POST
REPORTS_RATIO = 10  # a report costs ten times a message: a tenth of them is counted
MATCH_TIMEOUT_SECONDS = 600.0
POLL_INTERVAL_SECONDS = 0.2

Figures = dict[str, float]  # instructions for a message or a report, by part


def require_valgrind() -> None:
    """Raise ChildError where valgrind is missing."""
    if not (shutil.which("valgrind") and shutil.which("vgdb")):
        raise ChildError("valgrind is missing: apt install valgrind")


def _valgrind(folder: Path) -> list[str]:
    """Return the command that counts, once it is switched on, what the rest of it executes."""
    return [
        "valgrind",
        "-q",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--vgdb-prefix={folder}/vgdb",
        f"--callgrind-out-file={folder}/callgrind.%p",
    ]


class Counter:
    """Counts the instructions of a process between two points."""

    def __init__(self, folder: Path, process: Child) -> None:
        self._folder = folder
        self._pid = process.pid

    async def start(self) -> None:
        """Begin to count."""
        await self._control("instrumentation", "on")

    async def finish(self) -> int:
        """Return the instructions since `start`."""
        await self._control("instrumentation", "off")
        await self._control("dump")
        files = self._folder.glob(f"callgrind.{self._pid}.*")
        newest = max(files, key=lambda file: int(file.suffix[1:]))
        lines = newest.read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("totals:"))

    async def _control(self, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "vgdb",
            f"--vgdb-prefix={self._folder}/vgdb",
            f"--pid={self._pid}",
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise ChildError(f"vgdb cannot reach process {self._pid}: {output.decode().strip()}")


@asynccontextmanager
async def _database(environment: Environment) -> AsyncIterator[tuple[str, OwnConnection]]:
    async with environment.database() as address:
        connection = await connect(address)
        try:
            yield address, connection
        finally:
            await connection.close()


async def count_worker(environment: Environment, messages: int) -> Figures:
    """Count what one worker executes for each of *messages*, of its own text each."""
    async with (
        _database(environment) as (address, connection),
        run_simulator(environment) as (_, url),
        run_worker(
            environment,
            1,
            address,
            url,
            module=MODULE,
            under=_valgrind(environment.folder),
            **REPEATABLE,
        ) as worker,
    ):
        await wait_for_workers(connection, [worker])
        await load(connection, WARM_UP_MESSAGES)
        await send_all(connection, [worker], WARM_UP_MESSAGES)
        await load(connection, messages)
        counter = Counter(environment.folder, worker)
        await counter.start()
        await send_all(connection, [worker], messages)
        return {"worker": await counter.finish() / messages}


async def count_receiver(environment: Environment, messages: int) -> Figures:
    """Count what a receiver executes for a report, one in a POST, and many."""
    count = max(CONNECTIONS, messages // REPORTS_RATIO)
    figures: Figures = {}
    async with (
        _database(environment) as (address, connection),
        run_receiver(
            environment, address, module=MODULE, under=_valgrind(environment.folder), **REPEATABLE
        ) as (port, receiver),
    ):
        batches = -(-2 * (count + WARM_UP_REPORTS) // 500)
        await connection.execute(query("load_accepted_batches"), batches)
        numbers = report_order(0, batches)
        matched = 0
        for name, per_post in (
            ("one in a POST", 1),
            (f"{REPORTS_PER_BATCH_POST} in a POST", REPORTS_PER_BATCH_POST),
        ):
            matched += WARM_UP_REPORTS
            await _post(port, _requests(numbers, WARM_UP_REPORTS, per_post))
            await _wait_until_matched(connection, matched)
            counter = Counter(environment.folder, receiver)
            await counter.start()
            matched += count
            await _post(port, _requests(numbers, count, per_post))
            await _wait_until_matched(connection, matched)
            figures[f"receiver, {name}"] = await counter.finish() / count
    return figures


def _requests(numbers: Iterator[int], count: int, per_post: int) -> Iterator[bytes]:
    """Yield HTTP requests for the next *count* of *numbers*."""
    for _ in range(0, count, per_post):
        single = [encode_request(number, RECEIVER_PATH) for number in islice(numbers, per_post)]
        yield single[0] if per_post == 1 else batch_request(single, RECEIVER_PATH)


def batch_request(single: Sequence[bytes], path: str) -> bytes:
    """Return one request with the reports of *single* requests, as batch callbacks have them."""
    reports = [dict(parse_qsl(each.partition(b"\r\n\r\n")[2].decode())) for each in single]
    body = json.encode({"statusReportList": reports})
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _post(port: int, requests: Iterator[bytes]) -> None:
    """Post in rounds: each connection one request, then all wait for all answers.

    So the receiver finds the same posts together in each run, however slow it is.
    """
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    while round_ := list(islice(requests, CONNECTIONS)):
        for request, (_, writer) in zip(round_, opened, strict=False):
            writer.write(request)
        for _, (reader, _) in zip(round_, opened, strict=False):
            answer = await reader.readuntil(b"}")  # every answer is one JSON object
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ChildError("the receiver refused a report")
    for _, writer in opened:
        writer.close()
        await writer.wait_closed()


async def _wait_until_matched(connection: OwnConnection, reports: int) -> None:
    deadline = monotonic() + MATCH_TIMEOUT_SECONDS
    while await connection.fetchval(query("count_matched_reports")) < reports:
        if monotonic() > deadline:
            raise ChildError("reports were answered and are not matched")
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
