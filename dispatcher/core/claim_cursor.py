"""Lower bound of the claim's index scan, so that it skips dead entries of claimed rows."""

from collections.abc import Callable, Iterable

QueuePosition = tuple[int, float]  # priority, when due (seconds since 1970, database clock)

PRIORITY_COUNT = 10
URGENT_PRIORITIES = 2  # priorities 0 and 1
BEGINNING = 0.0
COMMIT_MARGIN_SECONDS = 2.0  # from an insert to its commit, in most transactions
FULL_SCAN_INTERVAL_SECONDS = 1.0  # at least, between two scans from the beginning
FULL_SCAN_PAUSE_RATIO = 20  # and at least so many times the duration of the last one


class ClaimCursor:
    """The position, for each priority, at which the next claim starts its scan.

    A claimed row leaves a dead index entry, which stays until no transaction of the server is
    older. Every scan passes it: after ten minutes under load that makes millions. So a scan starts
    where the last one ended. Entries below that position are claimed, or another worker is
    claiming them. New ones appear there only from a slow transaction, a claim that was rolled back
    or a clock that was set back; a full scan finds those about every second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = [BEGINNING] * PRIORITY_COUNT
        self._full_scan_at = 0.0  # when the next full scan is due, on the monotonic clock
        self._full = True

    def start_scan(self) -> list[float]:
        """Return the due time at which the scan starts, by priority."""
        self._full = self._clock() >= self._full_scan_at
        return [BEGINNING] * PRIORITY_COUNT if self._full else list(self._since)

    def finish_scan(
        self,
        asked_at: float,
        last: QueuePosition | None,
        *,
        returned: Iterable[QueuePosition] = (),
        seconds: float,
    ) -> None:
        """Record how far a scan came.

        Args:
            asked_at: when it began, on the database clock.
            last: the last message it claimed if it was full then; None if it saw all due ones.
            returned: messages that found no room in a request and stay in the queue.
            seconds: its duration.
        """
        if self._full:
            pause = max(FULL_SCAN_INTERVAL_SECONDS, FULL_SCAN_PAUSE_RATIO * seconds)
            self._full_scan_at = self._clock() + pause
        seen = PRIORITY_COUNT if last is None else last[0]
        self._since[:seen] = [asked_at - COMMIT_MARGIN_SECONDS] * seen
        if last is not None:
            priority, due = last
            urgent = priority < URGENT_PRIORITIES
            self._since[priority] = due - COMMIT_MARGIN_SECONDS if urgent else due
        for priority, due in returned:
            self._since[priority] = min(self._since[priority], due)
