"""A process of the benchmark: ``python -m dispatcher.bench floor|usual|bare|post ...``.

It prints a line when it is ready, begins when it is sent one, and prints another when nothing is
left to do.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import uvloop

from dispatcher.bench import bare, floor, peers, posting, usual
from dispatcher.service.run import collect_rarely


async def _act(prepare: Callable[[], Awaitable[Callable[[], Awaitable[int]]]]) -> None:
    run = await prepare()
    print("ready", flush=True)  # noqa: T201 - the parent reads it
    await asyncio.to_thread(sys.stdin.readline)
    print(await run(), flush=True)  # noqa: T201 - and this
    await asyncio.to_thread(sys.stdin.readline)  # alive until its processor time is read


def main(arguments: list[str]) -> None:
    """Be the process that *arguments* ask for."""
    collect_rarely()
    match arguments:
        case ["floor", address, worker]:
            uvloop.run(_act(lambda: floor.prepare(address, int(worker))))
        case ["usual", address, endpoint, worker]:
            uvloop.run(_act(lambda: usual.prepare(address, endpoint, int(worker))))
        case ["pgqueuer", address, size, jobs]:
            uvloop.run(_act(lambda: peers.prepare_pgqueuer(address, int(size), int(jobs))))
        case ["procrastinate", address, concurrency, jobs]:
            prepare = peers.prepare_procrastinate
            asyncio.run(_act(lambda: prepare(address, int(concurrency), int(jobs))))
        case ["bare", port]:
            uvloop.run(bare.serve(int(port)))
        case ["post", port, path, *numbers]:
            uvloop.run(posting.main(port, path, *numbers))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
