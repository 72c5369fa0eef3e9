"""Draws results as bar charts."""

from collections.abc import Sequence
from pathlib import Path

from dispatcher.bench.results import Results


def plot(measured: Sequence[Results], file: Path) -> None:
    """Draw the first figure of each benchmark into *file*, medians with the range of all rounds.

    The suffix of *file* selects the format. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `bench`, and slow to import

    shown = [results for results in measured if results.figures]
    picture = Figure(figsize=(9, 1 + 2.6 * len(shown)), layout="constrained")
    for place, results in enumerate(shown, 1):
        name = results.figures[0].name
        rows = [figure for figure in results.figures if figure.name == name][::-1]
        axes = picture.add_subplot(len(shown), 1, place)
        middles = [row.median for row in rows]
        ends = [
            [row.median - min(row.values) for row in rows],
            [max(row.values) - row.median for row in rows],
        ]
        axes.barh([row.variant for row in rows], middles, xerr=ends, color="#4477aa", capsize=3)
        axes.set_title(f"{results.benchmark}: {name} {rows[0].unit}".strip(), loc="left")
        axes.grid(axis="x", alpha=0.3)
    picture.savefig(file)
