"""The batches of this worker that are in flight, and the lease that lets it send them."""

from collections.abc import Callable
from typing import Final

# The recovery that follows a failed call finds its batches. One that it finds after so many other
# failed calls becomes unsure instead of returning to the queue.
MAX_UNCONFIRMED: Final = 10_000


class InFlight:
    """The tokens of batches that are being claimed, sent or recorded.

    A token is added before its batch is written, and removed when its result is recorded. If the
    claim fails, its token is marked unconfirmed: the transaction may have committed, but its batch
    was never sent. Any other open batch of this worker has lost its record with the database: it
    may have been sent.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self.tokens: set[str] = set()
        # Written, if at all, by a call that failed; in their order.
        self.unconfirmed: dict[str, None] = {}

    def new_token(self) -> str:
        """Return a token for a batch that is about to be written."""
        token = self._new_token()
        self.tokens.add(token)
        return token

    def finish(self, token: str) -> None:
        """Remove a token: the result of its batch is recorded."""
        self.tokens.discard(token)

    def mark_unconfirmed(self, token: str) -> None:
        """Note that a batch may have been written, and is never sent."""
        self.tokens.discard(token)
        self.unconfirmed[token] = None
        if len(self.unconfirmed) > MAX_UNCONFIRMED:
            del self.unconfirmed[next(iter(self.unconfirmed))]

    def __len__(self) -> int:
        return len(self.tokens)


LEASE_RATIO: Final = 0.8  # of the lease is used: two clocks never run quite alike


class Lease:
    """The lease of a worker: renewed by each heartbeat, lost by silence.

    A worker that was frozen continues as if no time had passed. Meanwhile its batches may have
    become unsure and been settled, so what it claimed before the silence must not be sent any
    more, even when the next heartbeat succeeds.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float], started: float | None = None
    ) -> None:
        """Begin a lease of *seconds*; *started* is when the worker's row was written.

        That is known from the beginning: the database may be restored before the first heartbeat.
        """
        self._seconds = seconds * LEASE_RATIO
        self._clock = clock
        self._renewed = clock()
        self._valid_from = self._renewed
        self.heartbeat_at = started  # the last one, by the database's clock
        self.started = started  # the same clock

    def renew(
        self,
        asked_at: float,
        silence: float,
        heartbeat_at: float | None = None,
        started: float | None = None,
    ) -> None:
        """Note a heartbeat that the database confirmed; *asked_at* is when it was begun.

        *silence*: seconds since the last one, by the database. Its clock runs on while the clock
        of a paused virtual machine stands still.
        """
        if max(asked_at - self._renewed, silence) > self._seconds:
            self._valid_from = asked_at
        self._renewed = asked_at
        self.heartbeat_at, self.started = heartbeat_at, started

    def database_time(self) -> float | None:
        """Return the time by the database's clock, as a heartbeat told it; None: none has yet."""
        if self.heartbeat_at is None:
            return None
        return self.heartbeat_at + self._clock() - self._renewed

    def covers(self, claimed_at: float) -> bool:
        """Tell whether a batch claimed at *claimed_at* is still this worker's to send."""
        return claimed_at >= self._valid_from and self._clock() - self._renewed <= self._seconds
