"""When the circuit of an app opens, and how it starts again."""

import pytest

from dispatcher.core.circuit import (
    MAX_SLOW_START,
    Answered,
    CircuitLimits,
    CircuitState,
    Refused,
    SlowStart,
    Unknown,
    UnknownShare,
    change,
    is_answer_of_api,
    signal,
)
from dispatcher.core.codes import ALL_REFUSED, UNKNOWN_RESULTS
from dispatcher.core.delays import Pause
from dispatcher.core.message import Batch, Entry, Message, NoReply, Reply, RequestDraft
from dispatcher.core.outcome import Resolved
from dispatcher.core.result import BatchResult

LIMITS = CircuitLimits(unknown=3, refused=5)
LOST = Unknown("HTTP 502", "A proxy lost the API over the request.")
FINE = Answered()
BAN = Pause("HTTP 418", "A firewall refuses.", 60.0, 600.0)


def refused(text: int) -> Refused:
    return Refused(text, "E000027", "invalid")


def played(*signals, state=None, **more):
    return change(state or CircuitState(), signals, LIMITS, **more)


def test_a_second_message_in_a_row_that_a_firewall_refuses_opens_the_circuit():
    blocked = [Refused(digest, "HTTP 418", "blocked", BAN) for digest in (1, 2)]
    assert played(blocked[0]).pause is None
    assert played(blocked[0], FINE, blocked[1]).pause is None
    assert played(*blocked).pause == BAN
    assert played(blocked[0], blocked[0]).pause is None  # the same message, a minute later
    assert played(refused(1), blocked[1]).pause == BAN
    assert played(blocked[0], refused(1)).pause is None


@pytest.mark.parametrize("pause", [None, BAN])
def test_refused_messages_of_one_text_are_told_apart_where_the_code_is_unknown(pause):
    """A ban of the address refuses one text for all numbers; a bad text is one text."""
    entry = b'],"templateId":"t","templateParas":[]}'
    digests = set()
    for number in (1, 2):
        message = Message(number, f"+861310000000{number}", "t", [])
        packed = RequestDraft("1069", [Entry(entry, [message])], 100)
        batch = Batch(number, f"token-{number}", "default", packed, 0.0)
        verdict = Resolved([], refused=True, pause=pause)
        told = signal(BatchResult(batch, verdict, 418, "HTTP 418", "", 1, 0.1))
        assert told.pause == pause
        digests.add(told.digest)
    assert len(digests) == (1 if pause is None else 2)


def test_a_message_is_the_same_one_when_its_answer_is_read_from_disk():
    """That answer lacks the content; a second one, of the request sent again, has it."""
    digests = set()
    for entry in (b'],"templateId":"t","templateParas":[]}', b""):
        packed = RequestDraft(None, [Entry(entry, [Message(7, "+8613100000001", "t", [])])], 100)
        batch = Batch(1, "token", "default", packed, 0.0)
        verdict = Resolved([], refused=True, pause=BAN)
        digests.add(signal(BatchResult(batch, verdict, 418, "HTTP 418", "", 1, 0.1)).digest)
    assert len(digests) == 1


def test_unknown_results_in_a_row_open_the_circuit():
    assert played(LOST, LOST).pause is None
    pause = played(LOST, LOST, LOST).pause
    assert pause.code == UNKNOWN_RESULTS
    assert "HTTP 502" in pause.reason
    assert played(LOST, state=CircuitState(unknown=2)).pause.code == UNKNOWN_RESULTS


@pytest.mark.parametrize("between", [FINE, refused(1)])
def test_an_answer_ends_the_row_of_unknown_results(between):
    assert played(LOST, LOST, between, LOST, LOST).pause is None


def test_a_high_share_of_unknown_results_opens_the_circuit():
    assert played(FINE, LOST, unknown_share_is_high=True).pause.code == UNKNOWN_RESULTS
    assert played(FINE, unknown_share_is_high=True).pause is None


def test_different_refused_texts_in_a_row_pause_and_hold():
    texts = [refused(text) for text in range(7)]
    assert played(*texts[:4]).pause is None
    new = played(*texts)
    assert new.pause.code == ALL_REFUSED
    assert "E000027" in new.pause.reason
    assert new.held == {4, 5, 6}


def test_one_refused_text_never_pauses_the_app():
    new = played(*[refused(1)] * 100)
    assert new.pause is None
    assert not new.held


def test_an_accepted_request_ends_the_row_of_refusals():
    texts = [refused(text) for text in range(4)]
    assert played(*texts, FINE, *texts).pause is None


def test_a_refused_probe_holds_its_message():
    paused = CircuitState(pause_code=ALL_REFUSED)
    assert played(refused(9), state=paused).held == {0}
    assert played(refused(9), state=CircuitState(pause_code="E000045")).held == frozenset()


def test_a_slow_start_doubles_until_it_ends():
    state, rounds = CircuitState(slow_start=SlowStart()), []
    while state.slow_start is not None:
        rounds.append(state.slow_start.requests)
        state = played(*[FINE] * rounds[-1], state=state).state
    assert rounds == [1, 2, 4, 8, 16, 32, MAX_SLOW_START]


def test_an_unknown_result_in_a_slow_start_opens_at_once():
    slow = CircuitState(slow_start=SlowStart(4, left=0, answered=2))
    pause = played(LOST, state=slow).pause
    assert pause.code == UNKNOWN_RESULTS
    assert (pause.probe_in, pause.probe_max) == (10, 60)


def test_a_request_that_was_not_sent_may_be_claimed_again():
    slow = CircuitState(slow_start=SlowStart(4, left=0, answered=2))
    assert played(None, state=slow).state.slow_start == SlowStart(4, left=1, answered=2)


@pytest.mark.parametrize(
    ("answer", "reached"),
    [
        (Reply(400, "E000027", ""), True),
        (Reply(401, "E000101", ""), True),
        (Reply(200, "000000", "", []), True),
        (Reply(500, "E000000", ""), False),
        (Reply(503, "HTTP 503", ""), False),
        (Reply(404, "HTTP 404", ""), False),
        (NoReply("cut", sent=True), False),
        (NoReply("refused", sent=False), False),
    ],
)
def test_only_an_answer_of_the_api_ends_the_pause(answer, reached):
    assert is_answer_of_api(answer) is reached


def test_the_share_counts_the_last_seconds_only():
    share = UnknownShare()
    for second in range(3):
        share.add(second, unknown=True)
    assert share.is_high(3)
    assert not share.is_high(4)
    for _ in range(4):
        share.add(3, unknown=False)
    assert not share.is_high(3)
    share.add(60, unknown=True)
    assert not share.is_high(2)
