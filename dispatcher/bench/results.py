"""Results of a benchmark: values, medians and ratios; printed as a table or written as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from dispatcher import __version__

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


WHOLE_NUMBERS_FROM = 100  # below, three significant digits are shown


def show(results: Results, console: Console) -> None:
    """Print figures and ratios as a table: median, lowest and highest of all rounds."""
    table = Table(title=results.benchmark, title_justify="left")
    for name in ("", "", "median", "lowest", "highest"):
        table.add_column(name, justify="right" if name else "left")
    for figures in (results.figures, results.ratios):
        for figure in figures:
            name = f"{figure.name} {figure.unit}".strip()
            table.add_row(figure.variant, name, *map(_format, _summary(figure)))
        table.add_section()
    console.print(table, *results.notes, sep="\n")


def write_json(file: Path, machine: Mapping[str, str], measured: Sequence[Results]) -> None:
    """Write all *measured* values, with the version, the time and the *machine*."""
    content = {
        "version": __version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "benchmarks": measured,
    }
    file.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")


def _summary(figure: Figure) -> tuple[float, float, float]:
    return figure.median, min(figure.values), max(figure.values)


def _format(value: float) -> str:
    return f"{value:,.0f}" if value >= WHOLE_NUMBERS_FROM else f"{value:.3g}"
