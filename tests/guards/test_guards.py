"""The texts that `./dev guards` removes exist, and so do the tests that must fail."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from support.worker import ROOT

from guards.table import GUARDS, RULES, Guard


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_is_where_the_table_says(guard: Guard):
    for edit in guard.edits:
        text = (ROOT / edit.path).read_text(encoding="utf-8")
        assert text.count(edit.old, *edit.scope(text)) == 1, edit.file
        assert edit.new != edit.old
    for test in guard.tests:
        file, _, name = test.partition("::")
        assert re.search(rf"def {name}\(", (ROOT / file).read_text(encoding="utf-8")), test


def test_every_rule_has_guards():
    guarded = Counter(guard.rule for guard in GUARDS)
    assert guarded.keys() == RULES.keys()
    assert min(guarded.values()) >= 2


@pytest.mark.slow
def test_the_command_notices_that_the_guards_of_a_rule_are_gone():
    done = subprocess.run(
        [sys.executable, "-m", "guards", "--rule", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" yes ") == sum(guard.rule == 1 for guard in GUARDS)
