"""Some lanes that share the jobs; and what came of them."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import localtime, monotonic, strftime, time
from typing import Self

from rich.console import Console
from support.worker import ROOT

from everystep.results import ResultFile
from everystep.run import Job, Result
from everystep.servers import Server
from everystep.steps import FREEZE, POSTGRES, Step

# Runs at a time in one lane, at most (see `everystep.lane`). A frozen worker only waits; a server
# that is killed waits too.
AT_ONCE = {FREEZE: 9, POSTGRES: 3, None: 6}
TRIES = 3  # of a run that does not come to its step, or that an error of the machine ended
ANSWER_SECONDS = 900.0  # for one run; each of its parts has a time-out of its own
STOP_SECONDS = 15.0  # for a lane to end
REPORT_SECONDS = 60.0  # between two lines of progress
MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes


@dataclass
class Outcome:
    """What came of jobs."""

    planned: int
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[Result]:
        """Return what ended ill."""
        return [result for result in self.results if result.problems]

    @property
    def missed(self) -> list[Result]:
        """Return what did not come to its step."""
        return [
            result
            for result in self.results
            if result.job.label and not (result.reached or result.problems or result.broken)
        ]

    @property
    def broken(self) -> list[Result]:
        """Return what an error of the machine ended, so that it shows nothing."""
        return [result for result in self.results if result.broken and not result.problems]


class Crew:
    """Lanes, from start to end. An async context manager."""

    def __init__(
        self,
        lanes: int,
        seconds: float,
        console: Console,
        *,
        file: ResultFile | None = None,
    ) -> None:
        """*file* gets each result at once, and has those of earlier calls."""
        self._size = lanes
        self._end = monotonic() + seconds
        self._console = console
        self._file = file
        in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
        self._folder = Path(
            tempfile.mkdtemp(prefix="everystep-", dir=MEMORY if in_memory else None)
        )
        self._folder.chmod(0o755)
        self._lanes: list[_LaneProcess] = []
        self._kept = Path(tempfile.mkdtemp(prefix="everystep-logs-"))

    async def __aenter__(self) -> Self:
        base = Server(self._folder / "base")
        await base.create()
        for number in range(self._size):
            lane = _LaneProcess(self._folder / f"lane-{number}", base.folder, self._kept)
            await lane.start()
            self._lanes.append(lane)
        return self

    async def __aexit__(self, *_: object) -> None:
        for lane in self._lanes:
            await lane.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds the logs of what failed
            self._kept.rmdir()

    async def find_steps(self, runs: int) -> list[Step]:
        """Return the steps that each of some runs without a fault has, sorted."""
        if self._file is not None and self._file.steps:
            return self._file.steps
        found = await self._all([Job()] * runs, keep=False, to_the_end=True)
        for result in found:
            if result.problems or result.broken:
                why = result.broken or result.problems
                raise RuntimeError(f"without a fault: {why}, see {result.folder}")
        counts = Counter(label for result in found for label in result.steps)
        turns: Counter[str] = Counter()
        for result in found:
            turns.update(label for label, turn in result.steps.items() if turn)
        steps = [
            Step(label, turn=turns[label] * 2 > runs)
            for label, count in sorted(counts.items())
            if count == runs
        ]
        if self._file is not None:
            self._file.keep_steps(steps)
        return steps

    async def work(self, jobs: list[Job], *, keep: bool = False) -> Outcome:
        """Do *jobs* until the time is over; those that the file of results has are not repeated."""
        began = monotonic()
        done = self._file.done if self._file is not None else {}
        outcome = Outcome(len(jobs))
        outcome.results = [done[job] for job in jobs if job in done]
        if outcome.results:
            self._console.print(f"{len(outcome.results)} of {len(jobs)} runs are done already")
        outcome.results += await self._all([job for job in jobs if job not in done], keep=keep)
        outcome.seconds = monotonic() - began
        if self._file is not None:
            outcome.seconds += self._file.seconds
        return outcome

    async def _all(self, jobs: list[Job], *, keep: bool, to_the_end: bool = False) -> list[Result]:
        """Do *jobs*; those whose scene stalled again at the end, one at a time in each lane."""
        results: list[Result] = []
        stalled: list[Result] = []
        waiting: dict[str | None, list[Job]] = {}
        for job in reversed(jobs):
            kind = job.fault if job.fault in AT_ONCE else None
            waiting.setdefault(kind, []).append(job)
        progress = asyncio.create_task(self._report(results, waiting))
        async with asyncio.TaskGroup() as hands:
            for lane in self._lanes:
                for kind, mine in waiting.items():
                    for _ in range(AT_ONCE[kind]):
                        hands.create_task(
                            self._hand(
                                lane, mine, results, stalled, keep=keep, to_the_end=to_the_end
                            )
                        )
        again = [result.job for result in stalled]
        async with asyncio.TaskGroup() as hands:
            for lane in self._lanes:
                hands.create_task(
                    self._hand(lane, again, results, None, keep=keep, to_the_end=to_the_end)
                )
        for result in stalled:
            if result.job in again:  # no time was left
                result.broken, result.reached = result.stalled, False
                results.append(result)
        progress.cancel()
        return results

    async def _report(self, results: list[Result], waiting: dict[str | None, list[Job]]) -> None:
        """Print now and then how far it is, and when it ends."""
        planned = {kind: len(jobs) for kind, jobs in waiting.items()}
        began = monotonic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            # The kinds have hands of their own: the slowest one ends last.
            left = [
                (monotonic() - began) * len(waiting[kind]) / max(1, count - len(waiting[kind]))
                for kind, count in planned.items()
            ]
            ends = min(time() + max(left, default=0.0), time() + self._end - monotonic())
            outcome = Outcome(0, results)
            self._console.print(
                f"{strftime('%H:%M')}: {len(results)} of {sum(planned.values())} runs,"
                f" {len(outcome.failed)} violated, {len(outcome.broken)} to be repeated;"
                f" ends about {strftime('%H:%M', localtime(ends))}",
                highlight=False,
            )

    async def _hand(
        self,
        lane: "_LaneProcess",
        mine: list[Job],
        results: list[Result],
        stalled: list[Result] | None,
        *,
        keep: bool,
        to_the_end: bool,
    ) -> None:
        """Have one of *mine* done after the other.

        A run whose scene runs out of time is added to *stalled*: the machine may have been too
        busy. None: the machine is calm, and it violates a promise.
        """
        while mine and (to_the_end or monotonic() < self._end):
            job = mine.pop()
            for _ in range(TRIES):
                result = await lane.do(job, keep=keep)
                if (
                    result.problems
                    or result.stalled
                    or (not result.broken and (result.reached or not job.label))
                ):
                    break
            if result.stalled and not result.problems:
                if stalled is not None:
                    stalled.append(result)
                    self._console.print(
                        f"STALLED {job.label} {job.fault}: it is repeated at the end",
                        markup=False,
                        highlight=False,
                    )
                    continue
                result.problems.append(result.stalled)
            results.append(result)
            if self._file is not None and job.label:
                self._file.append(result)
            if result.problems or result.broken:
                word = "VIOLATED" if result.problems else "BROKEN"
                self._console.print(
                    f"{word} {job.label} {job.fault}: {result.broken or result.problems[:3]}",
                    markup=False,
                    highlight=False,
                )


class _LaneProcess:
    """A process that does runs (see `everystep.lane`); another one is started if it ends."""

    def __init__(self, folder: Path, base: Path, kept: Path) -> None:
        self._folder, self._base, self._kept = folder, base, kept
        self._starts = 0
        self._starting = asyncio.Lock()
        self._asked: dict[Job, list[asyncio.Future[Result]]] = {}

    async def start(self) -> None:
        self._starts += 1
        folder = self._folder.with_name(f"{self._folder.name}-{self._starts}")
        self._asked = {}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "everystep.lane", str(folder), str(self._base)),
            str(self._kept),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        self._listening = asyncio.create_task(self._listen(self._process, self._asked))

    async def do(self, job: Job, *, keep: bool) -> Result:
        """Have *job* done. An error of the lane is a result too: it shows nothing."""
        async with self._starting:
            if self._listening.done():
                await self.start()
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(job, []).append(answer)
        order = {"label": job.label, "fault": job.fault, "keep": keep}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except (OSError, TimeoutError, _LaneEndedError) as error:
            return Result(job, broken=f"{type(error).__name__}: {error}")

    async def _listen(
        self, process: asyncio.subprocess.Process, asked: dict[Job, list[asyncio.Future[Result]]]
    ) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            result = Result.read(json.loads(line))
            answer = asked[result.job].pop()
            if not answer.done():  # else it came too late
                answer.set_result(result)
        for each in asked.values():
            for answer in each:
                if not answer.done():
                    answer.set_exception(_LaneEndedError("a process of runs has ended"))

    async def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._listening


class _LaneEndedError(Exception):
    """A lane has ended; what it said is above."""
