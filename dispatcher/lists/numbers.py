"""Reads a list of numbers alone, such as people who asked not to be sent to."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dispatcher.core.errors import ListError
from dispatcher.core.number import DoubtfulNumber, ReadNumber, read_number
from dispatcher.lists.cells import Record, Sheet
from dispatcher.lists.reading import Form, open_list, text_sheets

MAX_LINES_JUDGED = 20  # to find the delimiter of a file without a header


def read_numbers(
    path: Path, *, other_mainland: bool = False
) -> Iterator[tuple[int, ReadNumber | DoubtfulNumber]]:
    """Yield each number of *path*, with its line; without a header the first column has them.

    Raises ListError if the file is none of numbers.
    """
    try:
        opened = open_list(path, Form(ignore_others=True))
    except ListError:
        yield from _without_header(path, other_mainland=other_mainland)
        return
    place = opened.header.places["recipient"]
    for record in opened.sheet:
        if record.line >= opened.data_from and not record.is_blank:
            yield record.line, _read(record, place, other_mainland=other_mainland)


def _without_header(
    path: Path, *, other_mainland: bool
) -> Iterator[tuple[int, ReadNumber | DoubtfulNumber]]:
    sheets = text_sheets(path, Form())
    sheet = max(sheets, key=_first_column)
    if not _first_column(sheet):
        open_list(path, Form(ignore_others=True))  # raises with the reason
    records = (record for record in sheet if not record.is_blank)
    for place, record in enumerate(records):
        if place or any(character.isdigit() for character in record.cells[0]):  # else a header
            yield record.line, _read(record, 0, other_mainland=other_mainland)


def _first_column(sheet: Sheet) -> int:
    """Return in how many of the first lines the first cell is a number."""
    return sum(
        isinstance(read_number(record.cells[0], other_mainland=True), ReadNumber)
        for record in islice(sheet, MAX_LINES_JUDGED)
    )


def _read(record: Record, place: int, *, other_mainland: bool) -> ReadNumber | DoubtfulNumber:
    if record.trouble:
        return DoubtfulNumber(record.trouble)
    text = record.cells[place] if place < len(record.cells) else ""
    return read_number(text, other_mainland=other_mainland)
