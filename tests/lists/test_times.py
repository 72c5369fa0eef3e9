"""Times as people write them in lists and commands."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

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


@pytest.mark.parametrize("text", ["2027-05-01", "2027/5/1", "2027年5月1日", "46508.0", "46508.00"])
def test_a_day_without_a_time_is_refused(text):
    with pytest.raises(ValueError, match="send_at has no time of day: write it too"):
        read_time("send_at", text, UTC)


def test_a_day_of_a_sheet_with_its_time_is_read():
    assert read_time("send_at", "46508.375", UTC) == datetime(2027, 5, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "text", "words"),
    [
        ("Europe/Berlin", "2027-03-28 02:30", "never show 2027-03-28 02:30, for"),
        ("Europe/Berlin", "2027年3月28日2时30分", "or its offset, such as 2027-03-28 02:30.01:00"),
        ("Europe/Berlin", "2027-10-31T02:30", "twice, .* offset, .*02:30.02:00 or .*02:30.01:00"),
        ("America/New_York", "2027-11-07 1:59", "America/New_York show 2027-11-07 01:59 twice"),
        ("Australia/Lord_Howe", "2027-10-03 02:15", "never show"),
        ("Pacific/Apia", "2011-12-30 12:00", "never show"),
        ("Europe/Berlin", "46474.104166666664", "never show 2027-03-28 02:30"),
    ],
)
def test_a_time_that_clocks_show_never_or_twice_is_refused(zone, text, words):
    with pytest.raises(ValueError, match=f"send_at: the clocks of .*{words}"):
        read_time("send_at", text, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("text", "hour", "minute"),
    [
        ("2027-10-31 01:59", 23, 59),  # the last minute before
        ("2027-10-31 03:00", 2, 0),
        ("2027-03-28 01:59", 0, 59),
        ("2027-03-28 03:00", 1, 0),
        ("2027-10-31 02:30+02:00", 0, 30),
        ("2027-10-31 02:30+01:00", 1, 30),
        ("2027-03-28 02:30+01:00", 1, 30),
    ],
)
def test_a_time_about_a_change_of_the_clocks_is_read(text, hour, minute):
    time = read_time("send_at", text, ZoneInfo("Europe/Berlin")).astimezone(UTC)
    assert (time.hour, time.minute) == (hour, minute)


@pytest.mark.parametrize(
    ("zone", "text"),
    [("America/New_York", "9999-12-31 23:30"), ("Asia/Shanghai", "0001-01-01 00:30")],
)
def test_a_time_in_a_zone_that_is_none_in_utc_is_refused(zone, text):
    with pytest.raises(ValueError, match="there is no such day or time"):
        read_time("send_at", text, ZoneInfo(zone))
