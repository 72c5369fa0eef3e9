"""Results: one value per round of each figure of each variant; their medians and ratios."""

from collections.abc import Iterable
from statistics import median
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Figure(Struct):
    """One figure of one variant, over all rounds."""

    variant: str
    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        """Median of all rounds."""
        return median(self.values)


class Results(Struct):
    """Everything one benchmark measured."""

    benchmark: str
    settings: dict[str, object] = {}
    figures: list[Figure] = []
    ratios: list[Figure] = []
    notes: list[str] = []

    def add(self, variant: str, name: str, value: float, unit: str = "") -> None:
        """Add one value of the current round."""
        _row(self.figures, variant, name, unit).values.append(value)

    def figure(self, variant: str, name: str) -> Figure:
        """Return a measured figure. Raises KeyError."""
        for figure in self.figures:
            if (figure.variant, figure.name) == (variant, name):
                return figure
        raise KeyError((variant, name))

    def compare(self, name: str, variant: str, other: str) -> None:
        """Add the ratio of figure *name* of two variants, round by round."""
        try:
            upper, lower = self.figure(variant, name), self.figure(other, name)
        except KeyError:
            return  # one of them was not measured
        row = _row(self.ratios, f"{variant} / {other}", name, "")
        row.values = [a / b for a, b in zip(upper.values, lower.values, strict=True)]


def _row(rows: list[Figure], variant: str, name: str, unit: str) -> Figure:
    for row in rows:
        if (row.variant, row.name) == (variant, name):
            return row
    rows.append(Figure(variant, name, unit, []))
    return rows[-1]


def rotated(variants: Iterable[T], number: int) -> list[T]:
    """Return *variants* in the order of round *number*: each round begins with the next one."""
    in_order = list(variants)
    first = number % len(in_order)
    return in_order[first:] + in_order[:first]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that *share* of *values* do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 1).__int__() - 1))]
