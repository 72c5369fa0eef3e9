"""What headers of an answer say: Date and Retry-After."""

from datetime import UTC, datetime

import pytest

from dispatcher.provider.client import _clock_skew, _retry_after

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        (None, None),
        ("Sun, 29 Nov 2026 11:59:00 GMT", 60.0),
        ("yesterday", None),
        ("Sun, 29 Nov 2026 12:00:00 +999999999999999999", None),
    ],
)
def test_an_absurd_date_is_no_date(date, skew):
    assert _clock_skew(date, NOON) == skew


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("30", 30.0),
        ("Sun, 29 Nov 2026 12:01:00 GMT", 60.0),
        ("Sun, 29 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value, seconds):
    assert _retry_after(value, NOON) == seconds
