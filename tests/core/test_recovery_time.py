"""How long after the end of each sickness all is out: arithmetic, without a clock."""

from datetime import UTC, datetime

import pytest

from dispatcher.core import rate_limit
from dispatcher.core.circuit import (
    Answered,
    CircuitLimits,
    CircuitState,
    SlowStart,
    change,
    signal,
)
from dispatcher.core.delays import Pause
from dispatcher.core.message import Batch, Message, NoReply, Reply
from dispatcher.core.outcome import EvaluationContext, Resolved, ReturnAll, evaluate
from dispatcher.core.packing import pack
from dispatcher.core.result import BatchResult

SICKNESSES = {
    "502": Reply(502, "HTTP 502", ""),
    "503": Reply(503, "HTTP 503", ""),
    "504": Reply(504, "HTTP 504", ""),
    "cut": NoReply("the connection broke", sent=True),
    "stall": NoReply("no answer within 30 s", sent=True, code="timeout"),
    "E000027": Reply(400, "E000027", "invalid"),
    "E000000": Reply(200, "E000000", "system error"),
    "unknown 400": Reply(400, "E999999", ""),
}
WAITING = 20_000
RATE = 500.0  # numbers a second, the default
POLL_SECONDS = 0.5  # the default
ROUND_SECONDS = 0.5  # of a slow start, besides the pace: claim, answer, record on a busy machine
WITHIN_SECONDS = 60.0


def sick(number: int, answer: Reply | NoReply) -> BatchResult:
    """Return the result of a message with a text of its own."""
    message = Message(number, f"+86138{number:08d}", "t", (str(number),))
    [packed], _ = pack([message], callback=None, token_length=32)
    verdict = evaluate(
        packed,
        answer,
        EvaluationContext(
            elapsed=0.0,
            max_attempts=20,
            now=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
            jitter=lambda: 0.0,
            country=lambda _: "CN",
        ),
    )
    batch = Batch(number, "default", "token", packed, 0.0)
    return BatchResult(batch, verdict, None, answer.code, "", 1, 0.1)


def opened(answer: Reply | NoReply) -> Pause:
    """Return the pause that an app has after minutes of *answer*."""
    results = [sick(number, answer) for number in range(20)]
    for result in results:
        verdict = result.verdict
        if isinstance(verdict, Resolved | ReturnAll) and verdict.pause is not None:
            return verdict.pause
    pause = change(CircuitState(), [signal(each) for each in results], CircuitLimits()).pause
    assert pause is not None
    return pause


def slow_start_seconds() -> tuple[float, int]:
    """Return how long a slow start takes, and how many messages it sends."""
    state, seconds, sent = CircuitState(slow_start=SlowStart()), 0.0, 0
    while state.slow_start is not None:
        requests = state.slow_start.requests
        numbers = requests * min(requests, rate_limit.grant_size(RATE))
        seconds += ROUND_SECONDS + rate_limit.grant_seconds(RATE, numbers)
        sent += numbers
        state = change(state, [Answered()] * requests, CircuitLimits()).state
    return seconds, sent


@pytest.mark.parametrize("sickness", SICKNESSES)
def test_all_is_out_within_a_minute_of_the_end(sickness):
    pause = opened(SICKNESSES[sickness])
    # At worst the provider heals just after a probe, and a host looks just before the next one.
    until_probed = pause.probe_max + POLL_SECONDS
    seconds, sent = slow_start_seconds()
    rest = rate_limit.grant_seconds(RATE, WAITING - sent)
    assert until_probed + seconds + rest < WITHIN_SECONDS - 5.0  # a tenth for what is not foreseen


@pytest.mark.parametrize("sickness", SICKNESSES)
def test_a_minute_of_sickness_costs_few_probes(sickness):
    pause = opened(SICKNESSES[sickness])
    assert 60.0 / pause.probe_max <= 12


@pytest.mark.parametrize("sickness", ["E000027", "E000000", "unknown 400"])
def test_the_message_of_a_refused_probe_waits_uncounted(sickness):
    pause = opened(SICKNESSES[sickness])
    paused = CircuitState(pause_code=pause.code)
    refused = signal(sick(1, SICKNESSES[sickness]))
    assert change(paused, [refused], CircuitLimits()).held == {0}
