"""Pace: how many numbers go out at once, and how far apart, so that no second gets too many.

The provider counts what arrives, and the way there is never equally long. With grants of n
numbers, n / (SHARE x rate) seconds apart, a second in which the way's length differs by J gets at
most floor((1 + J) x SHARE x rate / n) + 1 of them. At 500 a second that is 51 grants of 10, and so
OVER is kept, up to J = 35 ms; 1.5 % of the rate is the price. J is what a worker may be late, and
as much again for the way.
"""

BURST_RATIO = 1.02  # of the rate: at most so much in any second
UTILIZATION = 0.985  # of the rate: what is sent in the long run
MIN_GRANT_SECONDS = 0.02  # seconds' worth of numbers in the smallest grant: the 2 % of OVER
MAX_LATENESS_SECONDS = (
    0.012  # seconds after its time until a grant is too late, and takes a later time
)
LEAD_TIME_SECONDS = (
    0.08  # seconds a grant may be taken before its time, so that it is ready when it comes
)


def grant_size(rate: float, *, least: float = 1.0) -> int:
    """Return how many numbers to send at once at *rate* numbers per second.

    *least* is what a request must carry for the free request slots to suffice. Of the sizes from
    there to half as much again it is the one that fills a second best.
    """
    allowed = int(rate * BURST_RATIO)
    smallest = max(1, min(allowed, int(max(least, rate * MIN_GRANT_SECONDS))))
    largest = max(smallest, min(allowed, smallest * 3 // 2))
    sizes = range(smallest, largest + 1, max(1, smallest // 20))
    return max(sizes, key=lambda size: allowed // size * size)


def grant_seconds(rate: float, numbers: int) -> float:
    """Return how long a grant of *numbers* lasts, in seconds."""
    return numbers / (rate * UTILIZATION)
