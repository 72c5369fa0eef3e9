"""Consoles, tables and times for the output of commands."""

import re
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dispatcher.core.format import columns, wrapped
from dispatcher.core.language import _


def moment(time: datetime | None) -> str:
    """Return *time* in this machine's time zone, which it names, or a dash."""
    if time is None:
        return "-"
    try:
        return time.astimezone().isoformat(sep=" ", timespec="seconds")
    except (OverflowError, ValueError, OSError):  # at the ends of the calendar
        return f"{time.replace(tzinfo=None):%Y-%m-%d %H:%M:%S} UTC"


_PIPE_COLUMNS = 160  # the width of output to a pipe or a file
_TABLE_COLUMNS = 100  # the narrowest screen for a table of more than _FEW columns
_FEW = 3


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Prose:
    """A text whose lines may end between two Chinese characters; rich knows blanks only.

    What would move the cursor or turn the direction is shown as a blank: rows may have any text.
    """

    def __init__(self, text: str, style: str = "") -> None:
        self._text = _CONTROLS.sub(" ", text)
        self._style = style

    def __str__(self) -> str:
        return self._text

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines, as wide as *options* allow."""
        for paragraph in self._text.split("\n"):
            for line in [*wrapped(paragraph, options.max_width)] or [""]:
                yield Text(line, self._style, overflow="fold")

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """Return how wide the widest of its words is, and the whole text."""
        words = (columns(word) for line in wrapped(self._text, 1) for word in line.split())
        widest = max(map(columns, self._text.split("\n")))
        return Measurement(max(words, default=0), widest).with_maximum(options.max_width)


class Listing(Table):
    """A table; on a narrow screen a block of lines for each row, which cuts no word."""

    def add_row(self, *cells: RenderableType | None, **more: Any) -> None:  # noqa: ANN401 - rich's
        """Add a row; a cell that is too wide is wrapped, never cut."""
        super().add_row(*(Prose(one) if isinstance(one, str) else one for one in cells), **more)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table or its blocks, as wide as *options* allow."""
        if options.max_width >= _TABLE_COLUMNS or len(self.columns) <= _FEW:
            yield from super().__rich_console__(console, options)
            return
        headings = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            for place, (heading, cell) in enumerate(zip(headings, row, strict=True)):
                if place == 0:
                    yield cell
                elif str(cell):
                    line = Prose(heading + _(": ") + str(cell))
                    yield Padding(line, (0, 0, 0, 2), expand=False)


def screen(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that prints data without markup or highlighting."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console


def table_of(*columns: str) -> Listing:
    """Return an empty table with a line under its header only."""
    return Listing(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)


def list_of(rows: Iterable[tuple[str, str]]) -> Table:
    """Return names with their texts, indented; what is too wide is wrapped, never cut."""
    grid = Table.grid(padding=(0, 2))
    for name, text in rows:
        grid.add_row(Padding(Prose(name), (0, 0, 0, 2)), Prose(text))
    return grid


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print *value* as JSON on stdout, in UTF-8 whatever the locale; times have their zone."""
    import msgspec

    if callable(reconfigure := getattr(sys.stdout, "reconfigure", None)):
        reconfigure(encoding="utf-8", errors="replace")
    text = msgspec.json.encode(value)
    text = text if one_line else msgspec.json.format(text)
    print(text.decode(), flush=True)  # noqa: T201 - the one place
