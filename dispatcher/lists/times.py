"""Reads times as people and spreadsheets write them."""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from dispatcher.core.language import _

_YEAR_FIRST = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})(?:日[ T]*|[ T]+|(?=[上下]))(?:(上午|下午) *)?"
    r"(\d{1,2})[:时点](\d{2})(?:[:分](\d{2})秒?|分)?(?:\.0+)?(?: *([AP]M))?",
    re.IGNORECASE,
)
_FORENOON = ("上午", "AM")
_NOON = 12  # o'clock; an afternoon's hours are counted from there
# With a zone too, as XML writes a day: 2026-01-31Z, 2026-01-31+08:00.
_DATE_ONLY = re.compile(
    r"\d{4}[-/.年]?\d{1,2}[-/.月]?\d{1,2}日?(?: ?(?:Z|[-+]\d{2}:?\d{2}))?", re.IGNORECASE
)
_HOURS = re.compile(r".* (\d{2}):?(\d{2})-(\d{2})(?::?(\d{2}))?")
# No clocks are farther from UTC, https://www.iana.org/time-zones.
_MIN_OFFSET, _MAX_OFFSET = timedelta(hours=-12), timedelta(hours=14)
_YEAR_LAST = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?")
_SERIAL = re.compile(r"[3-7]\d{4}\.\d+")  # days since 1899-12-30, with a time of day: 1982 to 2119
_SERIAL_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - a sheet's times have no zone
LAST_YEAR = 2999  # of a campaign's move, as in move_campaign(); the waits come after it
EXAMPLE = "2026-01-31T09:00:00+08:00"


def read_time(name: str, text: str, zone: tzinfo | None) -> datetime:
    """Return the time that the cell *name* means; without a zone of its own it is in *zone*.

    Raises ValueError with the reason for the person who can correct it.
    """
    time = _written(name, text)
    if time.tzinfo is None and zone is None:
        raise ValueError(
            _("{name} has no zone: write it, as in {example}, or give --zone Asia/Shanghai").format(
                name=name, example=EXAMPLE
            )
        )
    try:
        if zone is not None and time.tzinfo is None:
            time = _in_zone(name, time, zone)
        time.astimezone(UTC)
    except OverflowError:  # before the year 1 or after 9999
        raise ValueError(_("{name}: there is no such day or time").format(name=name)) from None
    return time


def read_move_time(name: str, text: str, zone: tzinfo | None) -> datetime:
    """Return the time, in UTC, to which a campaign is moved. Raises ValueError as `read_time`."""
    time = read_time(name, text, zone).astimezone(UTC)
    if time.year > LAST_YEAR:
        raise ValueError(_("{name} is after the year {year}").format(name=name, year=LAST_YEAR))
    return time


def _in_zone(name: str, time: datetime, zone: tzinfo) -> datetime:
    """Return *time*, which has no zone, as the clocks of *zone* show it.

    Raises ValueError with the reason, for the cell *name*, if they show it never, or twice, where
    summer time begins or ends; OverflowError if it is before the year 1 or after 9999 in UTC.
    """
    local = time.replace(tzinfo=zone, fold=0)
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time.replace(fold=0):
        raise ValueError(
            _(
                "{name}: the clocks of {zone} never show {time}, for they are set forward over it:"
                " write another time, or its offset, such as {example}"
            ).format(name=name, zone=zone, time=_shown(time), example=_with_offset(local))
        )
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        raise ValueError(
            _(
                "{name}: the clocks of {zone} show {time} twice, for they are set back over it:"
                " write its offset, {first} or {second}"
            ).format(
                name=name,
                zone=zone,
                time=_shown(time),
                first=_with_offset(local),
                second=_with_offset(local.replace(fold=1)),
            )
        )
    return local


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _with_offset(local: datetime) -> str:
    return local.isoformat("T", "minutes")


def _written(name: str, text: str) -> datetime:
    """Return the time as it is written, without a zone or with its own. Raises ValueError."""
    if (time := _iso(text)) is not None:
        # At 09:00 in Hawaii, or from nine to ten. New York's 09:00-05:00 is no span of hours.
        if (hours := _HOURS.fullmatch(text)) and hours.groups()[:2] < hours.groups("00")[2:]:
            raise ValueError(
                _(
                    "{name} may be a span of hours, or have an offset: write when it begins, or T"
                    " in front of the hour, such as {example}"
                ).format(name=name, example=EXAMPLE)
            )
        return time
    if found := _YEAR_FIRST.fullmatch(text):
        year, month, day, half, hour, minute, second, half_after = found.groups()
        try:
            return datetime(  # noqa: DTZ001
                int(year),
                int(month),
                int(day),
                _hour(int(hour), half, half_after),
                int(minute),
                int(second or 0),
            )
        except ValueError:
            raise ValueError(_("{name}: there is no such day or time").format(name=name)) from None
    is_serial = _SERIAL.fullmatch(text) is not None
    if is_serial and not float(text).is_integer():
        return _SERIAL_EPOCH + timedelta(seconds=round(float(text) * 86_400))
    if is_serial or _DATE_ONLY.fullmatch(text):
        raise ValueError(
            _("{name} has no time of day: write it too, such as 2026-01-31 09:00").format(name=name)
        )
    if _YEAR_LAST.fullmatch(text):
        raise ValueError(
            _("{name} may be one of two days: write the year first, then the month").format(
                name=name
            )
        )
    raise ValueError(_("{name} is no time, such as {example}").format(name=name, example=EXAMPLE))


def _hour(hour: int, *halves: str | None) -> int:
    """Return the hour of a day that may be in halves. Raises ValueError if it is in doubt."""
    match [half.upper() for half in halves if half]:
        case []:
            return hour
        case [half] if 1 <= hour < _NOON:
            return hour if half in _FORENOON else hour + _NOON
        case [half] if (
            hour >= _NOON and half not in _FORENOON
        ):  # 下午3:30 is also written 下午15:30
            return hour
        case ["AM"] if hour == _NOON:
            return 0
        case _:
            raise ValueError(hour)


def _iso(text: str) -> datetime | None:
    """Return a time in the form of ISO 8601; None if it is none."""
    if ":" not in text or _DATE_ONLY.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    offset = time.utcoffset()
    return time if offset is None or _MIN_OFFSET <= offset <= _MAX_OFFSET else None
