"""`./dev everystep`: strike each step of the scene. Exit code 1 if a run violated a promise."""

import argparse
import asyncio
import sys
from pathlib import Path
from random import Random

from rich.console import Console

from everystep.crew import Crew, Outcome
from everystep.page import PAGE, write
from everystep.run import Job
from everystep.steps import FAULTS, Step

DRY_RUNS = 4  # a step that all of them have is one; others come by the chance of an idle poll


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev everystep", description=__doc__)
    parser.add_argument("--slice", type=int, metavar="SEED", help="a part, drawn by this seed")
    parser.add_argument("--minutes", type=float, help="end after so many (90, of a slice 8)")
    parser.add_argument("--step", metavar="LABEL", help="only this step; its logs are kept")
    parser.add_argument("--fault", choices=FAULTS, help="only this fault")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    parser.add_argument("--lanes", type=int, default=2, help="processes that do runs (2)")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of runs at a time (1.0)"
    )
    parser.add_argument("--resume", type=Path, help="a file of results to go on with")
    given = parser.parse_args()
    return asyncio.run(_main(given))


async def _main(given: argparse.Namespace) -> int:
    console = Console()
    minutes = given.minutes or (90.0 if given.slice is None else 8.0)
    async with Crew(
        given.lanes, minutes * 60.0, console, share=given.share, resume=given.resume
    ) as crew:
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
        outcome = await crew.work(jobs)
    code = _tell(outcome, console)
    if given.slice is None and given.fault is None:
        write(steps, outcome)
        console.print(f"written: {PAGE}")
    return code


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
    console.print(
        f"{len(outcome.results)} of {outcome.planned} runs in {outcome.seconds / 60:.1f} minutes:"
        f" {len(outcome.failed)} violated, {len(outcome.missed)} did not come to their step"
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
