"""Numbers and times as people read them."""

from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def moment(time: datetime | None) -> str:
    """Return *time* in this machine's time zone, or a dash."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


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
