"""Spans and zones of time in options of commands."""

import re
from zoneinfo import ZoneInfo

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.language import _
from dispatcher.core.zone import find_zone

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


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the time zone of that name."""
    if name is None:
        return None
    zone = find_zone(name)
    if zone is None:
        raise CommandError(
            _("there is no time zone {name}; one is Asia/Shanghai.").format(name=f"{name!r}"),
            code=USED_WRONGLY,
        )
    return zone
