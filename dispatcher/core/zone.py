"""Finds a time zone by its name."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dispatcher.core.language import _

# Etc/GMT+8 is Los Angeles in winter: POSIX counts to the west. Most who write it mean UTC+8.
_REVERSED = re.compile(r"Etc/GMT[+-][0-9]*[1-9][0-9]*", re.IGNORECASE)


def read_zone(name: str) -> ZoneInfo:
    """Return the time zone of that name, which may come from anywhere.

    Raises ValueError with the reason if there is none, or if it is often taken for another.
    """
    if _REVERSED.fullmatch(name):
        raise ValueError(
            _(
                "{name} has its sign reversed (Etc/GMT-8 is UTC+8): name a place, such as"
                " Asia/Shanghai, or write the times with +08:00"
            ).format(name=name)
        )
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: Asia is a folder
        raise ValueError(
            _("there is no time zone {name}; one is Asia/Shanghai").format(name=f"{name[:40]!r}")
        ) from None
