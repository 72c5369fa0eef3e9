"""`./dev everystep`: strike each step of the scene. Exit code 1 if a run violated a promise."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path
from random import Random

from rich.console import Console

from everystep.crew import Crew, Outcome
from everystep.page import PAGES, write
from everystep.results import OtherCommitError, ResultFile, current_commit
from everystep.run import Job
from everystep.steps import FAULTS, Step

DRY_RUNS = 4  # a step that all of them have is one; others come by the chance of an idle poll
WHOLE_MINUTES, SLICE_MINUTES = 90.0, 8.0


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev everystep", description=__doc__)
    parser.add_argument("--slice", type=int, metavar="SEED", help="a part, drawn by this seed")
    parser.add_argument("--minutes", type=float, help="end after so many (90, of a slice 8)")
    parser.add_argument("--runs", type=int, metavar="N", help="at most so many of them")
    parser.add_argument("--step", metavar="LABEL", help="only this step; its logs are kept")
    parser.add_argument("--fault", choices=FAULTS, help="only this fault")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 2,
        help="processes that do up to 18 runs at a time (one for each processor)",
    )
    parser.add_argument(
        "--continue",
        dest="file",
        type=Path,
        metavar="FILE",
        help="keep the results in FILE, and do only what it lacks",
    )
    given = parser.parse_args()
    try:
        return asyncio.run(_main(given))
    except OtherCommitError as error:
        parser.error(str(error))


async def _main(given: argparse.Namespace) -> int:
    console = Console()
    parts = (given.slice, given.runs, given.step, given.fault)
    whole = all(part is None for part in parts) and not given.list
    file = _file(given.file, whole=whole, console=console)
    minutes = given.minutes
    if minutes is None:
        minutes = WHOLE_MINUTES if given.slice is None else SLICE_MINUTES
    async with Crew(given.jobs, minutes * 60.0, console, file=file) as crew:
        if given.step:
            jobs = [Job(given.step, fault) for fault in FAULTS if given.fault in (None, fault)]
            outcome = await crew.work(jobs, keep=True)
            return _tell(outcome, console)
        steps = await crew.find_steps(DRY_RUNS)
        console.print(f"{len(steps)} steps")
        if given.list:
            for step in steps:
                console.print(f"{step.label}{'' if step.turn else ' (within a write)'}")
            return 0
        jobs = _jobs(steps, given.fault)
        Random(given.slice or 1).shuffle(jobs)
        outcome = await crew.work(jobs[: given.runs])
    code = _tell(outcome, console)
    if whole:
        write(steps, outcome)
        console.print(f"written: {', '.join(map(str, PAGES))}")
    return code


def _file(path: Path | None, *, whole: bool, console: Console) -> ResultFile | None:
    """Return the file of results; the whole has one even if none is named."""
    if path is None and whole:
        path = Path(tempfile.mkdtemp(prefix="everystep-results-")) / "everystep.jsonl"
    if path is None:
        return None
    console.print(f"if it is interrupted, go on with: ./dev everystep --continue {path}")
    return ResultFile(path, current_commit())


def _jobs(steps: list[Step], fault: str | None) -> list[Job]:
    return [
        Job(step.label, each) for step in steps for each in step.faults if fault in (None, each)
    ]


def _tell(outcome: Outcome, console: Console) -> int:
    for result in outcome.failed:
        console.print(
            f"VIOLATED: --step '{result.job.label}' --fault {result.job.fault}", style="red"
        )
        for problem in result.problems:
            console.print(f"  {problem}", markup=False)
        console.print(f"  the logs are in {result.folder}", markup=False)
    for result in outcome.broken:
        console.print(
            f"not done: {result.job.label} {result.job.fault}: {result.broken}", markup=False
        )
    console.print(
        f"{len(outcome.results)} of {outcome.planned} runs in {outcome.seconds / 60:.1f} minutes:"
        f" {len(outcome.failed)} violated, {len(outcome.missed)} did not come to their step,"
        f" {len(outcome.broken)} ended by an error of the machine",
        soft_wrap=True,  # one line, which programs read
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
