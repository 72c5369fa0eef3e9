"""How flow control lowers the rate: simulated seconds of a provider."""

import random

import pytest
from msgspec.structs import replace

from dispatcher.core.rate_limit import (
    UTILIZATION,
    FlowControl,
    FlowWindow,
    add_to_window,
    end_window,
)

SETTING = 500.0


def run(refused_of, *, seconds: int, setting: float = SETTING) -> list[tuple[int, int]]:
    """Send for *seconds*; return accepted and refused numbers of each second."""
    rate, window, history = setting, None, []
    carried, cut_at, flow = 0.0, None, FlowControl()
    for second in range(seconds):
        carried += rate * UTILIZATION
        sent = int(carried)
        carried -= sent
        refused = refused_of(sent)
        history.append((sent - refused, refused))
        rate = min(setting, rate + min(setting / 600, rate / 150))
        since = None if cut_at is None else second - cut_at
        if window is None and since == 1:
            continue  # sent before the cut
        opened = window is None
        window = add_to_window(window, numbers=sent, refused=refused)
        if window is None:
            continue
        window = replace(window, seconds=window.seconds + 1.0)
        if opened:
            window = replace(window, after_cut=since)
        if window.is_over:
            flow, factor = end_window(flow, window)
            rate = min(setting, max(rate * factor, setting / 100))
            cut_at = cut_at if factor == 1.0 else second
            window = None
    return history


def by_chance(share: float):
    dice = random.Random(7)
    return lambda sent: sum(dice.random() < share for _ in range(sent))


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("setting", [20.0, 100.0, 500.0, 3000.0])
def test_a_constant_share_keeps_the_pace(share, setting):
    history = run(by_chance(share), seconds=1200, setting=setting)
    accepted = sum(each for each, _ in history) / len(history)
    assert accepted >= (0.97 if setting >= 500 else 0.9) * (1 - share) * UTILIZATION * setting


@pytest.mark.parametrize("limit", [50, 150, 300, 450])
def test_the_rate_converges_to_what_the_provider_takes(limit):
    history = run(lambda sent: max(0, sent - limit), seconds=600)[30:]
    accepted, refused = (sum(column) for column in zip(*history, strict=True))
    assert accepted / len(history) >= 0.9 * limit
    assert refused / (accepted + refused) < 0.05


def test_a_limit_that_falls_is_followed():
    limits = iter([300] * 300 + [100] * 300)
    history = run(lambda sent: max(0, sent - next(limits)), seconds=600)[330:]
    accepted, refused = (sum(column) for column in zip(*history, strict=True))
    assert accepted / len(history) >= 90
    assert refused / (accepted + refused) < 0.05


def test_a_refusal_of_everything_falls_to_the_least_rate():
    history = run(lambda sent: sent, seconds=60)
    assert sum(refused for _, refused in history[10:]) / 50 < 20


def test_few_numbers_do_not_end_a_window():
    assert not FlowWindow(30.0, 20, 20).is_over
    assert FlowWindow(60.0, 20, 20).is_over
