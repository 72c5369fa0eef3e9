"""The rare branches that storms must reach, and how a process of the service is made to count them.

The code of the service has no marks: `python -m chaos.branches run` is `dispatcher run`, in which
each branch of the table below reports that it was reached, as a line of JSON on stderr. A branch is
found by the text of the statement it begins with, which its module has exactly once.
"""

import builtins
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

SEEN_SECONDS = 0.1  # so long, one branch of one process is reached once
REACHED = "branch reached"


@dataclass(frozen=True)
class Branch:
    """A statement that rarely runs, and the state of the messages it concerns."""

    state: str
    name: str
    module: str
    text: str  # of the statement
    after: str = ""  # the text before it, where the statement alone is there several times


BRANCHES = (
    # Waiting messages
    Branch(
        "queued", "a claim is halved for a row it cannot take", "worker.claimer",
        "self._narrowed[loop] = min(failed // 2, MAX_NUMBERS)",
    ),
    Branch(
        "queued", "no claim: the database is away", "worker.claimer",
        'self._metrics.database_away("claim")',
        after="            self._timeout.failed()\n            ",
    ),
    Branch(
        "queued", "no claim: this host cannot send", "worker.circuit_breaker",
        'log.warning("no claims: this host cannot send"',
    ),
    Branch(
        "queued", "no claim: the circuit opens", "worker.circuit_breaker",
        'log.warning("no claims: the circuit of the app is open"',
    ),
    Branch(
        "queued", "the circuit opens again in a slow start", "core.circuit",
        "return state, _reopened(each)",
    ),
    Branch(
        "queued",
        "a probe ends a pause",
        "worker.sender",
        "await self._claimer.end_probe(app, probed_at)",
    ),
    Branch(
        "queued", "a slow start waits for its round", "db.claim",
        "return Claimed([], wait=SLOW_START_RECHECK_SECONDS)",
    ),
    Branch(
        "queued", "messages expire while they wait", "worker.recovery",
        'log.info("messages expired while they waited"',
    ),
    Branch(
        "queued", "what waits again is taken back by a late answer", "db.record",
        '_gather_outcome(accepted[row["id"]], result.batch, rows)',
    ),
    Branch(
        "queued", "what waits again is taken back by a report", "db.report_matching",
        "found.recalls.append((seen, place))",
    ),
    # Messages on their way
    Branch(
        "sending", "a claim is in doubt: its COMMIT was not answered", "worker.claimer",
        "self._in_flight.mark_unconfirmed(each)",
    ),
    Branch(
        "sending", "a request is withheld: the lease or the time is over", "worker.sender",
        "return _withheld(batch)", after="if not may_try():\n            ",
    ),
    Branch(
        "sending", "a request is withheld in the last moment", "worker.sender",
        "return _withheld(batch)", after="# withheld in the last moment\n            ",
    ),
    Branch("sending", "a lease is lost by silence", "worker.in_flight",
        "self._valid_from = asked_at"),
    Branch(
        "sending", "a request is cut off by a stop", "worker.sender",
        "self._submit(\n                BatchResult(",
        after="except asyncio.CancelledError:\n            ",
    ),
    Branch(
        "sending", "a half is inferred from the other", "worker.sender", "again.append(inferred)"
    ),
    Branch(
        "sending", "a split meets a batch that was taken over", "worker.sender",
        "self._submit(_unsent(parent, NEVER_SENT))",
        after="settles the batch if that is possible.\n            ",
    ),
    Branch(
        "sending", "an answer waits: the database is away", "worker.recorder",
        'self._metrics.database_away("record")',
    ),
    Branch(
        "sending", "an answer is kept on disk", "worker.recorder",
        'log.warning("answers kept on disk',
    ),
    Branch(
        "sending", "a refused message waits under an open circuit", "core.circuit",
        "held.add(place)",
    ),
    # Unsure messages
    Branch("unsure", "the result of a whole request is unknown", "db.record",
        'rows.whole.append(((batch.app, "unsure", code)'),
    Branch(
        "unsure", "an answer lacks numbers", "db.record",
        "open_still = [message.id for message in unsure if message.id not in settled]",
    ),
    Branch(
        "unsure", "batches of a dead worker or a sending policy", "worker.recovery",
        "log.warning(event, batches=batches, messages=messages)",
    ),
    Branch(
        "unsure", "an answer from disk is written", "worker.recorder",
        "written = await self._write_kept(results)",
    ),
    Branch(
        "unsure", "a report settles", "db.report_matching", "found.settles.append((seen, place))"
    ),
    # Messages that have an outcome
    Branch(
        "accepted", "an answer comes for a batch that is closed", "db.record",
        "outcomes = result.verdict.outcomes if isinstance(result.verdict, Resolved) else []",
    ),
    Branch(
        "accepted", "a report brings the provider's id", "db.report_matching",
        "found.names.append((seen, place))",
    ),
    Branch(
        "accepted", "a report cannot be matched yet, or to nothing", "db.report_matching",
        "found.left.append((seen, why))",
    ),
    Branch(
        "accepted", "a report that was settled elsewhere is matched again", "db.report_matching",
        'found.left.append((seen, RetryLater("still-open")))',
        after="it names another id: match it again later\n                ",
    ),
    Branch(
        "accepted", "reports go to disk", "receiver.intake",
        'log.warning("reports go to disk',
    ),
)  # fmt: skip


def marked(module: str, source: str) -> str:
    """Return *source* of *module*, with a call before each statement of the table."""
    for number, branch in enumerate(BRANCHES):
        if branch.module != module:
            continue
        whole = branch.after + branch.text
        if source.count(whole) != 1:
            raise ValueError(f"{module} has {source.count(whole)} times: {whole}")
        call = f"__reached__({number}); "
        source = source.replace(whole, branch.after + call + branch.text)
    return source


class _Loader(SourceFileLoader):
    """Loads a module with its marks, whatever is in the cache of bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        code = marked(fullname.removeprefix("dispatcher."), source)
        return compile(code, path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.removeprefix("dispatcher.") not in {branch.module for branch in BRANCHES}:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Reporter:
    """Writes a line for each branch that is reached, at most one each SEEN_SECONDS."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}

    def __call__(self, number: int) -> None:
        now = time.monotonic()  # one clock for all processes of a machine, which nothing sets
        if now - self._last.get(number, -1.0) < SEEN_SECONDS:
            return
        self._last[number] = now
        line = {"event": REACHED, "branch": BRANCHES[number].name, "at": now}
        os.write(2, json.dumps(line).encode() + b"\n")


def main() -> None:
    """Be `dispatcher`, and report the branches."""
    builtins.__reached__ = _Reporter()  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _Finder())
    from dispatcher.cli import main as dispatcher_main  # noqa: PLC0415

    dispatcher_main()


if __name__ == "__main__":
    main()
