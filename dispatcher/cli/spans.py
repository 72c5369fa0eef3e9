"""Times, spans and zones of time in options of commands."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.language import _, with_stop
from dispatcher.core.zone import read_zone

MAX_SPAN_SECONDS = 366 * 86_400  # a longer one is a mistake
_UNIT_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}


def seconds_of(text: str | None) -> float | None:
    """Return the seconds of a time such as 4h, 90min or 30s."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)", text)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= MAX_SPAN_SECONDS:
        raise CommandError(
            _("--spread takes a time such as 4h, 90min or 2d, at most 366d."), code=USED_WRONGLY
        )
    return seconds


def begin_of(option: str, text: str, zone: tzinfo | None = None) -> datetime:
    """Return the time that *text* names: so long ago, or a time, in *zone* if it has none."""
    found = re.fullmatch(r"(\d{1,9})\s*(d|h|min|m|s)", text.strip())
    try:
        if found:
            span = timedelta(seconds=int(found[1]) * _UNIT_SECONDS[found[2]])
            return datetime.now(UTC) - span
        time = datetime.fromisoformat(text.strip())
        time = time.replace(tzinfo=zone) if time.tzinfo is None else time
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):  # no time, or before the year 1 or after 9999
        pass
    raise CommandError(
        _("{option} takes 30m, 2h, 3d, or a time such as 2026-01-31T09:00:00+08:00.").format(
            option=option
        ),
        code=USED_WRONGLY,
    )


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the time zone of that name."""
    if name is None:
        return None
    try:
        return read_zone(name)
    except ValueError as error:
        raise CommandError(with_stop(error), code=USED_WRONGLY) from None
