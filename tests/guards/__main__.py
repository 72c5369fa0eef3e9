"""`./dev guards`: take each guard away in a copy of this tree; its tests must pass with it alone.

Exit code 1 if a test passes without its guard, or fails with it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest
from rich.console import Console
from rich.table import Table
from support.worker import ROOT

from guards.table import GUARDS, RULES, Guard

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__")
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


def main() -> int:
    """Try the guards that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev guards", description=__doc__)
    parser.add_argument("--rule", type=int, choices=RULES, help="of this rule alone")
    rule = parser.parse_args().rule
    guards = [guard for guard in GUARDS if rule in (None, guard.rule)]
    console = Console()
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        tests = sorted({test for guard in guards for test in guard.tests})
        code, said = run(tree, tests)
        if code != 0:
            console.print(said, markup=False)
            console.print("With all guards in place these tests must pass.", style="red")
            return 1
        console.print(f"With all guards in place: {len(tests)} tests pass.")
        return try_out(guards, tree, console)


def try_out(guards: Sequence[Guard], tree: Path, console: Console) -> int:
    """Take one guard after the other away in *tree*; return the exit code."""
    table = Table(box=None, title="Without a guard")
    for column in ("rule", "guard", "tests", "fail", "seconds"):
        table.add_column(column)
    unnoticed = 0
    for guard in guards:
        began = monotonic()
        missed = unnoticed_by(guard, tree)
        unnoticed += bool(missed)
        table.add_row(
            str(guard.rule),
            guard.name,
            str(len(guard.tests)),
            "[red]no[/]" if missed else "yes",
            f"{monotonic() - began:.1f}",
        )
        for test in missed:
            console.print(f"Without {guard.name!r} this passes: {test}", style="red", markup=False)
    console.print(table)
    return 1 if unnoticed else 0


def unnoticed_by(guard: Guard, tree: Path) -> list[str]:
    """Return the tests of *guard* that do not fail without it."""
    before = {edit.path: (tree / edit.path).read_text(encoding="utf-8") for edit in guard.edits}
    try:
        for edit in guard.edits:
            path = tree / edit.path
            path.write_text(edit.apply(path.read_text(encoding="utf-8")), encoding="utf-8")
        code, said = run(tree, guard.tests)
        if code == pytest.ExitCode.INTERNAL_ERROR:
            # Python before 3.11.8 (gh-106905) may end pytest while it reports a failed test.
            failing = (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR)
            return [test for test in guard.tests if run(tree, [test])[0] not in failing]
    finally:
        for file, text in before.items():
            (tree / file).write_text(text, encoding="utf-8")
    failed = FAILED.findall(said)
    return [test for test in guard.tests if not any(each.startswith(test) for each in failed)]


def run(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run *tests* in *tree*; return pytest's exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main())
