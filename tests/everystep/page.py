"""Writes deploy/docs/exactness.md: what is promised, how it was tested, and the table."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from support.worker import ROOT

from everystep.crew import Outcome
from everystep.run import FROZEN, LEASE, Result
from everystep.steps import CUT_AFTER, CUT_BEFORE, FAULTS, FREEZE, KILL, OFTEN, OFTEN_COMMIT, Step
from everystep.steps import POSTGRES as KILLED_POSTGRES

PAGE = ROOT / "deploy/docs/exactness.md"
COLUMNS = {
    CUT_BEFORE: "cut before",
    CUT_AFTER: "cut after",
    KILL: "kill -9",
    FREEZE: "freeze",
    KILLED_POSTGRES: "PostgreSQL killed",
}
HEAD = Path(__file__).with_name("exactness.md")


def write(steps: Sequence[Step], outcome: Outcome) -> None:
    """Write the page."""
    PAGE.write_text(page(steps, outcome), encoding="utf-8")


def page(steps: Sequence[Step], outcome: Outcome) -> str:
    """Return the page as Markdown."""
    head = HEAD.read_text(encoding="utf-8").format(
        frozen=f"{FROZEN['worker']:g}", lease=f"{LEASE:g}", often=OFTEN, often_commit=OFTEN_COMMIT
    )
    return "\n".join((head, *_summary(steps, outcome), *_table(steps, outcome), ""))


def _summary(steps: Sequence[Step], outcome: Outcome) -> Iterable[str]:
    results = outcome.results
    ended = [result for result in results if result.reached and not result.problems]
    unsure = [result for result in ended if result.unsure > 1]
    yield "## Result\n"
    yield (
        f"Commit `{_commit()}`: {len(steps)} steps, {outcome.planned} runs,"
        f" {len(results)} of them done in {outcome.seconds / 60:.0f} minutes.\n"
    )
    yield "| | runs |\n|---|---:|"
    yield f"| ended as they must | {len(ended)} |"
    yield f"| violated | {len(outcome.failed)} |"
    yield f"| did not come to their step in three tries | {len(outcome.missed)} |"
    yield f"| not done: the time was over | {outcome.planned - len(results)} |"
    yield f"| made a request unsure, besides the one whose answer the scene loses | {len(unsure)} |"
    yield (
        "| needed an operator: an unsure message that the provider never had, or a lost report |"
        f" {sum(result.by_hand > 0 for result in ended)} |\n"
    )
    for result in outcome.failed:
        yield f"- violated: `{result.job.label}`, {result.job.fault}: {result.problems[0]}"
    by_part: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in ended:
        by_part[_part(result.job.label or "")][result.job.fault or ""] += 1
    yield "| runs that ended as they must | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "---:|" * len(FAULTS)
    for part, counts in sorted(by_part.items()):
        yield f"| {part} | " + " | ".join(str(counts[fault] or "") for fault in FAULTS) + " |"
    yield ""


def _table(steps: Sequence[Step], outcome: Outcome) -> Iterable[str]:
    cells: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in outcome.results:
        name = (result.job.label or "").rpartition(" #")[0]
        cells[name, result.job.fault or ""].append(result)
    yield "## All steps\n"
    yield (
        "`>` goes to the server, `<` comes from it. A cell has the number of runs that ended as"
        " they must; `!` those that did not; `?` those that did not come to their step.\n"
    )
    yield "| step | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---|" + "---:|" * len(FAULTS)
    for name in dict.fromkeys(step.name for step in steps):
        counts = " | ".join(_cell(cells[name, fault]) for fault in FAULTS)
        yield f"| `{name}` | {counts} |"


def _cell(results: list[Result]) -> str:
    bad = sum(bool(result.problems) for result in results)
    missed = sum(not result.problems and not result.reached for result in results)
    good = len(results) - bad - missed
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


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"
