"""`./dev chaos`: run storms, and say how they ended. Exit code 1 if anything was violated."""

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from chaos.aim import aim_at
from chaos.matrix import add, missing, read, show
from chaos.storm import Aftermath, Plan, run


def main() -> int:
    """Run as many storms as the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of each storm (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the first storm (default: 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many storms, each the next seed")
    parser.add_argument("--workers", type=int, default=3, help="worker processes (default: 3)")
    parser.add_argument("--rate", type=float, default=400.0, help="messages a second (400)")
    parser.add_argument(
        "--reports", action="store_true", help="with status reports: nothing may stay unsure"
    )
    parser.add_argument(
        "--matrix",
        type=Path,
        metavar="FILE",
        help="add up in FILE which rare branch was reached under which fault, and print it",
    )
    parser.add_argument(
        "--aim",
        action="store_true",
        help="do what leads to the cells that are short in the file of --matrix, until none is",
    )
    given = parser.parse_args()
    if given.aim and given.matrix is None:
        parser.error("--aim needs --matrix FILE")
    console = Console()
    violated = 0
    struck: Counter[str] = Counter()
    cells: Counter[tuple[str, str]] = read(given.matrix) if given.matrix else Counter()
    for seed in range(given.seed, given.seed + given.seeds):
        short = missing(cells) if given.aim else []
        if given.aim and not short:
            break
        plan = Plan(
            given.minutes * 60,
            seed,
            workers=given.workers,
            rate=given.rate,
            reports=given.reports,
            aim=aim_at(short, Random(seed)),
        )
        aftermath = asyncio.run(run(plan))
        tell(aftermath, console)
        violated += bool(aftermath.problems)
        struck.update(_struck(aftermath))
        if given.matrix:
            cells = add(given.matrix, aftermath.branches, seed)
    if given.seeds > 1:
        table = Table(title=f"{given.seeds} storms, {violated} violated", box=None)
        for name, count in struck.items():
            table.add_row(name, str(count))
        console.print(table)
    if given.matrix:
        show(cells)
    return 1 if violated else 0


def tell(aftermath: Aftermath, console: Console) -> None:
    """Print what happened and how it ended."""
    table = Table(title=f"seed {aftermath.plan.seed}, {aftermath.plan.seconds:.0f} s", box=None)
    table.add_column("what")
    table.add_column("how often", justify="right")
    books, memory = aftermath.verdict.books, aftermath.memory
    for name, count in _struck(aftermath).items():
        table.add_row(name, str(count))
    table.add_section()
    table.add_row("calls of the application", str(memory.calls))
    table.add_row("  without an answer", str(memory.unanswered))
    table.add_row("odd rows taken", str(memory.odd))
    table.add_row("odd rows refused by a constraint", str(memory.refused))
    table.add_row("cancels answered", str(len(memory.cancels)))
    table.add_section()
    table.add_row("messages", str(books.states.total()))
    for state, count in sorted(books.states.items()):
        table.add_row(f"  {state}", str(count))
    for why, count in aftermath.verdict.unsure.items():
        table.add_row(f"  unsure: {why}", str(count))
    table.add_row("accepted by the ledger", str(len(books.ledger)))
    table.add_row("accepted twice", str(books.accepted_twice))
    table.add_row("pages of metrics and health read", str(aftermath.pages))
    table.add_row("rare branches reached", str(len({branch for branch, _ in aftermath.branches})))
    table.add_row("seconds to settle", f"{aftermath.settled_in:.1f}")
    console.print(table)
    for problem in aftermath.problems:
        console.print(f"VIOLATED: {problem}", style="red", markup=False)
    if not aftermath.problems:
        console.print("Nothing was lost and nothing was sent twice.")


def _struck(aftermath: Aftermath) -> dict[str, int]:
    """Return how often what happened, by kind."""
    faults = {f"provider: {name}": count for name, count in aftermath.faults.items()}
    blows = {
        name if ":" in name else f"worker: {name}": count
        for name, count in sorted(aftermath.blows.items())
    }
    return faults | blows


if __name__ == "__main__":
    sys.exit(main())
