"""The batches of this worker that are in flight, and the lease that lets it send them."""

from collections.abc import Callable


class InFlight:
    """The tokens of batches that are being claimed, sent or recorded.

    A token is here before its batch is written and until its end is recorded. One whose claim
    failed is *doubted*: the claim may have been committed all the same, and its batch was never
    sent. Any other open batch of this worker has lost its record with the database: whether it
    was sent, the database cannot tell any more.
    """

    def __init__(self, new_token: Callable[[], str]) -> None:
        self._new_token = new_token
        self._tokens: set[str] = set()
        self._doubted: set[str] = set()

    def token(self) -> str:
        """Make a token for a batch that is about to be written."""
        token = self._new_token()
        self._tokens.add(token)
        return token

    def over(self, token: str) -> None:
        """Forget a token: the end of its batch is recorded."""
        self._tokens.discard(token)

    def doubt(self, token: str) -> None:
        """Note that a batch may have been written, and is never sent."""
        self._tokens.discard(token)
        self._doubted.add(token)

    def never_sent(self, token: str) -> bool:
        """Tell whether a batch was written, if at all, by a call that failed."""
        return token in self._doubted

    def __contains__(self, token: object) -> bool:
        return token in self._tokens

    def __len__(self) -> int:
        return len(self._tokens)


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
