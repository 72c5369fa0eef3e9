"""Reads a list of numbers alone, such as people who asked not to be sent to."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.core.number import DoubtfulNumber, ReadNumber, read_number
from dispatcher.lists.cells import Record, has_taken_in, number_alone, swallowed
from dispatcher.lists.reading import DELIMITERS, Form, numbers_first, open_list, sheets_of


def read_numbers(
    path: Path,
    *,
    encoding: str | None = None,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    other_mainland: bool = False,
) -> Iterator[tuple[int, ReadNumber | DoubtfulNumber]]:
    """Yield each number of *path*, with its line; without a header the first column has them.

    *encoding*, *sheet* and *columns* are those of `Form`; with *columns* there must be a header.
    A line with a second number is yielded twice, the second time as doubtful: it may be the same
    person's, or that of another one.
    Raises ListError if the file is none of numbers.
    """
    form = Form(encoding, columns or {}, ignore_others=True, sheet=sheet, numbers_only=True)
    try:
        opened = open_list(path, form)
    except ListError:
        if columns:
            raise
        yield from _without_header(path, form, other_mainland=other_mainland)
        return
    place = opened.header.places["recipient"]
    for record in opened.sheet:
        if record.line >= opened.data_from and not record.is_blank:
            yield from _read(record, place, other_mainland=other_mainland)


def _without_header(
    path: Path, form: Form, *, other_mainland: bool
) -> Iterator[tuple[int, ReadNumber | DoubtfulNumber]]:
    sheets = sheets_of(path, form)
    sheet = max(sheets, key=numbers_first)
    if not numbers_first(sheet):
        open_list(path, form)  # raises with the reason
    records = (record for record in sheet if not record.is_blank)
    for place, record in enumerate(records):
        if place or any(map(str.isdigit, "".join(record.cells[:1]))):  # else a header
            yield from _read(record, 0, other_mainland=other_mainland)


def _has_swallowed(record: Record) -> bool:
    """Tell whether a cell over several lines has taken in a line with a number of its own.

    So it is when two lines each have a quote that is wrong; addresses have several lines too.
    """
    several = [cell for cell in record.cells if "\n" in cell]
    parts = (
        part
        for cell in several
        for line in cell.split("\n")[1:]
        for part in re.split(f"[{DELIMITERS}]", line)
    )
    return any(map(number_alone, parts)) or any(has_taken_in(cell, DELIMITERS) for cell in several)


def _read(
    record: Record, place: int, *, other_mainland: bool
) -> Iterator[tuple[int, ReadNumber | DoubtfulNumber]]:
    if record.raw and _has_swallowed(record):
        for line in range(record.line, record.line + record.lines):
            yield line, DoubtfulNumber(swallowed(record))
        return
    if record.trouble:
        yield record.line, DoubtfulNumber(record.trouble)
        return
    text = record.cells[place] if place < len(record.cells) else ""
    number = read_number(text, other_mainland=other_mainland)
    yield record.line, number
    others = (read_number(cell) for cell in record.cells[:place] + record.cells[place + 1 :])
    found = {one.e164 for one in (number, *others) if isinstance(one, ReadNumber)}
    if isinstance(number, ReadNumber) and len(found) > 1:
        yield (
            record.line,
            DoubtfulNumber(_("there is another number in the line: give it a line of its own")),
        )
