"""Rate limit: how many numbers are sent at once, and how far apart.

The provider counts arrivals, and the network delay varies. With grants of n numbers, sent
n / (UTILIZATION x rate) seconds apart, a second in which the delay varies by J gets at most
floor((1 + J) x UTILIZATION x rate / n) + 1 grants. At 500 a second that is 51 grants of 10, which
is within BURST_RATIO up to J = 35 ms; the price is 1.5 % of the rate. A worker may be late by J,
and the network by as much again.

Flow control (E200015) lowers the rate in proportion to the share of numbers that it refused in a
window. A small share is no sign of a rate that is too high: some numbers are refused at any rate.
"""

from msgspec import Struct
from msgspec.structs import replace

BURST_RATIO = 1.02  # of the rate: the maximum in any second
UTILIZATION = 0.985  # of the rate: the average in the long run
MIN_GRANT_SECONDS = 0.02  # of numbers in the smallest grant: the 2 % of BURST_RATIO
MAX_LATENESS_SECONDS = 0.012  # of a grant; a later one is rescheduled, not sent
LEAD_TIME_SECONDS = 0.08  # a grant is taken so early at most, to be ready when it is due


MAX_AHEAD_SECONDS = 1.0  # of the grants that one claim takes, if it takes several


def grant_size(rate: float, *, least: float = 1.0) -> int:
    """Return how many numbers to send at once at *rate* numbers per second.

    *least* is the number that a request must carry so that the free request slots suffice. Of the
    sizes from there to half as much again, the result is the one that fills a second best.
    """
    allowed = int(rate * BURST_RATIO)
    smallest = max(1, min(allowed, int(max(least, rate * MIN_GRANT_SECONDS))))
    largest = max(smallest, min(allowed, smallest * 3 // 2))
    sizes = range(smallest, largest + 1, max(1, smallest // 20))
    return max(sizes, key=lambda size: allowed // size * size)


def grant_seconds(rate: float, numbers: int) -> float:
    """Return how long a grant of *numbers* lasts, in seconds."""
    return numbers / (rate * UTILIZATION)


def slots_ahead(rate: float, numbers: int, slots: int) -> int:
    """Return for how many of *slots* one claim takes grants of *numbers*.

    What is claimed waits for its time out of the reach of a pause, a cancel and urgent messages.
    """
    ahead = int(MAX_AHEAD_SECONDS / grant_seconds(rate, numbers))
    return max(1, min(slots, ahead))


WINDOW_SECONDS = 5.0  # in which the refused share is measured, from a first refused number on
MIN_WINDOW_NUMBERS = 100  # fewer say little about a share; the window stays open for them
MAX_WINDOW_SECONDS = 60.0
SHORT_WINDOW_SECONDS = 1.0  # is enough for a high share
HIGH_SHARE = 0.2
TOLERATED_SHARE = 0.03  # over the base: lowers nothing
MIN_RATE_FACTOR = 0.01
HEADROOM = 0.97  # of the rate that was accepted: what a lower rate aims at
PROMPT_SECONDS = 3.0  # after a cut: refusals that begin later come from a rate that has recovered
UNCHANGED_RATIO = 0.7  # of the share before a cut: a share over it was not changed by the cut
MAX_BASE_SHARE = 0.3  # a higher share is always answered by a lower rate


class FlowWindow(Struct, frozen=True):
    """How much flow control has refused since the window opened, with a refused number."""

    seconds: float = 0.0
    numbers: int = 0
    refused: int = 0
    after_cut: float | None = None  # seconds from the last cut until it opened; None: no cut

    @property
    def share(self) -> float:
        """The refused share, without the number that opened the window."""
        return (self.refused - 1) / self.numbers if self.numbers else 0.0

    @property
    def is_over(self) -> bool:
        """Whether the share is known well enough to act on it."""
        if self.seconds >= MAX_WINDOW_SECONDS:
            return True
        if self.numbers < MIN_WINDOW_NUMBERS:
            return False
        return self.seconds >= (
            SHORT_WINDOW_SECONDS if self.share >= HIGH_SHARE else WINDOW_SECONDS
        )

    @property
    def accepted_per_second(self) -> float:
        """Numbers a second that were not refused."""
        return (self.numbers - self.refused) / max(self.seconds, SHORT_WINDOW_SECONDS)


class FlowControl(Struct, frozen=True):
    """What earlier windows have shown."""

    base: float = 0.0  # share that is refused at any rate
    cut_share: float | None = None  # share for which the last window lowered the rate
    cut_factor: float = 1.0  # by what


def end_window(flow: FlowControl, window: FlowWindow) -> tuple[FlowControl, float]:
    """Return what *window* shows besides *flow*, and by what to multiply the rate.

    The rate becomes what was accepted. If the next window shows that this changed nothing, the
    share does not depend on the rate: it is the base from now on, and the rate is restored.
    """
    share = window.share
    prompt = window.after_cut is not None and window.after_cut <= PROMPT_SECONDS
    if (
        prompt
        and flow.cut_share is not None
        and flow.cut_share * UNCHANGED_RATIO < share <= MAX_BASE_SHARE
    ):
        return FlowControl(base=share), 1.0 / flow.cut_factor
    base = min(flow.base, share)
    if share - base <= TOLERATED_SHARE:
        return FlowControl(base), 1.0
    factor = max(HEADROOM * (1.0 - share) / (1.0 - base), MIN_RATE_FACTOR)
    return FlowControl(base, share, factor), factor


def add_to_window(window: FlowWindow | None, *, numbers: int, refused: int) -> FlowWindow | None:
    """Return *window* with *numbers* that were answered, of which *refused*; None: none is open."""
    if window is None:
        return FlowWindow(0.0, numbers, refused) if refused else None
    return replace(window, numbers=window.numbers + numbers, refused=window.refused + refused)
