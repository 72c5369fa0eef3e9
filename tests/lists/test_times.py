"""Times as people write them in lists and commands."""

from datetime import UTC, datetime

import pytest

from dispatcher.lists.times import read_time


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2027/5/1 上午9:30", 9),
        ("2027/5/1 下午9:30:00", 21),
        ("2027/5/1 下午 15:30", 15),
        ("2027年5月1日9时30分", 9),
        ("2027年5月1日 下午3点30分", 15),
        ("2027-05-01 9:30 PM", 21),
        ("2027-05-01 12:30 am", 0),
        ("2027-05-01 下午12:30", 12),
    ],
)
def test_times_of_half_days_are_read(text, hour):
    assert read_time("send_at", text, UTC) == datetime(2027, 5, 1, hour, 30, tzinfo=UTC)


@pytest.mark.parametrize("half", ["上午12:30", "上午15:30", "下午0:30", "上午9:30 PM", "24:30"])
def test_a_time_that_may_be_another_one_is_refused(half):
    with pytest.raises(ValueError, match="there is no such day or time"):
        read_time("send_at", f"2027/5/1 {half}", UTC)


@pytest.mark.parametrize("text", ["9999-12-31T23:00-05:00", "0001-01-01T00:00+14:00"])
def test_a_time_that_is_none_in_utc_is_refused(text):
    with pytest.raises(ValueError, match="there is no such day or time"):
        read_time("send_at", text, None)
