"""A child process of a research benchmark: ``python -m bench.process NAME ...``.

It prints a line when it is ready, starts when it reads one, and prints the result at the end.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import http_baseline, peers, single_table, sql_baseline
from dispatcher.service.run import collect_rarely


async def _run(prepare: Callable[[], Awaitable[Callable[[], Awaitable[int]]]]) -> None:
    run = await prepare()
    print("ready", flush=True)  # noqa: T201 - the parent process reads it
    await asyncio.to_thread(sys.stdin.readline)
    print(await run(), flush=True)  # noqa: T201 - as above
    await asyncio.to_thread(sys.stdin.readline)  # runs until its processor time is read


def main(arguments: list[str]) -> None:
    """Run the process that *arguments* name."""
    collect_rarely()
    match arguments:
        case ["sql-baseline", address, worker]:
            uvloop.run(_run(lambda: sql_baseline.prepare(address, int(worker))))
        case ["single-table", address, endpoint, worker]:
            uvloop.run(_run(lambda: single_table.prepare(address, endpoint, int(worker))))
        case ["pgqueuer", address, size, jobs]:
            uvloop.run(_run(lambda: peers.prepare_pgqueuer(address, int(size), int(jobs))))
        case ["procrastinate", address, concurrency, jobs]:
            prepare = peers.prepare_procrastinate
            asyncio.run(_run(lambda: prepare(address, int(concurrency), int(jobs))))
        case ["node", *rest]:
            os.execvp("node", ["node", str(Path(__file__).parent / "node/peer.js"), *rest])
        case ["http-baseline", port]:
            uvloop.run(http_baseline.serve(int(port)))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
