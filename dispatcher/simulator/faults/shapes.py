"""Faults of the answer's shape: what was accepted is accepted, the answer tells it badly."""

from random import Random

from dispatcher.simulator.answer import Answer
from dispatcher.simulator.codes import ACCEPTED
from dispatcher.simulator.faults.phases import ShapeFault
from dispatcher.simulator.faults.trigger import Count, Trigger


class Lack(ShapeFault, frozen=True, kw_only=True, tag="lack"):
    """The result lacks its last *count* numbers."""

    count: Count = 1

    def bend(self, answer: Answer) -> bool:
        """Drop them."""
        if not answer.results:
            return False
        del answer.results[-self.count :]
        return True


class Repeat(ShapeFault, frozen=True, kw_only=True, tag="repeat"):
    """The first *count* numbers of the result stand there twice; *code*: the second time so."""

    count: Count = 1
    code: str | None = None

    def bend(self, answer: Answer) -> bool:
        """Add them at the end."""
        if not answer.results:
            return False
        again = answer.results[: self.count]
        if self.code is not None:
            again = [row.replace(f'"{ACCEPTED}"', f'"{self.code}"') for row in again]
        answer.results += again
        return True


class Reorder(ShapeFault, frozen=True, kw_only=True, tag="reorder"):
    """The numbers of the result stand in another order than in the request."""

    def bend(self, answer: Answer) -> bool:
        """Shuffle them."""
        if not answer.results:
            return False
        Random(self.seed).shuffle(answer.results)
        return True


class MixedAnswer(ShapeFault, frozen=True, kw_only=True, tag="mixed-answer"):
    """What an answer with refused numbers says at its top; the facts leave it open."""

    code: str = "E000510"  # E200037 of older servers, 000000, or what you like
    http_status: int = 200
    always: bool = False  # also when every number was accepted

    def bend(self, answer: Answer) -> bool:
        """Change code and status."""
        if answer.results is None or (answer.code == ACCEPTED and not self.always):
            return False
        answer.code, answer.http_status = self.code, self.http_status
        return True


class Clock(Trigger, frozen=True, kw_only=True, tag="clock"):
    """The provider's clock is wrong in `Date`, and with *checks* where it reads signatures too."""

    offset: float  # seconds it is ahead
    checks: bool = False
