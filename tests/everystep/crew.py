"""Some lanes that share the jobs; and what came of them."""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Self

from rich.console import Console
from support.worker import ROOT

from everystep.run import Job, Result
from everystep.servers import Server
from everystep.steps import FREEZE, POSTGRES, Step

# Runs at a time in one lane. A frozen worker only waits; a server that is killed waits too.
AT_ONCE = {FREEZE: 7, POSTGRES: 2, None: 4}
TRIES = 3  # of a run that does not come to its step
TOLD_EVERY = 60.0  # seconds
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
        return [r for r in self.results if r.job.label and not r.reached and not r.problems]


class Crew:
    """Lanes, from start to end. An async context manager."""

    def __init__(
        self,
        lanes: int,
        seconds: float,
        console: Console,
        *,
        share: float = 1.0,
        resume: Path | None = None,
    ) -> None:
        """*share*: of the usual number of runs at a time, for a machine that has other work."""
        self._share = share
        self._size = lanes
        self._end = monotonic() + seconds
        self._console = console
        self._resume = resume
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
        found = await self._all([Job()] * runs, keep=False, to_the_end=True)
        for result in found:
            if result.problems:
                raise RuntimeError(f"without a fault: {result.problems}, see {result.folder}")
        counts = Counter(label for result in found for label in result.steps)
        turns: Counter[str] = Counter()
        for result in found:
            turns.update(label for label, turn in result.steps.items() if turn)
        return [
            Step(label, turn=turns[label] * 2 > runs)
            for label, count in sorted(counts.items())
            if count == runs
        ]

    async def work(self, jobs: list[Job], *, keep: bool = False) -> Outcome:
        """Do *jobs* until the time is over."""
        began = monotonic()
        done = self._done_before()
        outcome = Outcome(len(jobs))
        outcome.results = [done[job] for job in jobs if job in done]
        outcome.results += await self._all([job for job in jobs if job not in done], keep=keep)
        outcome.seconds = monotonic() - began
        return outcome

    def _done_before(self) -> dict[Job, Result]:
        if self._resume is None or not self._resume.exists():
            return {}
        results = map(_result, self._resume.read_text().splitlines())
        return {result.job: result for result in results if not result.problems and result.reached}

    async def _all(self, jobs: list[Job], *, keep: bool, to_the_end: bool = False) -> list[Result]:
        results: list[Result] = []
        waiting: dict[str | None, list[Job]] = {}
        for job in reversed(jobs):
            kind = job.fault if job.fault in AT_ONCE else None
            waiting.setdefault(kind, []).append(job)

        async def tell() -> None:
            while True:
                await asyncio.sleep(TOLD_EVERY)
                self._console.print(f"{len(results)} of {len(jobs)} runs", highlight=False)

        telling = asyncio.create_task(tell())
        async with asyncio.TaskGroup() as hands:
            for lane in self._lanes:
                for kind, mine in waiting.items():
                    for _ in range(max(1, round(self._share * AT_ONCE[kind]))):
                        hands.create_task(
                            self._hand(lane, mine, results, keep=keep, to_the_end=to_the_end)
                        )
        telling.cancel()
        return results

    async def _hand(
        self,
        lane: "_LaneProcess",
        mine: list[Job],
        results: list[Result],
        *,
        keep: bool,
        to_the_end: bool,
    ) -> None:
        """Have one of *mine* done after the other."""
        while mine and (to_the_end or monotonic() < self._end):
            job = mine.pop()
            result = await lane.do(job, keep=keep)
            for _ in range(TRIES - 1):
                if result.reached or result.problems or job.label is None:
                    break
                result = await lane.do(job, keep=keep)
            results.append(result)
            if self._resume is not None and job.label:
                with self._resume.open("a") as file:
                    file.write(json.dumps(dataclasses.asdict(result)) + "\n")
            if result.problems:
                self._console.print(
                    f"VIOLATED {job.label} {job.fault}: {result.problems[:3]}",
                    markup=False,
                    highlight=False,
                )


class _LaneProcess:
    """A process that does runs (see `everystep.lane`)."""

    def __init__(self, folder: Path, base: Path, kept: Path) -> None:
        self._arguments = (str(folder), str(base), str(kept))
        self._asked: dict[Job, list[asyncio.Future[Result]]] = {}

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "everystep.lane", *self._arguments),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        self._listening = asyncio.create_task(self._listen())

    async def do(self, job: Job, *, keep: bool) -> Result:
        """Have *job* done."""
        told: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(job, []).append(told)
        order = {"label": job.label, "fault": job.fault, "keep": keep}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await told

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            result = _result(line.decode())
            self._asked[result.job].pop().set_result(result)
        for each in self._asked.values():
            for told in each:
                if not told.done():
                    told.set_exception(RuntimeError("a lane has ended, see what it says above"))

    async def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening


def _result(line: str) -> Result:
    told = json.loads(line)
    told["job"] = Job(**told["job"])
    return Result(**told)
