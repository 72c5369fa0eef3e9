"""Numbers and times as people read them."""

from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def number(value: float) -> str:
    """Return *value* with its thousands apart: 12,345."""
    return f"{value:,.0f}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """Return *value* with its noun: 1 message, 2 messages."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a duration by its largest unit: 45 s, 12 min, 3 h, 2 d."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


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
