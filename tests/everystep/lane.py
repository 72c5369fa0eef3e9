"""Does many runs at a time in one process: jobs come in as JSON lines, results go out."""

import asyncio
import dataclasses
import itertools
import json
import logging
import shutil
import sys
from pathlib import Path
from time import monotonic

import uvloop

from everystep.fork_server import ForkServer
from everystep.run import Job, Result, run
from everystep.servers import Server
from everystep.steps import POSTGRES

# A machine that is busy passes each message of a run later, time-outs end what would have gone
# well, and its repetition keeps the machine busier still: measured, half as many runs a minute.
MOST_LATE = 0.05  # seconds
LOOK = 0.1  # seconds between two looks
WEIGHT = 0.05  # of the last look in the mean
STOOD_STILL = 3.0  # seconds late: time-outs of the scene may have ended what would have gone well
BETWEEN_STARTS = 0.5  # seconds: what a start costs shows in the next looks


class Lane:
    """One server for what leaves it alive, and some that are killed.

    Runs begin while this process keeps up.
    """

    def __init__(self, folder: Path, base: Path, kept: Path) -> None:
        """*kept*: where the logs of runs go that ended ill."""
        self._kept = kept
        self._folder = folder
        self._base = base
        self._numbers = itertools.count(1)
        self._shared: Server | None = None
        self._mortal: asyncio.LifoQueue[Server] = asyncio.LifoQueue()
        self._servers: list[Server] = []
        self._running = 0
        self._stood_still = 0.0  # when this process was so late, on the monotonic clock
        self._may_start = asyncio.Event()
        self._starting = asyncio.Lock()

    async def serve(self) -> None:
        """Do jobs until the input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._folder.mkdir(parents=True)
        try:
            self._shared = await self._server("shared")
            async with ForkServer() as forks, asyncio.TaskGroup() as tasks:
                watch = asyncio.create_task(self._watch())
                while line := await reader.readline():
                    tasks.create_task(self._do(json.loads(line), forks))
                watch.cancel()
        finally:
            for server in self._servers:
                server.stop()

    async def _watch(self) -> None:
        """Learn how late this process comes to what it has to do: too late for one run more?"""
        late = 0.0
        while True:
            if late > MOST_LATE and self._running:
                self._may_start.clear()
            else:
                self._may_start.set()
            due = monotonic() + LOOK
            await asyncio.sleep(LOOK)
            behind = monotonic() - due
            if behind > STOOD_STILL:
                self._stood_still = monotonic()
            late += WEIGHT * (behind - late)

    async def _turn(self) -> None:
        """Wait until a run may start; they do so one after the other."""
        async with self._starting:
            await self._may_start.wait()
            await asyncio.sleep(BETWEEN_STARTS)

    async def _server(self, name: str) -> Server:
        server = Server(self._folder / name)
        server.copy_of(self._base)
        await server.start()
        self._servers.append(server)
        return server

    async def _do(self, order: dict[str, str | None], forks: ForkServer) -> None:
        job = Job(order["label"], order["fault"])
        number = next(self._numbers)
        server = self._shared
        await self._turn()
        self._running += 1
        began = monotonic()
        try:
            if job.fault == POSTGRES:
                server = (
                    await self._server(f"mortal-{number}")
                    if self._mortal.empty()
                    else self._mortal.get_nowait()
                )
            assert server is not None
            folder = self._folder / f"run-{number}"
            if not server.up.is_set():  # its last restart has failed
                await server.start()
            result = await run(job, server, forks, folder, keep=bool(order.get("keep")))
        except Exception as error:  # noqa: BLE001 - what plays the scene is broken, not the service
            result = Result(job, broken=f"{type(error).__name__}: {error}")
        self._running -= 1
        if result.problems and self._stood_still > began:  # it shows nothing, and is repeated
            result.broken = f"the machine stood still: {result.problems[0]}"
            result.problems = []
        if result.folder:
            kept = self._kept / f"{self._folder.name}-run-{number}"
            shutil.move(result.folder, kept)
            result.folder = str(kept)
        if job.fault == POSTGRES and server not in (None, self._shared):
            self._mortal.put_nowait(server)
        sys.stdout.write(json.dumps(dataclasses.asdict(result)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    # Connections break all the time here, which these tell.
    for name in ("asyncio", "aiohttp.server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    uvloop.run(Lane(*map(Path, sys.argv[1:4])).serve())
