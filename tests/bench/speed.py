"""`./dev speed`: compares the instructions for a message with those that speed.json holds.

It fails if a figure differs by more than 2 % from the last entry for this environment. A change
that is meant to cost more, or costs less, adds an entry that says why: `--record WHY`.
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

from bench.instructions import Figures, count_receiver, count_worker, require_valgrind
from dispatcher.bench.children import ChildError
from dispatcher.bench.environment import Environment
from dispatcher.bench.runner import print_progress, temporary_environment

FILE = Path(__file__).with_name("speed.json")
TOLERANCE = 0.02
PACKAGES = ("aiohttp", "asyncpg", "msgspec", "uvloop")  # most instructions are theirs


class Entry(Struct):
    """The instructions for a message at one commit."""

    commit: str  # HEAD when it was measured: of a change measured before its commit, the parent
    date: str
    why: str  # it differs from the entry before
    environment: dict[str, str]
    figures: Figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare and print; return the exit code."""
    given = parse_arguments(arguments)
    try:
        require_valgrind()
        with temporary_environment(None) as environment:
            where, figures = uvloop.run(
                _measure(environment, messages=given.messages, repeat=given.repeat)
            )
    except ChildError as error:
        print_progress(f"speed: {error}")
        return 1
    entries = msgspec.json.decode(FILE.read_bytes(), type=list[Entry]) if FILE.exists() else []
    last = last_entry(entries, where)
    wrong = compare(figures, last)
    print_table(figures, last)
    if given.record is not None:
        now = datetime.now(UTC)
        entry = Entry(_head(), f"{now:%Y-%m-%d}", given.record, where, figures)
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode([*entries, entry])) + b"\n")
        return 0
    for line in wrong:
        print_progress(f"speed: {line}")
    return 1 if wrong else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="./dev speed", description=__doc__)
    parser.add_argument("--record", metavar="WHY", help="add the figures to speed.json, with why")
    parser.add_argument(
        "--messages", type=int, default=50_000, help="that are counted; a tenth reports (50000)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs; the least counts (3)")
    return parser.parse_args(arguments)


async def _measure(
    environment: Environment, *, messages: int, repeat: int
) -> tuple[dict[str, str], Figures]:
    """Return the environment, and the least of each figure over *repeat* runs."""
    packages = {name: version(name) for name in PACKAGES}
    where = {"machine": platform.machine(), "python": platform.python_version(), **packages}
    runs: list[Figures] = []
    async with environment.template():
        for number in range(repeat):
            run = await count_worker(environment, messages)
            run |= await count_receiver(environment, messages)
            runs.append(run)
            shown = ", ".join(f"{name} {value:,.0f}" for name, value in run.items())
            print_progress(f"run {number + 1} of {repeat}: {shown}")
    figures = {name: min(run[name] for run in runs) for name in runs[0]}
    for name, least in figures.items():
        spread = max(run[name] for run in runs) / least - 1
        print_progress(f"spread of {name}: {spread:.2%}")
    return where, {name: round(value) for name, value in figures.items()}


def last_entry(entries: Sequence[Entry], where: Mapping[str, str]) -> Entry | None:
    """Return the last of *entries* that was measured in the same environment."""
    same = [entry for entry in entries if entry.environment == where]
    return same[-1] if same else None


def compare(figures: Figures, last: Entry | None) -> list[str]:
    """Return a line for each figure that differs too much from the *last* entry."""
    if last is None:
        where = "this machine, Python and its packages"
        return [f"speed.json has no entry for {where}: record a good commit with --record WHY."]
    lines = []
    for name, value in figures.items():
        before = last.figures.get(name)
        if before is None:
            lines.append(f"{name} is new: add it with --record WHY.")
        elif abs(value / before - 1) > TOLERANCE:
            change = "more" if value > before else "fewer"
            lines.append(
                f"{name}: {abs(value / before - 1):.1%} {change} instructions than at"
                f" {last.commit} ({before:,.0f} -> {value:,.0f}): find the cause, or add an entry"
                " with --record WHY."
            )
    return lines


def print_table(figures: Figures, last: Entry | None) -> None:
    """Print *figures* beside those of the *last* entry."""
    for name, value in figures.items():
        before = last.figures.get(name) if last else None
        change = "" if before is None else f"  {value / before - 1:+.1%} since {last.commit}"
        print_progress(f"{name:40} {value:12,.0f}{change}")


def _head() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
