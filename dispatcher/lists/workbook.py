"""Records of an Excel workbook, row by row, as a person sees them there."""

import zlib
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any
from warnings import catch_warnings
from weakref import finalize
from xml.etree.ElementTree import ParseError
from xml.parsers import expat
from zipfile import BadZipFile

from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format
from openpyxl.utils.cell import column_index_from_string
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.cells import DATE_DOUBT, Record
from dispatcher.lists.header import Header, shown_names
from dispatcher.lists.workbook_parts import (
    RowParser,
    SheetCell,
    SheetRow,
    TooBigError,
    WorkbookReader,
    unescaped,
)

MAX_ROWS = 1_048_576  # as Excel has them
MAX_DIGITS = 40  # before and after the point; 1E+3000000 takes minutes
MAX_EXACT_DIGITS = 15  # that Excel keeps and shows: it writes 19.9 as 19.899999999999999
_AS_SHOWN = Context(prec=MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
_PADDED = Context(prec=MAX_DIGITS + MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
MAX_MERGED_SHOWN = 3  # ranges
_AS_IT_IS = ("General", "@", "0", "0_ ", "0_);(0)", "0_);\\(0\\)")  # formats that change no digit
MAX_PADDED_FORMAT = 20  # zeros of a format such as 000000
_BROKEN = (
    BadZipFile,
    zlib.error,
    expat.ExpatError,
    InvalidFileException,
    LookupError,
    OverflowError,
    ParseError,
    RuntimeError,  # encrypted, or nested too deeply
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
)


class WorkbookSheet:
    """One sheet of an Excel workbook; iterate it, as often as needed, for its rows."""

    delimiter = ","

    def __init__(self, path: Path, wanted: str | None = None) -> None:
        """Open the sheet *wanted*, or the only one that is visible and holds anything.

        Raises :class:`ListError` if that is not one sheet, or no workbook.
        """
        try:
            # A stream, because of a path openpyxl looks at the name too.
            source = path.open("rb")
            finalize(self, source.close)
            reader = WorkbookReader(source)
            with catch_warnings(action="ignore"):  # openpyxl's, of what is not used here
                reader.read()
        except TooBigError:
            raise ListError(
                _(
                    "{path} is too big when it is unpacked: save the sheet as CSV UTF-8, and load"
                    " that."
                ).format(path=path),
                misused=True,
            ) from None
        except _BROKEN:
            raise ListError(
                _(
                    "{path} is a zip file, and not an Excel workbook that can be read: save or"
                    " export it as .xlsx, or as CSV UTF-8."
                ).format(path=path),
                misused=True,
            ) from None
        self._path = path
        self._book = reader.wb
        self._strings = reader.shared_strings
        self._sheet = _chosen(path, self._book.worksheets, wanted)
        self.title: str = self._sheet.title
        info = self._book._archive.getinfo(self._sheet._worksheet_path)  # noqa: SLF001
        self._size = max(1, info.file_size)
        self._source: IO[bytes] | None = None
        self._rows: RowParser | None = None  # those read last
        self._columns: dict[str, int] = {}

    def progress(self) -> float:
        """Return which share of the sheet is read."""
        return self._source.tell() / self._size if self._source else 0.0

    def remarks(self, header: Header, data_from: int) -> list[str]:
        """Return what of the sheet is not seen in its cells."""
        if self._rows is None:
            return []
        found = []
        merged = [one for one in self._rows.merged if _last_row(one) >= data_from]
        if merged:
            more = ", ..." if len(merged) > MAX_MERGED_SHOWN else ""
            found.append(
                _(
                    "Merged in the sheet: {ranges}. Only the first cell of each has its text."
                ).format(ranges=", ".join(merged[:MAX_MERGED_SHOWN]) + more)
            )
        hidden = [
            header.names[place]
            for place in sorted(header.places.values())
            if any(place in columns for columns in self._rows.hidden)
        ]
        if hidden:
            found.append(
                _("Hidden in the sheet, and read: {names}.").format(names=shown_names(hidden))
            )
        return found

    def __iter__(self) -> Iterator[Record]:
        """Yield the rows that hold cells, each with the number that Excel shows."""
        number = 0
        try:
            with self._sheet._get_source() as source:  # noqa: SLF001 - the sheet's XML, as a stream
                self._source = source
                self._rows = rows = RowParser(source)
                for row in rows:
                    number = _next_number(number, row)
                    yield self._record(number, row)
                self._source = None
        except _BROKEN:
            raise _damaged(self._path, number) from None

    def _record(self, number: int, row: SheetRow) -> Record:
        cells: list[str] = []
        doubts: dict[int, str] = {}
        for cell in row.cells:
            place = self._place(cell.reference) if cell.reference else len(cells)
            text, doubt = self._text(cell)
            if place == len(cells):
                cells.append(text)
            else:
                cells += [""] * (place + 1 - len(cells))
                cells[place] = text
            if doubt:
                doubts[place] = doubt
        if row.is_hidden and any(cells):
            return Record(number, cells, trouble=_("the row is hidden in the sheet: by a filter?"))
        return Record(number, cells, doubts=doubts)

    def _place(self, reference: str) -> int:
        """Return the place of a column, of a reference such as B7."""
        column = reference.rstrip("0123456789")
        place = self._columns.get(column)
        if place is None:
            place = self._columns[column] = column_index_from_string(column) - 1
        return place

    def _text(self, cell: SheetCell) -> tuple[str, str | None]:  # noqa: PLR0911 - a table
        """Return the text of a cell, and why it cannot be taken as it is."""
        value = cell.value
        match cell.kind:
            case "inlineStr":
                return unescaped(cell.text), None
            case _ if not value:
                if cell.has_formula:
                    return "", _("it holds a formula without a result: save the file in Excel")
                return "", None
            case "s":
                return self._strings[int(value)], None
            case "b":
                return ("TRUE" if value == "1" else "FALSE"), None
            case "e":
                return value, _("it holds the error {value}").format(value=value)
            case "n":
                return self._number(value, self._format(int(cell.style or 0)))
            case "d":
                return value.replace("T", " "), _(DATE_DOUBT)
            case _:
                return unescaped(value), None

    def _format(self, style: int) -> str:
        styles = self._book._cell_styles  # noqa: SLF001 - formats of a cell have no other way
        if style >= len(styles):
            return "General"
        number = styles[style].numFmtId
        if number in BUILTIN_FORMATS:
            return str(BUILTIN_FORMATS[number])
        formats = self._book._number_formats  # noqa: SLF001
        return str(formats[number - 164]) if 0 <= number - 164 < len(formats) else "General"

    def _number(self, value: str, form: str) -> tuple[str, str | None]:  # noqa: PLR0911 - as above
        """Return a number as the sheet means it: 062569 where its format is 000000."""
        if form in _AS_IT_IS and value.isdecimal() and len(value) <= MAX_EXACT_DIGITS:
            return str(int(value)), None
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value, _("it is no number that can be read")
        if not number.is_finite() or abs(number.adjusted()) >= MAX_DIGITS:
            return value, _("it is no number that can be read")
        if is_date_format(form):
            return self._date(number), _(DATE_DOUBT)
        if number.adjusted() >= MAX_EXACT_DIGITS:
            return f"{number:f}", _(
                "it has more digits than Excel keeps: format the column as text"
            )
        number = _AS_SHOWN.plus(number)
        whole = number == number.to_integral_value()
        if form in _AS_IT_IS and (whole or form in ("General", "@")):
            return (f"{int(number)}" if whole else f"{number.normalize():f}"), None
        digits, _point, decimals = form.partition(".")
        if set(digits) == {"0"} and set(decimals) <= {"0"} and len(form) <= MAX_PADDED_FORMAT:
            shown = abs(number).quantize(Decimal(1).scaleb(-len(decimals)), None, _PADDED)
            text = f"{'-' if number < 0 else ''}{shown:0{len(form)}f}"
            hides = not decimals and not whole
            return text, _("its format hides decimals: format it as text") if hides else None
        return f"{number:f}", _(
            "it is a number in the format {form}: format the column as text"
        ).format(form=form)

    def _date(self, number: Decimal) -> str:
        try:
            date: Any = from_excel(float(number), self._book.epoch)
        except (OverflowError, ValueError):
            return f"{number:f}"
        return f"{date:%Y-%m-%d %H:%M:%S}" if isinstance(date, datetime) else str(date)


def _last_row(cells: str) -> int:
    """Return the last row of a range such as B2:B4."""
    return int(cells.rpartition(":")[2].lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def _damaged(path: Path, row: int) -> ListError:
    return ListError(
        _("{path} is damaged after row {row}: open it in Excel and save it.").format(
            path=path, row=f"{row:,}"
        ),
        misused=True,
    )


def _chosen(path: Path, sheets: list[ReadOnlyWorksheet], wanted: str | None) -> ReadOnlyWorksheet:
    names = ", ".join(sheet.title for sheet in sheets)
    if wanted is not None:
        for sheet in sheets:
            if sheet.title == wanted:
                return sheet
        raise ListError(
            _("{path} has no sheet {wanted}: it has {names}.").format(
                path=path, wanted=f"{wanted!r}", names=names
            ),
            misused=True,
        )
    try:
        filled = [one for one in sheets if one.sheet_state == "visible" and _holds_rows(one)]
    except _BROKEN:
        raise _damaged(path, 0) from None
    if len(filled) > 1:
        raise ListError(
            _("{path} has several sheets ({names}): name one with --sheet.").format(
                path=path, names=names
            ),
            misused=True,
        )
    if not filled:
        raise ListError(
            _("{path} is empty: no visible sheet has rows.").format(path=path), misused=True
        )
    return filled[0]


def _next_number(last: int, row: SheetRow) -> int:
    """Return the number of *row*, which comes after that with the number *last*."""
    number = int(row.number or last + 1)
    if not last < number <= MAX_ROWS:
        raise ValueError(_("the rows are not in their order"))
    return number


def _holds_rows(sheet: ReadOnlyWorksheet) -> bool:
    with sheet._get_source() as source:  # noqa: SLF001
        return any(
            cell.value or cell.text or cell.has_formula
            for row in RowParser(source)
            for cell in row.cells
        )
