"""Waits grow, stay within their bounds, and differ."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.delays import MAX_DEFERRAL_SECONDS, deferral_seconds, seconds_until_midnight


def test_deferrals_double_up_to_ten_minutes():
    waits = [deferral_seconds(attempt, jitter=0.0) for attempt in range(1, 9)]
    assert waits == [15, 30, 60, 120, 240, 480, 600, 600]


@given(attempt=st.integers(1, 40_000), jitter=st.floats(0, 1, exclude_max=True))
def test_jitter_takes_off_up_to_half_of_a_deferral(attempt, jitter):
    full = deferral_seconds(attempt, jitter=0.0)
    assert deferral_seconds(attempt, jitter=jitter) == pytest.approx(full * (1 - jitter / 2))
    assert full <= MAX_DEFERRAL_SECONDS


@pytest.mark.parametrize(
    ("utc", "seconds"),
    [
        (datetime(2026, 11, 22, 15, 59, 59, tzinfo=UTC), 1),
        (datetime(2026, 11, 22, 16, 0, 0, tzinfo=UTC), 86_400),
        (datetime(2026, 12, 31, 4, 0, 0, tzinfo=UTC), 12 * 3600),
    ],
)
def test_the_providers_day_ends_at_midnight_of_utc_8(utc, seconds):
    assert seconds_until_midnight(utc) == seconds
