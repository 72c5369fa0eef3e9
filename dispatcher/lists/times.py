"""Reads times as people and spreadsheets write them."""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from dispatcher.core.language import _

_YEAR_FIRST = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\.0+)?"
)
_DATE_ONLY = re.compile(r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?")
_YEAR_LAST = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?")
_SERIAL = re.compile(r"[3-7]\d{4}\.\d+")  # days since 1899-12-30, with a time of day: 1982 to 2119
_SERIAL_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - a sheet's times have no zone
LAST_YEAR = 2999  # of a campaign's move, as in move_campaign(); the waits come after it
EXAMPLE = "2026-01-31T09:00:00+08:00"


def read_time(name: str, text: str, zone: tzinfo | None) -> datetime:
    """Return the time that the cell *name* means; without a zone of its own it is in *zone*.

    Raises ValueError with the reason for the person who can correct it.
    """
    time = _iso(text)
    if time is None:
        if found := _YEAR_FIRST.fullmatch(text):
            year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
            try:
                time = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001
            except ValueError:
                raise ValueError(
                    _("{name}: there is no such day or time").format(name=name)
                ) from None
        elif _SERIAL.fullmatch(text):
            time = _SERIAL_EPOCH + timedelta(seconds=round(float(text) * 86_400))
        elif _DATE_ONLY.fullmatch(text):
            raise ValueError(
                _("{name} has no time of day: write it too, such as 2026-01-31 09:00").format(
                    name=name
                )
            )
        elif _YEAR_LAST.fullmatch(text):
            raise ValueError(
                _("{name} may be one of two days: write the year first, then the month").format(
                    name=name
                )
            )
        else:
            raise ValueError(
                _("{name} is no time, such as {example}").format(name=name, example=EXAMPLE)
            )
    if time.tzinfo is None and zone is None:
        raise ValueError(
            _("{name} has no zone: write it, as in {example}, or give --zone Asia/Shanghai").format(
                name=name, example=EXAMPLE
            )
        )
    time = time if time.tzinfo is not None else time.replace(tzinfo=zone)
    try:
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


def _iso(text: str) -> datetime | None:
    if ":" not in text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
