"""From when on a claim looks for due messages, so that it need not pass all that were taken."""

from collections.abc import Callable, Iterable

QueuePosition = tuple[int, float]  # priority, when due (seconds since 1970, by the database)

PRIORITIES = 10
URGENT = 2  # priorities 0 and 1
EVER = 0.0
MARGIN = 2.0  # seconds from an insert to its commit, in most transactions
COMPLETE_EVERY = 1.0  # seconds between scans from the beginning, at least
COMPLETE_SHARE = 20  # and this many times what the last one took


class ClaimCursor:
    """For each priority, from when on a lane looks.

    What is taken leaves an index entry behind, and while any transaction of the server is older,
    every scan passes it again: after ten minutes under load those are millions. So a scan begins
    where the last one ended. What lies below was taken, or is being taken by another worker; a
    message comes there afterwards only from a transaction that took long to commit, a claim that
    was rolled back, or a clock that was set back. A complete scan finds those about every second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = [EVER] * PRIORITIES
        self._complete_at = 0.0  # when the next complete scan is due, by the monotonic clock
        self._complete = True

    def begin(self) -> list[float]:
        """Return from when on to look, by priority."""
        self._complete = self._clock() >= self._complete_at
        return [EVER] * PRIORITIES if self._complete else list(self._since)

    def end(
        self,
        asked_at: float,
        last: QueuePosition | None,
        *,
        put_back: Iterable[QueuePosition] = (),
        seconds: float,
    ) -> None:
        """Note how far a scan came that began at *asked_at*, by the database, and its duration.

        *last* is the last message it took if it was full then; None: it saw all that was due.
        *put_back* found no room in a request, and waits where it was.
        """
        if self._complete:
            self._complete_at = self._clock() + max(COMPLETE_EVERY, COMPLETE_SHARE * seconds)
        seen = PRIORITIES if last is None else last[0]
        self._since[:seen] = [asked_at - MARGIN] * seen
        if last is not None:
            priority, due = last
            self._since[priority] = due - MARGIN if priority < URGENT else due
        for priority, due in put_back:
            self._since[priority] = min(self._since[priority], due)
