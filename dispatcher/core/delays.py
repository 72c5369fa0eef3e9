"""Delays: how long an app or one of its countries pauses, and how long a retry waits.

Pure arithmetic: time and chance are arguments.
"""

from datetime import datetime, timedelta, timezone

from msgspec import Struct

from dispatcher.core.codes import UNREACHABLE, Code, Kind, request_code

_HOUR_SECONDS = 3600.0
FIRST_QUOTA_PROBE_SECONDS = 300.0  # after midnight: the provider may reset its quotas late
# A probe with one message, which waits on if it is refused: it may be over at any moment.
FIRST_UNKNOWN_PROBE_SECONDS, MAX_UNKNOWN_PROBE_SECONDS = 5.0, 5.0
TOLD_SKEW_SECONDS = 60.0  # of two clocks; any pause names a larger one


class Pause(Struct, frozen=True):
    """Why an app stops sending, and when it is probed."""

    code: str
    reason: str  # one line: the cause and what to do
    probe_in: float  # seconds to the first probe; each further wait is doubled
    probe_max: float  # up to this; see take_probe in db/sql/app.sql
    until_midnight: bool = False  # probed a minute after 00:00 UTC+8, by the database's clock


class CountryPause(Struct, frozen=True):
    """A pause of one country of an app; messages to other countries are sent."""

    country: str
    code: str
    until_in: float  # seconds


def pause_for(
    row: Code,
    *,
    facts: str = "",
    skew: float | None = None,
    retry_after: float | None = None,
) -> Pause:
    """Return the pause for a code of *row*'s kind.

    *facts* is what is known besides, in a line; *skew* is our clock less the provider's, seconds;
    *retry_after* the seconds that a proxy asks to wait.
    """
    first, longest = 60.0, 600.0
    if skew is not None and abs(skew) > TOLD_SKEW_SECONDS and row.kind is not Kind.CLOCK:
        facts = f"{facts} {_off(skew)}".strip()
    match row.kind:
        case Kind.QUOTA:
            first, longest = FIRST_QUOTA_PROBE_SECONDS, _HOUR_SECONDS
        case Kind.ADDRESS:
            first, longest = 900.0, 900.0  # a white list takes effect after 10 to 15 minutes
        case Kind.NOT_SENT:
            first = max(5.0, min(retry_after or 0.0, _HOUR_SECONDS))
            longest = max(60.0, first)
        # A firewall, which answers with an HTTP status, may have banned this address.
        case Kind.UNKNOWN if not row.code.startswith("HTTP "):
            first, longest = FIRST_UNKNOWN_PROBE_SECONDS, MAX_UNKNOWN_PROBE_SECONDS
        case Kind.CLOCK:
            facts = _off(skew)
        case _:
            pass
    reason = " ".join(filter(None, (row.meaning, facts, row.advice)))
    return Pause(row.code, reason, first, longest, until_midnight=row.kind is Kind.QUOTA)


def may_concern_one_host(code: str) -> bool:
    """Return whether *code* may concern one host only: its network, clock or address."""
    return code == UNREACHABLE or request_code(code).kind in (Kind.CLOCK, Kind.ADDRESS)


def country_pause(country: str, row: Code, *, now: datetime) -> CountryPause:
    """Return the pause of one country: until its quota is reset, at most an hour.

    An operator may raise the quota in the meantime, so it is tried every hour.
    """
    return CountryPause(country, row.code, min(seconds_until_midnight(now), _HOUR_SECONDS))


def _off(skew: float | None) -> str:
    """Describe the difference of the clocks."""
    if skew is None:
        return "Its answer had no Date to compare with."
    return f"Our clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the provider's."


FIRST_DEFERRAL_SECONDS = 15.0
MAX_DEFERRAL_SECONDS = 600.0  # E200015's error page says to wait about ten minutes
FIRST_OUTAGE_DEFERRAL_SECONDS = 60.0  # after a refusal that may be the provider's own trouble
MAX_OUTAGE_DEFERRAL_SECONDS = 3600.0
_MAX_DOUBLINGS = 6  # 15 s doubled six times, or a minute, is over the maximum
_PROVIDER_TIME = timezone(timedelta(hours=8))  # it resets its quotas at 00:00 UTC+8


def deferral_seconds(time: int, *, jitter: float) -> float:
    """Return how long a message waits that flow control returned the *time*-th time, in seconds.

    They double up to ten minutes. *jitter*, in [0, 1), subtracts up to half of them, so that
    messages refused together do not come back together.
    """
    return _growing(FIRST_DEFERRAL_SECONDS, MAX_DEFERRAL_SECONDS, time, jitter)


def outage_deferral_seconds(attempt: int, *, jitter: float) -> float:
    """Return the same after the *attempt*-th refusal that may be an outage: a minute to an hour."""
    return _growing(FIRST_OUTAGE_DEFERRAL_SECONDS, MAX_OUTAGE_DEFERRAL_SECONDS, attempt, jitter)


def _growing(first: float, longest: float, time: int, jitter: float) -> float:
    doublings = min(max(time - 1, 0), _MAX_DOUBLINGS)
    return min(longest, first * 2.0**doublings) * (1.0 - jitter / 2.0)


def seconds_until_midnight(now: datetime) -> float:
    """Return the seconds until 00:00 UTC+8, when the provider resets its quotas."""
    local = now.astimezone(_PROVIDER_TIME)
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - local).total_seconds()
