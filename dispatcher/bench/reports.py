"""`reports`: status reports per second that one receiver process answers and matches.

A round consists of short slices. If a baseline is given, it gets the same posts in slices that
alternate with the receiver's, so that other load on the machine affects both. The reports belong
to accepted messages, and matching works behind the receiver: the results show how many reports
wait for it, and the next slice begins after all are matched. The results also show what slows a
round down: processor time of other processes, and the duration of a commit on this disk.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from statistics import median
from time import monotonic

from msgspec import Struct, field, json

from dispatcher.bench import proc
from dispatcher.bench.children import Child, ChildError, run_child
from dispatcher.bench.environment import (
    RECEIVER_PATH,
    Environment,
    Listener,
    postmaster,
    run_receiver,
)
from dispatcher.bench.posting import PostResult
from dispatcher.bench.results import Results, rotated
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect
from dispatcher.db.reports import backlog

MAX_REPORTS_PER_SECOND = 9_000  # made for each second; more than one process can answer
SLICES_PER_ROUND = 4  # for each listener
CATCH_UP_TIMEOUT_SECONDS = 60.0  # until everything is matched after a slice
POLL_INTERVAL_SECONDS = 0.2
SINGLE_COMMITS = 50  # timed before each slice
RECEIVER = "receiver"

Baseline = Callable[[Environment], AbstractAsyncContextManager[Listener]]


class ListenerTotals(Struct):
    """Totals of one listener in a round."""

    posted: PostResult = field(default_factory=PostResult)
    cpu_seconds: float = 0.0
    other_cpu_seconds: float = 0.0  # of processes that are not part of the benchmark


async def measure(
    environment: Environment,
    *,
    rounds: int,
    seconds: float,
    connections: int,
    progress: Callable[[str], None],
    processes: int = 1,
    baselines: Mapping[str, Baseline] | None = None,
) -> Results:
    """Measure the receiver, and each of *baselines* beside it, *rounds* times *seconds* each.

    More *processes* than one are a second receiver, which has them on one port.
    """
    receivers = {RECEIVER: 1}
    if processes > 1:
        receivers[f"{RECEIVER}, {processes} processes"] = processes
    results = Results(
        "reports",
        {
            "rounds": rounds,
            "seconds": seconds,
            "slices": SLICES_PER_ROUND,
            "connections": connections,
            "synchronous_commit": "on",
        },
    )
    async with environment.template():
        for number in range(rounds):
            slice_seconds = seconds / SLICES_PER_ROUND
            one = _Round(
                environment,
                slice_seconds,
                connections,
                results,
                receivers=receivers,
                baselines=baselines or {},
            )
            totals = await one.run(number)
            rates = [
                f"{name} {each.posted.answered / each.posted.seconds:,.0f}/s"
                for name, each in totals.items()
            ]
            progress(f"round {number + 1} of {rounds}: {', '.join(rates)}")
    for name in receivers:
        if name != RECEIVER:
            results.compare("reports", name, RECEIVER)
    for name in baselines or {}:
        results.compare("reports", RECEIVER, name)
        results.compare("processor time a report", RECEIVER, name)
    return results


class _Round:
    """One round: slices of the receivers and of the baselines in turn."""

    def __init__(
        self,
        environment: Environment,
        seconds: float,
        connections: int,
        results: Results,
        *,
        receivers: Mapping[str, int],
        baselines: Mapping[str, Baseline],
    ) -> None:
        self._environment = environment
        self._seconds = seconds  # of a slice
        self._connections = connections
        self._results = results
        self._receivers = receivers  # by name: how many processes
        self._baselines = baselines
        self._batches = -(-int(seconds * MAX_REPORTS_PER_SECOND) // 500)  # of a slice
        self._commits: list[float] = []
        self._waiting: list[tuple[float, int]] = []  # seconds of posting, reports
        self._catch_up_seconds: list[float] = []
        self._postmaster: int | None = None

    async def run(self, number: int) -> dict[str, ListenerTotals]:
        """Return the totals of each listener, and add them to the results."""
        totals = {name: ListenerTotals() for name in (*self._receivers, *self._baselines)}
        slices = SLICES_PER_ROUND * len(self._receivers)
        async with self._environment.database() as dsn:
            db = await connect(dsn)
            await db.execute(query("load_accepted_batches"), self._batches * slices)
            await db.execute("ANALYZE dispatcher.message, dispatcher.outcome, dispatcher.batch")
            if self._environment.local:
                self._postmaster = await postmaster(db)
            async with AsyncExitStack() as stack:
                receivers = {
                    name: await stack.enter_async_context(
                        run_receiver(self._environment, dsn, processes=processes)
                    )
                    for name, processes in self._receivers.items()
                }
                others = {
                    name: await stack.enter_async_context(baseline(self._environment))
                    for name, baseline in self._baselines.items()
                }
                for slice_ in range(SLICES_PER_ROUND):
                    for name in rotated(totals, number + slice_):
                        if name in receivers:
                            place = slice_ + SLICES_PER_ROUND * list(receivers).index(name)
                            await self._receive(db, receivers[name], totals, name, place)
                        else:
                            await self._post(others[name], totals[name], slice_)
            await db.close()
        for name, each in totals.items():
            self._add_totals(name, each)
        self._add_backlog()
        return totals

    async def _receive(
        self,
        db: OwnConnection,
        receiver: Listener,
        totals: Mapping[str, ListenerTotals],
        name: str,
        place: int,
    ) -> None:
        """Post slice *place* of all to a receiver, and wait until everything is matched."""
        own = totals[name]
        for _ in range(SINGLE_COMMITS):
            began = monotonic()
            await db.fetchval(query("commit_only"))
            self._commits.append(monotonic() - began)
        posted = asyncio.Event()
        watcher = asyncio.create_task(self._watch(db, own.posted.seconds, posted))
        await self._post(receiver, own, place, posted)
        await watcher
        began = monotonic()
        answered = sum(totals[each].posted.answered for each in self._receivers)
        while (matched := await db.fetchval(query("count_matched_reports"))) < answered:
            if monotonic() - began > CATCH_UP_TIMEOUT_SECONDS:
                missing = answered - matched
                raise ChildError(f"{missing} reports were answered and are not matched")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        self._catch_up_seconds.append(monotonic() - began)

    async def _watch(self, db: OwnConnection, before: float, posted: asyncio.Event) -> None:
        """Record how many reports wait to be matched, until *posted*."""
        began = monotonic()
        while not posted.is_set():
            self._waiting.append((before + monotonic() - began, (await backlog(db)).reports))
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _post(
        self,
        listener: Listener,
        totals: ListenerTotals,
        slice_: int,
        posted: asyncio.Event | None = None,
    ) -> None:
        """Post for one slice; add the answers and the processor time to *totals*."""
        port, server = listener
        first = slice_ * self._batches
        async with self._posting(port, first) as poster:
            began = self._cpu_seconds(server, poster)
            line = await poster.read_line(self._seconds + CATCH_UP_TIMEOUT_SECONDS)
            result = json.decode(line, type=PostResult)
            if posted is not None:
                posted.set()
            ended = self._cpu_seconds(server, poster)
        if result.refused:
            raise ChildError(f"{server.name} refused {result.refused} reports")
        totals.posted.add(result)
        totals.cpu_seconds += ended[0] - began[0]
        totals.other_cpu_seconds += ended[1] - began[1]

    @asynccontextmanager
    async def _posting(self, port: int, first: int) -> AsyncIterator[Child]:
        """Run the load generator; yield it once it has started."""
        numbers = (first, self._batches, self._seconds, self._connections)
        arguments = [str(port), RECEIVER_PATH, *map(str, numbers)]
        log = self._environment.log("poster")
        module = "dispatcher.bench.posting"
        async with run_child("poster", arguments, log=log, module=module) as poster:
            await poster.read_line()
            yield poster

    def _cpu_seconds(self, server: Child, poster: Child) -> tuple[float, float]:
        """Return the processor seconds of *server*, and of processes outside the benchmark."""
        own = proc.server_seconds(server.pid)
        ours = own + proc.seconds(poster.pid) + proc.seconds(os.getpid())
        if self._postmaster is not None:
            ours += proc.server_seconds(self._postmaster)
        return own, proc.machine_seconds() - ours

    def _add_totals(self, name: str, totals: ListenerTotals) -> None:
        posted, add = totals.posted, self._results.add
        add(name, "reports", posted.answered / posted.seconds, "/s")
        add(name, "slowest second", min(posted.answered_by_second), "/s")
        add(name, "answer, median", posted.wait_percentile(0.5), "ms")
        add(name, "answer, 99 %", posted.wait_percentile(0.99), "ms")
        add(name, "processor time a report", totals.cpu_seconds / posted.answered * 1e6, "µs")
        add(
            name,
            "taken by others meanwhile",
            totals.other_cpu_seconds / posted.seconds,
            "processors",
        )

    def _add_backlog(self) -> None:
        add = self._results.add
        half = self._seconds * SLICES_PER_ROUND / 2
        first = [reports for at, reports in self._waiting if at < half]
        second = [reports for at, reports in self._waiting if at >= half]
        add("receiver", "waiting to be matched, first half", median(first or [0]))
        add("receiver", "waiting to be matched, second half", median(second or [0]))
        add("receiver", "all matched after", max(self._catch_up_seconds), "s")
        add("receiver", "one commit alone", median(self._commits) * 1000, "ms")
