"""Consoles, tables and times for the output of commands."""

from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def moment(time: datetime | None) -> str:
    """Return *time* in this machine's time zone, or a dash."""
    if time is None:
        return "-"
    try:
        return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # at the ends of the calendar
        return f"{time.replace(tzinfo=None):%Y-%m-%d %H:%M:%S} UTC"


_PIPE_COLUMNS = 140  # the width of output to a pipe or a file


def screen(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that prints data without markup or highlighting."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console


def table_of(*columns: str) -> Table:
    """Return an empty table with a line under its header only."""
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)


def print_json(value: object) -> None:
    """Print *value* as JSON on stdout; times have their zone."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())  # noqa: T201 - the one place
