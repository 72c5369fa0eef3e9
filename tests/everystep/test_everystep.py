"""A slice of ./dev everystep, and what it finds where a guard is missing."""

import os
import shutil
import subprocess
import sys

import pytest
from guards.__main__ import LEFT_OUT
from guards.table import GUARDS
from support.worker import ROOT

RUNS = 24  # of the slice; the whole is `./dev everystep`
MINUTES = 6  # after which it begins no further run, on a slow machine
PATIENCE = "PATIENCE = 200.0"


def everystep(tree, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "everystep", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": f"{tree}:{tree / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_no_step_of_a_slice_loses_anything_or_sends_it_twice(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    size = ("--runs", str(RUNS), "--minutes", str(MINUTES), "--jobs", "1")
    done = everystep(ROOT, "--slice", "20261129", *size)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    last = done.stdout.strip().splitlines()[-1]
    assert " 0 violated" in last
    assert int(last.split()[0]) > 0  # a slow machine begins fewer


# One step for each guard, at which its absence shows: with the fault, the seconds that what is lost
# is waited for, and what is printed (any of them). A worker that is frozen in a claim is no such
# step: when it thaws, its connection is cut before its lease is asked (see tests/worker).
SHOWS = {
    "no answer after the body was sent is unsure": (
        "request early-3 request whole #1",
        "cut-after",
        120.0,
        ("accepted twice",),
    ),
    "what a dead worker had open is unsure": (
        "request early-3 answer head #1",
        "kill",
        120.0,
        ("accepted twice",),
    ),
    # What it claimed is lost. If the scene needs one of those messages, it waits for it and is
    # repeated once; if not, the judge finds them. Which ones are in that claim differs.
    "a claim and its batches are one transaction": (
        "worker claim/open_batches > Sync #1",
        "cut-before",
        30.0,
        ("TimeoutError:  (the scene)", "is lost (None)"),
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHOWS)
def test_without_a_guard_a_step_is_violated(name, tmp_path, monkeypatch):
    step, fault, patience, reasons = SHOWS[name]
    [guard] = [guard for guard in GUARDS if guard.name == name]
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    for edit in guard.edits:
        path = tree / edit.path
        whole = path.read_text(encoding="utf-8")
        assert edit.old in whole
        path.write_text(edit.apply(whole), encoding="utf-8")
    # As long as many runs at a time need; and this is one.
    run = tree / "tests/everystep/run.py"
    patient = run.read_text(encoding="utf-8")
    assert PATIENCE in patient
    run.write_text(patient.replace(PATIENCE, f"PATIENCE = {patience}"), encoding="utf-8")
    # Its processes share what the first of them compiles: it stays in the tree.
    for variable in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
        monkeypatch.delenv(variable, raising=False)
    done = everystep(tree, "--step", step, "--fault", fault, "--jobs", "1")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    assert f"VIOLATED: --step '{step}' --fault {fault}" in done.stdout
    assert any(reason in done.stdout for reason in reasons), done.stdout[-3000:]
