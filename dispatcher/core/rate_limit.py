"""Rate limit: how many numbers are sent at once, and how far apart.

The provider counts arrivals, and the network delay varies. With grants of n numbers, sent
n / (UTILIZATION x rate) seconds apart, a second in which the delay varies by J gets at most
floor((1 + J) x UTILIZATION x rate / n) + 1 grants. At 500 a second that is 51 grants of 10, which
is within BURST_RATIO up to J = 35 ms; the price is 1.5 % of the rate. A worker may be late by J,
and the network by as much again.
"""

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
