"""How long to wait: pure arithmetic, chance and time are arguments."""

from datetime import datetime, timedelta, timezone

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
