"""What a file is made of: records, each with the lines that it stands on."""

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from dispatcher.core.language import N_, _
from dispatcher.lists.header import Header

DATE_DOUBT = N_("it is a date: format the column as text")  # of a cell that may yet be a time
MANY_DIGITS = re.compile(r"(?:[0-9][ .()-]?){7}")  # a number, in whatever spelling


class Record(Struct, frozen=True):
    """One record of a file, or one line that cannot be read as a record."""

    line: int  # its first line, counted from 1 as a text editor or Excel counts
    cells: list[str]
    lines: int = 1  # how many lines it stands on
    trouble: str | None = None  # why the whole record cannot be read
    doubts: Mapping[int, str] = {}  # why a cell, by its place, cannot be taken as it is
    open_quote: bool = False  # trouble: it stands within a quote that is not closed
    raw: tuple[str, ...] = ()  # of a record that stands on several lines: those lines

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing in it."""
        return not self.trouble and not any(map(_printed, self.cells)) and not self.doubts


def swallowed(record: Record) -> str:
    """Return why *record*, which stands on several lines, is none: two wrong quotes made it."""
    return _(
        "a quote opened in line {line} is closed only in line {last}: {lines} lines were read as"
        " one cell"
    ).format(
        line=f"{record.line:,}",
        last=f"{record.line + record.lines - 1:,}",
        lines=record.lines,
    )


def _printed(cell: str) -> str:
    return cell.strip(" \t\r\n\x1a\ufeff\u3000\xa0")


class Sheet(Protocol):
    """An open file: an iterator over its records, from the first line on."""

    delimiter: str  # for the file of rejects

    def __iter__(self) -> Iterator[Record]: ...

    def progress(self) -> float:
        """Return which share of the file is read."""

    def remarks(self, header: Header, data_from: int) -> list[str]:
        """Return what the user should know of a file that is read, with data from that line on."""
