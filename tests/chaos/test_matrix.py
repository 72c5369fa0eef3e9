"""Rare branches are found in the code, counted while it runs, and added up over storms."""

import json
import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from support.worker import ROOT

from chaos.aim import FAULT_OF, FREEZE_STOPS, LEADING, LEADS_TO, TO_DATABASE, aim_at, aimed
from chaos.branches import BRANCHES, REACHED, marked
from chaos.deck import Deck
from chaos.fault_schedule import MAKERS
from chaos.matrix import (
    EXPLAINED,
    FAULTS,
    WANTED,
    WORKER_STOPPED,
    Period,
    add,
    count,
    missing,
)
from chaos.workers import LEASE, MODULES, STOPPED, TO_WORKER

MAKERS_ALIKE = dict.fromkeys(MAKERS, 1.0)


@pytest.mark.parametrize("module", sorted({branch.module for branch in BRANCHES}))
def test_each_branch_is_a_statement_of_its_module(module):
    path = (ROOT / "dispatcher").joinpath(*module.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    names = [branch.name for branch in BRANCHES if branch.module == module]
    code = marked(module, source)
    compile(code, str(path), "exec")
    assert code.count("__reached__") == len(names)
    assert len(code.splitlines()) == len(source.splitlines())


def test_a_statement_that_is_gone_is_an_error():
    with pytest.raises(ValueError, match=r"worker\.sender has 0 times"):
        marked("worker.sender", "pass\n")


def test_a_process_reports_the_branches_it_reaches():
    code = (
        "import chaos.branches as b, sys, builtins\n"
        "builtins.__reached__ = b._Reporter(); sys.meta_path.insert(0, b._Finder())\n"
        "from dispatcher.worker.in_flight import Lease\n"
        "now = [0.0]\n"
        "lease = Lease(10.0, lambda: now[0])\n"
        "lease.renew(1.0, 1.0); lease.renew(20.0, 20.0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ | MODULES, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [line] = map(json.loads, done.stderr.splitlines())
    assert (line["event"], line["branch"]) == (REACHED, "a lease is lost by silence")


def test_a_branch_counts_for_the_faults_that_came_before_it(tmp_path):
    log = tmp_path / "worker-0001.log"
    log.write_text(
        "".join(
            json.dumps({"event": REACHED, "branch": "b", "at": at}) + "\n" for at in (5.0, 11.0)
        )
        + '{"event": "branch reached", "bra'
    )
    periods = [
        Period("before", 0.0, 1.0),
        Period("long before", -99.0, 4.0 - LEASE),
        Period("later", 12.0, 13.0),
        Period("now", 10.0, 20.0),
    ]
    assert count(tmp_path, periods) == {("b", "before"): 2, ("b", "now"): 1}


def test_storms_are_added_up_until_no_cell_is_short(tmp_path):
    cells = Counter({(branch.name, fault): 15 for branch in BRANCHES for fault in FAULTS})
    file = tmp_path / "matrix.json"
    assert missing(add(file, cells, 1))
    assert not missing(add(file, cells, 2))
    cells.clear()
    total = add(file, cells, 3)
    total[BRANCHES[1].name, FAULTS[0]] = WANTED - 1
    assert missing(total) == [(BRANCHES[1].name, FAULTS[0])]
    assert json.loads(file.read_text())["seeds"] == [1, 2, 3]


def test_a_storm_is_aimed_at_what_is_short():
    aim = aim_at([("an answer is kept on disk", WORKER_STOPPED)], Random(1))
    assert aim == {FREEZE_STOPS: LEADING, STOPPED: 1}
    assert aimed(TO_WORKER, aim) == {STOPPED: 1}
    assert aimed(MAKERS_ALIKE, aim) == MAKERS_ALIKE
    assert aim_at([], Random(1)) == {}


def test_acts_are_drawn_as_often_as_their_weights_say():
    deck = Deck({"a": 3.0, "b": 1.0}, Random(1))
    drawn = "".join(deck.draw() for _ in range(40))
    assert 28 <= drawn.count("a") <= 32
    assert "aaaaaaa" not in drawn


def test_each_fault_and_each_branch_can_be_aimed_at():
    assert set(FAULT_OF.values()) == set(FAULTS)
    assert {*TO_WORKER, *TO_DATABASE, *MAKERS} == set(FAULT_OF)
    assert LEADS_TO.keys() <= {branch.name for branch in BRANCHES}
    assert {act for acts in LEADS_TO.values() for act in acts} <= set(FAULT_OF)


def test_what_is_explained_exists():
    names = {branch.name for branch in BRANCHES}
    assert len(names) == len(BRANCHES)
    assert {(branch in names, fault in (*FAULTS, "")) for branch, fault in EXPLAINED} == {
        (True, True)
    }
