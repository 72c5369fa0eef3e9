"""Which rare branches were reached during which faults, over many storms.

A branch was reached *under* a fault if the fault had begun, and had ended at most a lease before:
what follows from it takes so long.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.branches import BRANCHES, REACHED
from chaos.workers import LEASE

WIDTH = 250  # columns of the printed matrix
WANTED = 20  # times that a release needs each cell, over its storms
WORKER_KILLED, WORKER_FROZEN, WORKER_STOPPED = "worker killed", "worker frozen", "worker stopped"
DATABASE_DOWN, DATABASE_FROZEN = "database killed", "database frozen"
DATABASE_CLOCK, DATABASE_RESTORED = "database clock", "database restored"
CONNECTIONS_ENDED = "connections ended"
CONNECTION, GATEWAY, CODES, ANSWERS = "no answer", "gateway", "codes", "odd answers"
CLOCKS, SPOOLS = "clocks", "other spools"
FAULTS = (
    WORKER_KILLED,
    WORKER_FROZEN,
    WORKER_STOPPED,
    DATABASE_DOWN,
    DATABASE_FROZEN,
    DATABASE_CLOCK,
    DATABASE_RESTORED,
    CONNECTIONS_ENDED,
    CONNECTION,
    GATEWAY,
    CODES,
    ANSWERS,
    CLOCKS,
    SPOOLS,
)

# Reached only by status reports, and storms with these restore no backup.
BY_REPORTS = (
    "what waits again is taken back by a report",
    "a report settles",
    "a report brings the provider's id",
    "a report cannot be matched yet, or to nothing",
    "a report that was settled elsewhere is matched again",
    "reports go to disk",
)

# Cells that no storm can fill, and why: the name of a branch, and a fault or "" for all of them.
EXPLAINED: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        ((branch, DATABASE_RESTORED) for branch in BY_REPORTS),
        "the provider repeats no report that a backup lacks: storms with reports restore none",
    ),
    ("a claim is halved for a row it cannot take", ""): (
        "constraints refuse each row of which that is known; tests/worker takes them away for that"
    ),
    ("what waits again is taken back by a report", ""): (
        "a storm sends again only what the ledger shows as not accepted; tests/receiver and the"
        " model have it"
    ),
    ("what waits again is taken back by a late answer", ""): (
        "as above: tests/worker and the model have it"
    ),
    ("a report that was settled elsewhere is matched again", ""): (
        "it takes two provider ids for one number of a request, or a partial answer within the"
        " milliseconds of one step of matching; tests/receiver/test_matching.py makes both"
    ),
}


@dataclass(frozen=True)
class Period:
    """A fault, from when to when; on the monotonic clock of the machine."""

    fault: str
    begin: float
    end: float


def count(folder: Path, periods: Sequence[Period]) -> Counter[tuple[str, str]]:
    """Return how often each branch was reached under each fault, by the logs in *folder*."""
    cells: Counter[tuple[str, str]] = Counter()
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(encoding="utf-8").splitlines():
            if REACHED not in line or not line.endswith("}"):
                continue
            reached = json.loads(line)
            at = reached["at"]
            under = {each.fault for each in periods if each.begin <= at <= each.end + LEASE}
            cells.update((reached["branch"], fault) for fault in under)
    return cells


def add(path: Path, cells: Counter[tuple[str, str]], seed: int) -> Counter[tuple[str, str]]:
    """Add *cells* of a storm to the file at *path*; return the sum of all storms in it."""
    seeds = [*_load(path).get("seeds", ()), seed]
    total = cells + read(path)
    rows: dict[str, dict[str, int]] = {}
    for (branch, fault), n in sorted(total.items()):
        rows.setdefault(branch, {})[fault] = n
    path.write_text(json.dumps({"seeds": seeds, "cells": rows}, indent=1), encoding="utf-8")
    return total


def read(path: Path) -> Counter[tuple[str, str]]:
    """Return the sum of all storms in the file at *path*; none if there is no file."""
    return Counter(
        {
            (branch, fault): n
            for branch, row in _load(path).get("cells", {}).items()
            for fault, n in row.items()
        }
    )


def _load(path: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return whole


def explanation(branch: str, fault: str) -> str:
    """Return why a cell cannot be filled; empty if it can."""
    return EXPLAINED.get((branch, fault)) or EXPLAINED.get((branch, ""), "")


def missing(cells: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the cells that are short of WANTED, and not explained."""
    return [
        (branch.name, fault)
        for branch in BRANCHES
        for fault in FAULTS
        if cells[branch.name, fault] < WANTED and not explanation(branch.name, fault)
    ]


def show(cells: Counter[tuple[str, str]]) -> None:
    """Print the matrix, wide: `.` for a cell that is explained."""
    console = Console(width=WIDTH)
    table = Table(title="rare branches, by fault", box=None)
    table.add_column("state")
    table.add_column("branch")
    for fault in FAULTS:
        table.add_column(fault, justify="right")
    for branch in BRANCHES:
        row = [
            str(cells[branch.name, fault] or ("." if explanation(branch.name, fault) else "0"))
            for fault in FAULTS
        ]
        table.add_row(branch.state, branch.name, *row)
    console.print(table)
    for (branch, fault), why in EXPLAINED.items():
        console.print(f". {branch}{fault and f', {fault}'}: {why}")
    short = missing(cells)
    console.print(
        f"{len(BRANCHES) * len(FAULTS)} cells; {len(short)} of them short of {WANTED}"
        f" and not explained"
    )
