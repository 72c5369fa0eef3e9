"""Records of an Excel workbook, row by row, as a person sees them there."""

import re
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

from msgspec import Struct
from openpyxl.styles.numbers import is_date_format
from openpyxl.utils.cell import column_index_from_string
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.cells import DATE_DOUBT, Record
from dispatcher.lists.header import Header, shown_names
from dispatcher.lists.workbook_parts import (
    RowParser,
    SheetCell,
    SheetPart,
    SheetRow,
    TooBigError,
    Workbook,
    unescaped,
)

MAX_ROWS = 1_048_576  # as Excel has them
MAX_DIGITS = 40  # before and after the point; 1E+3000000 takes minutes
MAX_EXACT_DIGITS = 15  # that Excel keeps and shows: it writes 19.9 as 19.899999999999999
_AS_SHOWN = Context(prec=MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
_PADDED = Context(prec=MAX_DIGITS + MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
MAX_MERGED_SHOWN = 3  # ranges
_AS_IT_IS = ("General", "G/通用格式", "@")  # formats that change no digit
# In a format, what changes no digit: a colour, a language without digits of its own, a filling, and
# a blank as wide as a sign.
_COLOUR = re.compile(
    r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|color ?\d+|\$-[0-9a-f]{1,4})\]|\*.",
    re.IGNORECASE,
)
_BLANK = re.compile(r"_.|\\ ")
_MIDNIGHT = re.compile("[T ]00:00(?::00(?:[.]0+)?)?$")  # of a date in ISO 8601
# In a format, what is text or a condition; [h] counts hours on.
_NOT_OF_TIME = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_DIGITS = re.compile(r"#+|#*(0+)(?:\.(0+))?")  # a format of digits alone
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


class _NumberFormat(Struct, frozen=True):
    """How a cell shows a number."""

    code: str
    is_date: bool
    is_plain: bool  # all digits are shown, and none is added
    digits: int | None = None  # shown at least before the point; None: it shows more than digits
    decimals: int = 0
    sections: int = 1  # 2: negative numbers have a format of their own; 3: and so has zero
    has_hours: bool = False  # of a date: the time of day is shown too

    def is_of(self, number: Decimal) -> bool:
        """Tell whether it is the first section that shows *number*."""
        return number > 0 or self.sections == 1 or (number == 0 and self.sections == 2)  # noqa: PLR2004


def _number_format(code: str) -> _NumberFormat:
    """Return how the format *code* shows numbers above zero."""
    first, *others = code.split(";")
    sections = 1 + len(others)
    shown = _BLANK.sub(" ", _COLOUR.sub("", first)).strip(" ")
    if shown in _AS_IT_IS:
        return _NumberFormat(code, is_date=False, is_plain=True, sections=sections)
    found = _DIGITS.fullmatch(shown)
    if found is None or len(shown) > MAX_PADDED_FORMAT:
        hours = re.search("[hs]", _NOT_OF_TIME.sub("", code), re.IGNORECASE) is not None
        return _NumberFormat(code, is_date_format(code), is_plain=False, has_hours=hours)
    digits, decimals = len(found[1] or ""), len(found[2] or "")
    plain = digits == 1 and not decimals
    return _NumberFormat(code, False, plain, digits, decimals, sections)


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
            with catch_warnings(action="ignore"):  # openpyxl's, of what is not used here
                self._book = Workbook(source)
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
        self._sheet = _chosen(path, self._book, wanted)
        self.title = self._sheet.title
        self._size = max(1, self._book.size(self._sheet))
        self._formats: dict[str | None, _NumberFormat] = {}  # by the style of a cell
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
            with self._book.open(self._sheet) as source:
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
            case "str" if value is not None:
                return unescaped(value), None
            case _ if not value:
                if cell.has_formula:
                    return "", _("it holds a formula without a result: save the file in Excel")
                return "", None
            case "s":
                return self._book.strings[int(value)], None
            case "b":
                return ("TRUE" if value == "1" else "FALSE"), None
            case "e":
                return value, _("it holds the error {value}").format(value=shown_names([value]))
            case "n":
                return self._number(value, self._format(cell.style))
            case "d":
                shown = value if self._format(cell.style).has_hours else _MIDNIGHT.sub("", value)
                return shown.replace("T", " "), _(DATE_DOUBT)
            case _:
                return unescaped(value), None

    def _format(self, style: str | None) -> _NumberFormat:
        found = self._formats.get(style)
        if found is None:
            formats, place = self._book.formats, int(style or 0)
            code = formats[place] if place < len(formats) else "General"
            found = self._formats[style] = _number_format(code)
        return found

    def _number(self, value: str, form: _NumberFormat) -> tuple[str, str | None]:  # noqa: PLR0911 - as above
        """Return a number as the sheet means it: 062569 where its format is 000000."""
        if form.is_plain and value.isdecimal() and value > "0" and len(value) <= MAX_EXACT_DIGITS:
            return str(int(value)), None
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value, _("it is no number that can be read")
        if not number.is_finite() or abs(number.adjusted()) >= MAX_DIGITS:
            return value, _("it is no number that can be read")
        if form.is_date:
            return self._date(number, form), _(DATE_DOUBT)
        if number.adjusted() >= MAX_EXACT_DIGITS:
            return f"{number:f}", _(
                "it has more digits than Excel keeps: format the column as text"
            )
        number = _AS_SHOWN.plus(number)
        whole = number == number.to_integral_value()
        if form.is_of(number):
            if form.is_plain and (whole or form.digits is None):
                return (f"{int(number)}" if whole else f"{number.normalize():f}"), None
            if form.digits is not None and (form.digits or number):
                places = form.decimals
                shown = abs(number).quantize(Decimal(1).scaleb(-places), None, _PADDED)
                width = (form.digits or 1) + (places + 1 if places else 0)
                text = f"{'-' if number < 0 else ''}{shown:0{width}f}"
                hides = not places and not whole
                return text, _("its format hides decimals: format it as text") if hides else None
        return f"{number:f}", _(
            "it is a number in the format {form}: format the column as text"
        ).format(form=shown_names([form.code]))

    def _date(self, number: Decimal, form: _NumberFormat) -> str:
        """Return a date, with the time of day unless there is none: it is no midnight then."""
        try:
            date: Any = from_excel(float(number), self._book.epoch)
        except (OverflowError, ValueError):
            return f"{number:f}"
        if not isinstance(date, datetime):
            return str(date)
        is_day = number == number.to_integral_value() and not form.has_hours
        return f"{date:%Y-%m-%d}" if is_day else f"{date:%Y-%m-%d %H:%M:%S}"


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


def _chosen(path: Path, book: Workbook, wanted: str | None) -> SheetPart:
    names = shown_names([sheet.title for sheet in book.sheets])
    if wanted is not None:
        for sheet in book.sheets:
            if sheet.title == wanted:
                return sheet
        raise ListError(
            _("{path} has no sheet {wanted}: it has {names}.").format(
                path=path, wanted=shown_names([f"{wanted!r}"]), names=names
            ),
            misused=True,
        )
    try:
        filled = [one for one in book.sheets if one.is_visible and _holds_rows(book, one)]
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


def _holds_rows(book: Workbook, sheet: SheetPart) -> bool:
    with book.open(sheet) as source:
        return any(
            cell.value or cell.text or cell.has_formula
            for row in RowParser(source)
            for cell in row.cells
        )
