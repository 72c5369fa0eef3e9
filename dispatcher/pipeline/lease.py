"""Whether this worker still counts as alive, as far as it can know by itself."""

from collections.abc import Callable

MARGIN = 0.8  # of the lease: two clocks never run quite alike


class Lease:
    """The lease of a worker: renewed by each heartbeat, lost by silence.

    A worker that was frozen wakes up believing that nothing happened. Meanwhile its batches may
    have become unsure and been settled, so what it claimed before the silence must not be sent
    any more, even when the next heartbeat goes through.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds * MARGIN
        self._clock = clock
        self._renewed = clock()
        self._valid_from = self._renewed

    def renew(self, asked_at: float, silence: float) -> None:
        """Note a heartbeat that the database confirmed; *asked_at* is when it was begun.

        *silence*: seconds since the last one, by the database. Its clock goes on where ours stands
        still, as that of a virtual machine that is paused does.
        """
        if max(asked_at - self._renewed, silence) > self._seconds:
            self._valid_from = asked_at
        self._renewed = asked_at

    def covers(self, claimed_at: float) -> bool:
        """Tell whether a batch claimed at *claimed_at* is still this worker's to send."""
        return claimed_at >= self._valid_from and self._clock() - self._renewed <= self._seconds
