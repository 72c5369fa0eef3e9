"""The model breaks no rule; without a guard it does, and says how in a few steps."""

import pytest
from guards import table

from model import promises
from model.__main__ import LONGEST_STORY, WHOLE
from model.guards import GUARDS, Guard
from model.search import search
from model.world import Budget, Model

SHOWN = [
    pytest.param(guard, marks=[pytest.mark.slow] if guard.model.messages > 1 else [], id=guard.name)
    for guard in GUARDS
    if guard.model
]
SMALL = Model(messages=1, budget=Budget(claims=2, troubles=1))


def test_each_guard_of_the_table_is_taken_out_or_has_a_reason():
    names = {guard.name for guard in GUARDS}
    assert {guard.name for guard in table.GUARDS} <= names
    assert all(bool(guard.model) != bool(guard.reason) for guard in GUARDS)


@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_no_state_of_one_message_breaks_a_rule(policy):
    found = search(SMALL._replace(policy=policy))
    assert (found.problem, found.story) == ("", [])
    assert found.exhausted
    assert found.states > 5000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", SHOWN)
def test_without_a_guard_a_rule_breaks_in_a_few_steps(guard: Guard):
    found = search(guard.model._replace(without=frozenset({guard.name})))
    assert found.problem
    assert len(found.story) <= LONGEST_STORY
    assert not search(guard.model, most=found.states).problem


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_state_of_three_messages_and_two_workers_breaks_a_rule():
    found = search(WHOLE)
    assert (found.problem, found.story) == ("", [])
    assert found.exhausted
    assert found.states >= 1_000_000


def test_a_message_that_nothing_holds_is_lost():
    tables = promises.start(1)._replace(queue=(None,))
    assert promises.state_of(tables, 0) == ("lost", 0)
