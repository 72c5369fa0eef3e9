"""Where commands draw: the terminal's own width, or a wide one when nobody looks."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_WIDE = 140  # columns for a pipe or a file, where no terminal says how many it has


def screen(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that never guesses at words or emoji in data."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def table_of(*columns: str) -> Table:
    """Return an empty table with a line only under its head, which reads well anywhere."""
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
