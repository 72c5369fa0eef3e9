"""Times as people write them in lists and commands."""

import re
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


@pytest.mark.parametrize(
    "zone", ["+08:00", "-05:00", "Z", "z", "+0800", " +08:00", "-10:00", "-18:00"]
)
@pytest.mark.parametrize("day", ["2027-01-31", "20270131", "2027/1/31"])
def test_a_day_with_a_zone_has_no_time(day, zone):
    with pytest.raises(ValueError, match="send_at has no time of day: write it too"):
        read_time("send_at", day + zone, UTC)


@pytest.mark.parametrize("offset", ["-18:00", "-12:30", "+14:30", "+23:00"])
@pytest.mark.parametrize("between", [" ", "T"])
def test_a_time_with_the_offset_of_no_clock_is_none(between, offset):
    with pytest.raises(ValueError, match="send_at is no time"):
        read_time("send_at", f"2027-06-01{between}09:00{offset}", UTC)


@pytest.mark.parametrize(
    "hours", ["09:00-10:00", "09:00-12:00", "09:00-10", "09:00-0930", "01:59-04:00", "0900-10:00"]
)
def test_a_span_of_hours_is_no_offset(hours):
    with pytest.raises(ValueError, match="send_at may be a span of hours, or have an offset"):
        read_time("send_at", f"2027-06-01 {hours}", UTC)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2027-06-01T09:00:00-05:00", 14),
        ("2027-06-01T09:00:00+08:00", 1),
        ("2027-06-01 09:00:00+08:00", 1),
        ("2027-06-01 09:00+08:00", 1),
        ("2027-06-01 09:00+10:00", 23),
        ("2027-06-01 09:00+08", 1),
        ("2027-06-01 09:00-05:00", 14),  # from nine to five is no span of a morning
        ("2027-06-01 09:00:00-10", 19),  # as PostgreSQL writes it
        ("2027-06-01T09:00-10:00", 19),
        ("2027-06-01T09:00-12:00", 21),
        ("2027-06-01T09:00+14:00", 19),
        ("2027-06-01T09:00Z", 9),
    ],
)
def test_a_time_with_its_offset_is_read(text, hour):
    assert read_time("send_at", text, None).astimezone(UTC).hour == hour


def test_the_offset_that_is_proposed_is_read():
    zone = ZoneInfo("America/New_York")
    with pytest.raises(ValueError, match="twice") as refused:
        read_time("send_at", "2027-11-07 01:30", zone)
    first, second = re.findall(r"2027-11-07T\S+", str(refused.value))
    assert [read_time("send_at", text, None).astimezone(UTC).hour for text in (first, second)] == [
        5,
        6,
    ]


def test_a_day_of_a_sheet_with_its_time_is_read():
    assert read_time("send_at", "46508.375", UTC) == datetime(2027, 5, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "text", "words"),
    [
        ("Europe/Berlin", "2027-03-28 02:30", "never show 2027-03-28 02:30, for"),
        ("Europe/Berlin", "2027年3月28日2时30分", "or its offset, such as 2027-03-28T02:30.01:00"),
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
