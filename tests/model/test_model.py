"""The model breaks no rule; without a guard it does, and says how in a few steps."""

import pytest
from guards import table

from dispatcher.core.codes import REQUEST
from dispatcher.core.message import Entry, Message, Reply, RequestDraft
from dispatcher.core.outcome import UnknownResult, evaluate, is_retryable
from model import promises
from model.__main__ import FEATURES, LONGEST_STORY, WHOLE
from model.guards import GUARDS, Guard
from model.search import search
from model.world import CONTEXT, Budget, Model

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


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(FEATURES["split"], marks=pytest.mark.slow),
        pytest.param(FEATURES["expiry"]._replace(messages=1)),
        pytest.param(FEATURES["circuit"]._replace(budget=Budget(2, 1, 0))),
    ],
    ids=FEATURES,
)
def test_no_state_with_a_feature_breaks_a_rule(model):
    found = search(model)
    assert (found.problem, found.story) == ("", [])
    assert found.exhausted
    assert found.states > 500


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["hold", "resend"])
def test_no_state_of_two_messages_and_two_workers_breaks_a_rule(policy):
    """Three messages, more than a million states, are searched by `./dev model`."""
    found = search(WHOLE._replace(messages=2, policy=policy))
    assert (found.problem, found.story) == ("", [])
    assert found.exhausted
    assert found.states > 50_000


def test_what_evaluate_calls_unknown_is_not_tried_again():
    answers = [Reply(status, code, "") for status in (429, 500, 503) for code in REQUEST]
    draft = RequestDraft("s", [Entry(b"", [Message(1, "+8613800000000", "t", [])])], 0)
    unknown = [
        each for each in answers if isinstance(evaluate(draft, each, CONTEXT), UnknownResult)
    ]
    assert [each for each in unknown if is_retryable(each)] == []


def test_a_message_that_nothing_holds_is_lost():
    tables = promises.start(1)._replace(queue=(None,))
    assert promises.state_of(tables, 0) == ("lost", 0)
