"""Writes deploy/docs/exactness.md (promises, tests, result) and everystep.md (each step)."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos.branches import BRANCHES
from chaos.matrix import FAULTS as CHAOS_FAULTS
from chaos.matrix import WANTED
from support.worker import ROOT

from dispatcher.core.circuit import CircuitLimits
from everystep.crew import Outcome
from everystep.lane import STOOD_STILL
from everystep.results import current_commit
from everystep.run import FROZEN, LEASE, Result
from everystep.steps import CUT_AFTER, CUT_BEFORE, FAULTS, FREEZE, KILL, OFTEN, OFTEN_COMMIT, Step
from everystep.steps import POSTGRES as KILLED_POSTGRES

PAGES = (ROOT / "deploy/docs/exactness.md", ROOT / "deploy/docs/everystep.md")
COLUMNS = {
    CUT_BEFORE: "cut before",
    CUT_AFTER: "cut after",
    KILL: "kill -9",
    FREEZE: "freeze",
    KILLED_POSTGRES: "PostgreSQL killed",
}
HEADS = (Path(__file__).with_name("exactness.md"), Path(__file__).with_name("everystep.md"))


def write(steps: Sequence[Step], outcome: Outcome) -> None:
    """Write both pages."""
    for path, text in zip(PAGES, pages(steps, outcome), strict=True):
        path.write_text(text, encoding="utf-8")


def pages(steps: Sequence[Step], outcome: Outcome) -> tuple[str, str]:
    """Return the page of promises and the page of steps, as Markdown."""
    facts = {
        "frozen": f"{FROZEN['worker']:g}",
        "frozen_receiver": f"{FROZEN['receiver']:g}",
        "lease": f"{LEASE:g}",
        "stood_still": f"{STOOD_STILL:g}",
        "often": OFTEN,
        "unknown": CircuitLimits().unknown,
        "branches": len(BRANCHES),
        "kinds": len(CHAOS_FAULTS),
        "wanted": WANTED,
        "often_commit": OFTEN_COMMIT,
        "result": "\n".join(_summary(steps, outcome)),
        "parts": "\n".join(_parts(outcome)),
        "table": "\n".join(_table(steps, outcome)),
    }
    promises, every = (head.read_text(encoding="utf-8").format(**facts) for head in HEADS)
    return promises, every


def _summary(steps: Sequence[Step], outcome: Outcome) -> Iterable[str]:
    results = outcome.results
    ended = [result for result in results if result.reached and not result.problems]
    unsure = [result for result in ended if result.unsure > 1]
    open_ = outcome.planned - len(results) + len(outcome.broken)
    how = "all of them done" if not open_ else f"**{outcome.planned - open_} of them done**"
    yield (
        f"Commit `{current_commit()}`: {len(steps)} steps, {outcome.planned} runs, {how}, in"
        f" {outcome.seconds / 60:.0f} minutes on {os.cpu_count()} processors."
    )
    yield ""
    yield "| | runs |"
    yield "|---|---:|"
    yield f"| ended as they must | {len(ended)} |"
    yield f"| violated a promise | {len(outcome.failed)} |"
    yield f"| did not come to their step in three tries | {len(outcome.missed)} |"
    yield f"| not done | {open_} |"
    yield f"| made a request unsure, besides the one whose answer the scene loses | {len(unsure)} |"
    yield (
        "| needed an operator: an unsure message that the provider never had, or a lost report |"
        f" {sum(result.by_hand > 0 for result in ended)} |"
    )
    for result in outcome.failed:
        yield f"\n- violated: `{result.job.label}`, {result.job.fault}: {result.problems[0]}"


def _parts(outcome: Outcome) -> Iterable[str]:
    by_part: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in outcome.results:
        if result.reached and not result.problems:
            by_part[_part(result.job.label or "")][result.job.fault or ""] += 1
    yield "| runs that ended as they must | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "---:|" * len(FAULTS)
    for part, counts in sorted(by_part.items()):
        yield f"| {part} | " + " | ".join(str(counts[fault] or "") for fault in FAULTS) + " |"


def _table(steps: Sequence[Step], outcome: Outcome) -> Iterable[str]:
    cells: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in outcome.results:
        name = (result.job.label or "").rpartition(" #")[0]
        cells[name, result.job.fault or ""].append(result)
    yield "| step | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "---:|" * len(FAULTS)
    for name in dict.fromkeys(step.name for step in steps):
        counts = " | ".join(_cell(cells[name, fault]) for fault in FAULTS)
        yield f"| `{name}` | {counts} |"


def _cell(results: list[Result]) -> str:
    bad = sum(bool(result.problems) for result in results)
    good = sum(result.reached and not result.problems for result in results)
    missed = len(results) - bad - good
    told = (str(good or ""), f"{bad}!" if bad else "", f"{missed}?" if missed else "")
    return " ".join(filter(None, told))


def _part(label: str) -> str:
    """Return what a step is part of: the process and its transaction, or the kind of request."""
    process, _, rest = label.partition(" ")
    if process == "request":
        return "provider: requests and answers"
    if process == "report":
        return "receiver: posted reports"
    kind = rest.partition(" ")[0].partition("/")[0]
    known = {
        "claim": "claims that find messages",
        "record": "records of answers",
        "split": "splits of refused requests",
        "store_reports": "reports stored",
        "match_lock": "reports matched",
    }
    return f"{process}: {known.get(kind, 'start, idle work, the rest')}"
