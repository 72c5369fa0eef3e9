"""Writes deploy/docs/exactness.md: what is promised, how it was tested, and the table."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from support.worker import ROOT

from everystep.crew import Outcome
from everystep.run import LEASE, Result
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
_HEAD = f"""# Exactness: nothing lost, nothing twice

`./dev everystep` writes this page. It says what is promised, under which assumptions, how each promise
was tested, and how to run the tests again.

## What is promised

1. A message has at most one outcome.
2. At most one request that contains a message is accepted by the provider, whatever crashes, freezes or
   loses its connection. The one exception is yours to choose: an app with `on_unsure = resend` sends a
   message again after `resend_after` without any report.
3. A late worker overwrites nothing; a late answer settles what is unsure.
4. A message leaves the queue only in the transaction that writes its request, and returns only in the
   transaction that closes it. So none is lost.
5. Times that decide come from the database's clock.

A message is **unsure** when its request may have been accepted and no answer says so. It is never sent
again by itself then (see 2); a status report, a late answer or an operator settles it.

## Assumptions

- One PostgreSQL that keeps every commit it has acknowledged ([replication](replication.md) says which
  settings several servers need). Processes of it may be killed at any time.
- At most one process uses a data directory at a time.
- The provider returns the token of a request with each report, and accepts a request at most once. It
  posts a report once; a report that no receiver has answered with 200 is lost, and its message stays
  `accepted`.

## How each promise is tested

| test | what it does | run it |
|---|---|---|
| every step | this page: each step of a scene is struck by each fault | `./dev everystep` |
| storms | random faults of everything at once | `./dev chaos --minutes 10 --seeds 10 --reports` |
| guards | each guard of the rules is taken out: a test must fail | `./dev guards` |
| cut-off hosts | a host loses the network, and returns | `./dev test tests/network` |
| fail-over | the database moves to a standby | `./dev test tests/failover` |

## Every step was the last one

A scene of sixteen messages runs on two workers, a receiver of status reports, PostgreSQL and a simulated
provider: urgent messages, one deferred for flow control, one refused, a request refused for its content
and halved, an answer that is lost, a cancel, a requeue, reports after and before the answer. Proxies
count its **steps**: each message of PostgreSQL's protocol between a process and its database in either
direction; each request to the provider and its answer after its head, half of its body and all of it;
the same for posted reports. Each step is struck in a run of its own:

- **cut before, cut after**: the connection breaks before or after the step passes;
- **kill -9**: the process that sends or awaits it is killed, and started again;
- **freeze**: it is stopped for {LEASE + 8:g} seconds (its lease is {LEASE:g}), while others take over and send again
  what was surely not sent; then it continues. A receiver, which has no lease, is stopped for 6 seconds;
- **PostgreSQL killed**: all processes of the server are killed (`SIGKILL`), and it is started again.

Then the fault ends, and the run must end like this: the provider has accepted no message twice; every
message is in its one final state, which the scene knows; nothing became unsure except in the request
whose connection was cut, or in requests that the killed or frozen worker had open; every report that was
answered with 200 is matched to its message and has settled it if it was unsure; no report was refused
unless its way was cut or its receiver killed; no process ended with an error of its own.

A process writes several protocol messages at once, and only a network can cut between them: so a step
within a write is cut, and the other faults strike at the end of the write. A statement is struck the
first {OFTEN} times that it occurs in a transaction of its kind (a COMMIT {OFTEN_COMMIT} times); what idle processes repeat
(looking for work, heartbeats, looking for dead workers, connecting) once. A step counts if every one of
several runs without a fault has it.
"""


def write(steps: Sequence[Step], outcome: Outcome) -> None:
    """Write the page."""
    PAGE.write_text(page(steps, outcome), encoding="utf-8")


def page(steps: Sequence[Step], outcome: Outcome) -> str:
    """Return the page as Markdown."""
    return "\n".join((_HEAD, *_summary(steps, outcome), *_table(steps, outcome), ""))


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
        "`>` goes to the server, `<` comes from it. A cell has the number of runs that ended as they"
        " must; `!` those that did not; `?` those that did not come to their step.\n"
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
