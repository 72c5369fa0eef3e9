"""The file of results: one JSON a line, so that an interrupted call can be continued.

::

    {"commit": "..."}                         each call begins with it
    {"steps": {"worker claim > Sync #1": true, ...}}
    {"elapsed": 12.5, "result": {...}}        seconds since its call began
"""

import dataclasses
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from support.worker import ROOT

from everystep.run import Job, Result
from everystep.steps import Step


class OtherCommitError(Exception):
    """The file has results of another commit."""


class ResultFile:
    """Results of this commit, of earlier calls and of this one."""

    def __init__(self, path: Path, commit: str) -> None:
        """Read what earlier calls wrote. Raises OtherCommitError."""
        self.path = path
        self.steps: list[Step] = []
        # What is not done again: a violation stays one, whatever a repetition would show.
        self.done: dict[Job, Result] = {}
        self.seconds = 0.0  # of earlier calls
        self._began = monotonic()
        self._read(commit)
        self._write({"commit": commit})

    def _read(self, commit: str) -> None:
        elapsed = 0.0
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the call was killed while it wrote this line
            match row:
                case {"commit": other}:
                    if other != commit:
                        raise OtherCommitError(
                            f"{self.path} has results of commit {other}, this is {commit}:"
                            " check out that commit, or name another file"
                        )
                    self.seconds += elapsed
                    elapsed = 0.0
                case {"steps": steps}:
                    self.steps = [Step(label, turn=turn) for label, turn in steps.items()]
                case {"elapsed": seconds, "result": given}:
                    elapsed = seconds
                    result = Result.read(given)
                    if result.problems or (result.reached and not result.broken):
                        self.done[result.job] = result
        self.seconds += elapsed

    def keep_steps(self, steps: Sequence[Step]) -> None:
        """Keep the steps that were found."""
        self.steps = list(steps)
        self._write({"steps": {step.label: step.turn for step in steps}})

    def append(self, result: Result) -> None:
        """Keep a result."""
        elapsed = monotonic() - self._began
        self._write({"elapsed": round(elapsed, 1), "result": dataclasses.asdict(result)})

    def _write(self, row: object) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def current_commit() -> str:
    """Return the commit of this tree; with a mark if files differ from it, those of pages aside."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--", "dispatcher", "migrations", "tests")
    return f"{commit} with changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
