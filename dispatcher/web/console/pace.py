"""How fast it goes: numbers accepted a second, from two looks at the counters."""

from collections import Counter, deque

from dispatcher.core.overview import Now

SHORTEST = 3.0  # seconds between the looks that are compared: a recorder writes in bursts
LONGEST = 15.0


class Pace:
    """Remembers looks for some seconds, and says how fast it went between them."""

    def __init__(self) -> None:
        self._looks: deque[Now] = deque()

    def rates(self, now: Now) -> dict[str, float]:
        """Return numbers accepted a second, by app, at *now*."""
        looks = self._looks
        if not looks or now.at > looks[-1].at:
            looks.append(now)
        while looks and (now.at - looks[0].at).total_seconds() > LONGEST:
            looks.popleft()
        before = looks[0]
        seconds = (now.at - before.at).total_seconds()
        if seconds < SHORTEST:
            return _over_minutes(now)
        known = _accepted(before)
        fresh: Counter[str] = Counter()
        for (app, minute), count in _accepted(now).items():
            fresh[app] += max(0, count - known[app, minute])
        return {app: count / seconds for app, count in fresh.items()}


def _accepted(now: Now) -> Counter[tuple[str, float]]:
    counts: Counter[tuple[str, float]] = Counter()
    for each in now.recent:
        if each.event == "accepted":
            counts[each.app, each.minute.timestamp()] += each.count
    return counts


def _over_minutes(now: Now) -> dict[str, float]:
    """Return the rates of this minute and the one before: all that one look can tell."""
    begin = now.at.replace(second=0, microsecond=0).timestamp() - 60
    seconds = now.at.timestamp() - begin
    counts: Counter[str] = Counter()
    for (app, minute), count in _accepted(now).items():
        if minute >= begin:
            counts[app] += count
    return {app: count / seconds for app, count in counts.items()}
