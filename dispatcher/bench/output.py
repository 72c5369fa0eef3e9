"""Output of benchmarks: a table on a console, and a JSON file."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from dispatcher import __version__
from dispatcher.bench.results import Figure, Results

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
