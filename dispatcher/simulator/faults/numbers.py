"""Faults that refuse some numbers of a request."""

from random import Random

from dispatcher.simulator.codes import ACCEPTED
from dispatcher.simulator.faults.state import State
from dispatcher.simulator.faults.trigger import ContentTrigger, Share
from dispatcher.simulator.submission import Submission


class NumberCode(ContentTrigger, frozen=True, kw_only=True, tag="number-code"):
    """A code for some numbers: the ones meant, a share of those, or those above a rate.

    E200015 is flow control, other codes of the page are permanent, and any text is possible.
    """

    code: str = "E200015"
    share: Share | None = None
    per_second: int | None = None  # numbers that pass in each second; the rest gets the code

    def mark(
        self, submission: Submission, codes: list[str], state: State, *, ordinal: int, now: float
    ) -> int:
        """Change *codes*, one a number, where they are 000000; return how many."""
        meant = [at for at in self.positions(submission) if codes[at] == ACCEPTED]
        if self.share is not None:
            dice = Random(f"{self.seed}:{state.salt}:{ordinal}")
            meant = [at for at in meant if dice.random() < self.share]
        if self.per_second is not None:
            if now - state.window >= 1.0:
                state.window, state.passed = now, 0
            passing = max(0, self.per_second - state.passed)
            state.passed += min(passing, len(meant))
            meant = meant[passing:]
        for at in meant:
            codes[at] = self.code
        return len(meant)
