"""Reports taken in by one receiver process: `reports`, with the bare handler beside it.

In each round both are posted to by the same generator, turn about in short slices, so that what
else the machine does falls on both. The receiver's messages are there and accepted, and matching
works behind it: that it keeps up is seen by what waits for it, and the next slice does not begin
before it is done. What slows a round down is told too: what others took of the processors, and
how long a commit takes on this disk.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import monotonic

from msgspec import Struct, field, json

from dispatcher.bench import processes
from dispatcher.bench.children import Child, ChildError, child
from dispatcher.bench.listeners import MODULE, PATH, bare, receiving
from dispatcher.bench.posting import Posted
from dispatcher.bench.results import Results, in_turn
from dispatcher.bench.stage import Stage, postmaster, statement
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.reports import backlog

MOST_A_SECOND = 9_000  # reports made for each second; more than one process can take
SLICES = 4  # of a round, for each of the two
CATCH_UP = 60.0  # seconds for what waits to be matched at the end of a slice
LOOK = 0.2
COMMITS = 50  # tried alone, before each slice


class Side(Struct):
    """What one of the two has come to in a round."""

    posted: Posted = field(default_factory=Posted)
    own: float = 0.0  # processor seconds
    others: float = 0.0


async def measure(
    stage: Stage, *, rounds: int, seconds: float, connections: int, say: Callable[[str], None]
) -> Results:
    """Measure the receiver and the bare handler, *rounds* times *seconds* each."""
    results = Results(
        "reports",
        {
            "rounds": rounds,
            "seconds": seconds,
            "slices": SLICES,
            "connections": connections,
            "synchronous_commit": "on",
        },
    )
    async with stage.prepared():
        for number in range(rounds):
            sides = await _Round(stage, seconds / SLICES, connections, results).run(number)
            rates = {
                name: side.posted.answered / side.posted.seconds for name, side in sides.items()
            }
            told = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())
            say(f"round {number + 1} of {rounds}: {told}: {rates['receiver'] / rates['bare']:.2f}")
    results.compare("reports", "receiver", "bare")
    results.compare("processor time a report", "receiver", "bare")
    return results


class _Round:
    """Both of them at work, turn about."""

    def __init__(self, stage: Stage, seconds: float, connections: int, results: Results) -> None:
        self._stage = stage
        self._seconds = seconds  # of a slice
        self._connections = connections
        self._results = results
        self._batches = -(-int(seconds * MOST_A_SECOND) // 500)  # of a slice
        self._commits: list[float] = []
        self._waiting: list[tuple[float, int]] = []  # seconds of posting so far, reports
        self._behind: list[float] = []
        self._postmaster: int | None = None

    async def run(self, number: int) -> dict[str, Side]:
        """Return what each has come to, and note it."""
        sides = {"receiver": Side(), "bare": Side()}
        async with self._stage.database() as dsn:
            db = await connect(dsn)
            await db.execute(statement("load_reported"), self._batches * SLICES)
            await db.execute("ANALYZE dispatcher.message, dispatcher.outcome, dispatcher.batch")
            if self._stage.local:
                self._postmaster = await postmaster(db)
            async with receiving(self._stage, dsn) as receiver, bare(self._stage) as other:
                for slice_ in range(SLICES):
                    for name in in_turn(sides, number + slice_):
                        if name == "receiver":
                            await self._receive(db, receiver, sides[name], slice_)
                        else:
                            await self._post(other, sides[name], slice_)
            await db.close()
        for name, side in sides.items():
            self._note(name, side)
        self._note_backlog()
        return sides

    async def _receive(
        self, db: OwnConnection, receiver: tuple[int, Child], side: Side, slice_: int
    ) -> None:
        """Post to the receiver, and wait until everything is matched."""
        for _ in range(COMMITS):
            began = monotonic()
            await db.fetchval(statement("commit_alone"))
            self._commits.append(monotonic() - began)
        over = asyncio.Event()
        watching = asyncio.create_task(self._watch(db, side.posted.seconds, over))
        await self._post(receiver, side, slice_, over)
        await watching
        began = monotonic()
        while (n := await db.fetchval(statement("reports_matched"))) < side.posted.answered:
            if monotonic() - began > CATCH_UP:
                missing = side.posted.answered - n
                raise ChildError(f"{missing} reports were answered and are not matched")
            await asyncio.sleep(LOOK)
        self._behind.append(monotonic() - began)

    async def _watch(self, db: OwnConnection, before: float, over: asyncio.Event) -> None:
        """Note again and again how many reports wait to be matched."""
        began = monotonic()
        while not over.is_set():
            self._waiting.append((before + monotonic() - began, (await backlog(db)).reports))
            await asyncio.sleep(LOOK)

    async def _post(
        self,
        listener: tuple[int, Child],
        side: Side,
        slice_: int,
        over: asyncio.Event | None = None,
    ) -> None:
        """Post for one slice; note what a report cost, and what others took meanwhile."""
        port, server = listener
        first = slice_ * self._batches
        async with self._posting(port, first) as poster:
            began = self._spent(server, poster)
            posted = json.decode(await poster.line(self._seconds + CATCH_UP), type=Posted)
            if over is not None:
                over.set()
            ended = self._spent(server, poster)
        if posted.refused:
            raise ChildError(f"{server.name} refused {posted.refused} reports")
        side.posted.add(posted)
        side.own += ended[0] - began[0]
        side.others += ended[1] - began[1]

    @asynccontextmanager
    async def _posting(self, port: int, first: int) -> AsyncIterator[Child]:
        """Run the generator; it has begun when this gives it."""
        numbers = (first, self._batches, self._seconds, self._connections)
        arguments = ["post", str(port), PATH, *map(str, numbers)]
        log = self._stage.log("poster")
        async with child("poster", arguments, log=log, module=MODULE) as poster:
            await poster.line()
            yield poster

    def _spent(self, server: Child, poster: Child) -> tuple[float, float]:
        """Return the processor time of *server*, and of all who have no part in this."""
        own = processes.seconds(server.pid)
        ours = own + processes.seconds(poster.pid) + processes.seconds(os.getpid())
        if self._postmaster is not None:
            ours += processes.server_seconds(self._postmaster)
        return own, processes.machine_seconds() - ours

    def _note(self, name: str, side: Side) -> None:
        posted, add = side.posted, self._results.add
        add(name, "reports", posted.answered / posted.seconds, "/s")
        add(name, "slowest second", min(posted.each), "/s")
        add(name, "answer, median", posted.wait(0.5), "ms")
        add(name, "answer, 99 %", posted.wait(0.99), "ms")
        add(name, "processor time a report", side.own / posted.answered * 1e6, "µs")
        add(name, "taken by others meanwhile", side.others / posted.seconds, "processors")

    def _note_backlog(self) -> None:
        add = self._results.add
        half = self._seconds * SLICES / 2
        first = [reports for at, reports in self._waiting if at < half]
        second = [reports for at, reports in self._waiting if at >= half]
        add("receiver", "waiting to be matched, first half", median(first or [0]))
        add("receiver", "waiting to be matched, second half", median(second or [0]))
        add("receiver", "all matched after", max(self._behind), "s")
        add("receiver", "one commit alone", median(self._commits) * 1000, "ms")
