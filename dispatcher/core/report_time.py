"""Reads when a report or a reply was written, in whatever form the provider or a proxy gives."""

import re
from datetime import UTC, datetime
from functools import lru_cache

AROUND_VALUE = " \t\r\n\"'"  # characters around a value of a report that do not belong to it
_LOST_PLUS = re.compile("(?<=:[0-9]{2}) (?=[0-9]{2}:?[0-9]{2}$)")  # of a zone, as a form decodes it
_KNOWN_TIMES = 1000  # texts of times that are remembered: those of one moment are few
_TIMES = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))  # others are none


@lru_cache(_KNOWN_TIMES)
def utc_time(text: str) -> datetime | None:
    """Return updateTime in UTC; None if it is left out or no time, for the raw copy has it."""
    text = text.strip(AROUND_VALUE)
    try:
        time = _time_of_digits(text) if text.isdecimal() else datetime.fromisoformat(_iso(text))
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if _TIMES[0] <= time < _TIMES[1] else None


def _time_of_digits(text: str) -> datetime:
    """Return a time without any punctuation; raises ValueError or OverflowError."""
    match len(text):
        case 10:
            return datetime.fromtimestamp(int(text), UTC)
        case 13:  # in milliseconds
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        case _:  # 20180413063146
            return datetime.fromisoformat(f"{text[:8]}T{text[8:]}")


def _iso(text: str) -> str:
    """Return a time as ISO 8601 writes it, whose + a form may have decoded to a blank."""
    return _LOST_PLUS.sub("+", text).replace("/", "-") if " " in text or "/" in text else text
