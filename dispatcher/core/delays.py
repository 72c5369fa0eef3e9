"""Delays: how long an app or one of its countries pauses, and how long a retry waits.

Pure arithmetic: time and chance are arguments.
"""

from datetime import datetime, timedelta, timezone

from msgspec import Struct

from dispatcher.core.codes import UNREACHABLE, Code, Kind, request_code

_HOUR = 3600.0


class Pause(Struct, frozen=True):
    """Why an app stops, and when it is tried again."""

    code: str
    reason: str  # one line: what it is, and what to do
    probe_in: float  # seconds to the first probe; each further wait is doubled
    probe_max: float  # up to this; see take_probe in db/sql/app.sql


class CountryPause(Struct, frozen=True):
    """One country's messages of an app wait; the others go out."""

    country: str
    code: str
    until_in: float  # seconds


def pause_for(row: Code, *, now: datetime, said: str = "", skew: float | None = None) -> Pause:
    """Return the pause that a code of *row*'s kind asks for.

    *said* is what we know besides, in a line; *skew* is our clock less the provider's, seconds.
    """
    facts, first, longest = said, 60.0, 600.0
    match row.kind:
        case Kind.QUOTA:
            first, longest = until_midnight(now), _HOUR
        case Kind.ADDRESS:
            first, longest = 900.0, 900.0  # a white list takes effect after 10 to 15 minutes
        case Kind.NOT_SENT:
            first, longest = 5.0, 60.0
        case Kind.CLOCK:
            facts = _off(skew)
        case _:
            pass
    return Pause(row.code, " ".join(filter(None, (row.meaning, facts, row.advice))), first, longest)


def may_be_the_hosts(code: str) -> bool:
    """Tell whether *code* may stop one host alone: its way, its clock, its address."""
    return code == UNREACHABLE or request_code(code).kind in (Kind.CLOCK, Kind.ADDRESS)


def country_pause(country: str, row: Code, *, now: datetime) -> CountryPause:
    """Return the pause of one country: until its quota is new, or somebody may have raised it."""
    return CountryPause(country, row.code, min(until_midnight(now), _HOUR))


def _off(skew: float | None) -> str:
    """Say by how much our clock is off."""
    if skew is None:
        return "Its answer had no Date to compare with."
    return f"Our clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the provider's."


FIRST_WAIT = 15.0  # seconds
LONGEST_WAIT = 600.0  # E200015's error page says to wait about ten minutes
_DOUBLINGS = 6  # 15 s doubled six times is over the longest wait
_PROVIDER_TIME = timezone(timedelta(hours=8))  # its quotas begin anew at 00:00 UTC+8


def deferral(attempt: int, *, jitter: float) -> float:
    """Return the seconds until a deferred number is due again, after its *attempt*-th claim.

    They double up to ten minutes; *jitter*, in [0, 1), takes up to half of them off, so that what
    was refused together does not come back together.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(max(attempt - 1, 0), _DOUBLINGS))
    return wait * (1.0 - jitter / 2.0)


def until_midnight(now: datetime) -> float:
    """Return the seconds until 00:00 UTC+8, when the provider's quotas begin anew."""
    local = now.astimezone(_PROVIDER_TIME)
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - local).total_seconds()
