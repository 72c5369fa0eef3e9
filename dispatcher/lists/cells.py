"""What a file is made of: records, each with the lines that it stands on."""

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from dispatcher.core.language import N_, _
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.lists.header import Header

# A number of more than 11 digits as Excel shows it and writes it into a CSV file.
ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]{2}")
DATE_DOUBT = N_("it is a date: format the column as text")  # of a cell that may yet be a time
# A number in whatever spelling, also as a spreadsheet has rounded it. \d has full-width digits too.
_BETWEEN = r"[\s.()\u2010-\u2015\u2212\uff0d-]"
MANY_DIGITS = re.compile(rf"\d(?:{_BETWEEN}?\d){{6}}|{ROUNDED.pattern}")


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


def number_alone(text: str) -> bool:
    """Tell whether *text* is a number to send to and nothing else, or one that is rounded.

    No service number, day or order number: texts over several lines hold such.
    """
    return ROUNDED.fullmatch(text.strip()) is not None or isinstance(read_number(text), ReadNumber)


def has_taken_in(cell: str, delimiters: str) -> bool:
    """Tell whether the first line of *cell*, which has several, holds a cell that is a number.

    So it is when the quote in front of *cell* is wrong: the rest of its line then stands in it.
    *delimiters*: the characters of which each may divide cells.
    """
    _own, *others = re.split(f"[{re.escape(delimiters)}]", cell.partition("\n")[0])
    return any(map(number_alone, others))


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
