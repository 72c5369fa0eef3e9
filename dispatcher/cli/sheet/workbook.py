"""Records of an Excel workbook, row by row; openpyxl reads what the rows refer to."""

from array import array
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError, iterparse
from zipfile import BadZipFile

from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format
from openpyxl.utils.cell import coordinate_to_tuple
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.sheet.cells import Record

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

_NAMESPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _CELL, _VALUE, _FORMULA, _INLINE, _STRING, _DATA = (
    _NAMESPACE + name for name in ("row", "c", "v", "f", "is", "si", "sheetData")
)
_AS_IT_IS = ("General", "@", "0", "0_ ", "0_);(0)", "0_);\\(0\\)")  # formats that change no digit
MAX_PADDED_FORMAT = 20  # zeros of a format such as 000000
_BROKEN = (
    BadZipFile,
    InvalidFileException,
    KeyError,
    ParseError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
)


class _SharedStrings:
    """The texts that cells refer to, in a few bytes each: a million are usual."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __getitem__(self, place: int) -> str:
        begin, end = self._ends[place], self._ends[place + 1]
        return self._bytes[begin:end].decode("utf-8", "surrogatepass")


class _Reader(ExcelReader):  # type: ignore[misc] # openpyxl has no types
    """Reads everything of a workbook but its rows; its strings are kept small."""

    def read_strings(self) -> None:
        self.shared_strings = strings = _SharedStrings()
        part = self.package.find(
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        )
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as source:
            # expat refuses entities that grow, and nothing outside of the file is read.
            events = iterparse(source, ("start", "end"))  # noqa: S314
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == _STRING:
                    strings.append(Text.from_tree(element).content.replace("x005F_", ""))
                    root.clear()


class WorkbookSheet:
    """One sheet of an Excel workbook; iterate it, as often as needed, for its rows."""

    delimiter = ","

    def __init__(self, path: Path, wanted: str | None = None) -> None:
        """Open the sheet *wanted*, or the only one that is visible and holds anything.

        Raises :class:`CommandError` if that is not one sheet, or no workbook.
        """
        try:
            # A stream, because of a path openpyxl looks at the name too.
            reader = _Reader(path.open("rb"), read_only=True, data_only=True, keep_links=False)
            reader.read()
        except _BROKEN:
            raise CommandError(
                f"{path} is a zip file, and not an Excel workbook that can be read: save it in"
                " Excel as .xlsx or as CSV UTF-8.",
                code=USED_WRONGLY,
            ) from None
        self._path = path
        self._book = reader.wb
        self._strings = reader.shared_strings
        self._sheet = _chosen(path, self._book.worksheets, wanted)
        self.title: str = self._sheet.title
        self._rows = max(1, self._sheet.max_row or 1)
        self._row = 0

    def progress(self) -> float:
        """Return which share of the rows is read."""
        return min(1.0, self._row / self._rows)

    def __iter__(self) -> Iterator[Record]:
        """Yield the rows that hold cells, each with the number that Excel shows."""
        data: Element | None = None
        number = 0
        try:
            with self._sheet._get_source() as source:  # noqa: SLF001 - the sheet's XML, as a stream
                for event, element in iterparse(source, ("start", "end")):  # noqa: S314
                    if event == "start":
                        data = element if element.tag == _DATA else data
                    elif element.tag == _ROW and data is not None:
                        number = self._row = int(element.get("r") or number + 1)
                        yield self._record(number, element)
                        data.clear()  # what is read is not kept
        except _BROKEN:
            raise CommandError(
                f"{self._path} is damaged after row {number:,}: open it in Excel and save it.",
                code=USED_WRONGLY,
            ) from None

    def _record(self, number: int, row: Element) -> Record:
        cells: list[str] = []
        doubts: dict[int, str] = {}
        for element in row:
            if element.tag != _CELL:
                continue
            reference = element.get("r")
            place = coordinate_to_tuple(reference)[1] - 1 if reference else len(cells)
            cells += [""] * (place + 1 - len(cells))
            text, doubt = self._cell(element)
            cells[place] = text
            if doubt:
                doubts[place] = doubt
        if row.get("hidden") in ("1", "true") and any(cells):
            return Record(number, cells, trouble="the row is hidden in the sheet: by a filter?")
        return Record(number, cells, doubts=doubts)

    def _cell(self, element: Element) -> tuple[str, str | None]:  # noqa: PLR0911 - a table
        """Return the text of a cell, and why it cannot be taken as it is."""
        kind = element.get("t", "n")
        value = element.findtext(_VALUE)
        match kind:
            case "inlineStr":
                inline = element.find(_INLINE)
                return (Text.from_tree(inline).content if inline is not None else ""), None
            case _ if not value:
                if element.find(_FORMULA) is not None:
                    return "", "it holds a formula without a result: save the file in Excel"
                return "", None
            case "s":
                return self._strings[int(value)], None
            case "b":
                return ("TRUE" if value == "1" else "FALSE"), None
            case "e":
                return value, f"it holds the error {value}"
            case "n":
                return self._number(value, self._format(int(element.get("s") or 0)))
            case "d":
                return value.replace("T", " "), None
            case _:
                return value, None

    def _format(self, style: int) -> str:
        styles = self._book._cell_styles  # noqa: SLF001 - formats of a cell have no other way
        if style >= len(styles):
            return "General"
        number = styles[style].numFmtId
        if number in BUILTIN_FORMATS:
            return str(BUILTIN_FORMATS[number])
        formats = self._book._number_formats  # noqa: SLF001
        return str(formats[number - 164]) if 0 <= number - 164 < len(formats) else "General"

    def _number(self, value: str, form: str) -> tuple[str, str | None]:
        """Return a number as the sheet means it: 062569 where its format is 000000."""
        try:
            number = Decimal(value)
        except InvalidOperation:
            return value, "it is no number that can be read"
        if is_date_format(form):
            return self._date(number), "it is a date: format the column as text"
        whole = number == number.to_integral_value()
        if form in _AS_IT_IS and (whole or form in ("General", "@")):
            return (f"{int(number)}" if whole else f"{number:f}"), None
        digits, _, decimals = form.partition(".")
        if set(digits) == {"0"} and set(decimals) <= {"0"} and len(form) <= MAX_PADDED_FORMAT:
            return f"{number:0{len(form)}.{len(decimals)}f}", None
        return f"{number:f}", f"it is a number in the format {form}: format the column as text"

    def _date(self, number: Decimal) -> str:
        try:
            date: Any = from_excel(float(number), self._book.epoch)
        except (OverflowError, ValueError):
            return f"{number:f}"
        return f"{date:%Y-%m-%d %H:%M:%S}" if isinstance(date, datetime) else str(date)


def _chosen(
    path: Path, sheets: "list[ReadOnlyWorksheet]", wanted: str | None
) -> "ReadOnlyWorksheet":
    names = ", ".join(sheet.title for sheet in sheets)
    if wanted is not None:
        for sheet in sheets:
            if sheet.title == wanted:
                return sheet
        raise CommandError(f"{path} has no sheet {wanted!r}: it has {names}.", code=USED_WRONGLY)
    filled = [sheet for sheet in sheets if sheet.sheet_state == "visible" and _holds_rows(sheet)]
    if len(filled) > 1:
        raise CommandError(
            f"{path} has several sheets ({names}): name one with --sheet.", code=USED_WRONGLY
        )
    if not filled:
        raise CommandError(f"{path} is empty: no visible sheet has rows.", code=USED_WRONGLY)
    return filled[0]


def _holds_rows(sheet: "ReadOnlyWorksheet") -> bool:
    with sheet._get_source() as source:  # noqa: SLF001
        for _, element in iterparse(source):  # noqa: S314
            if element.tag == _CELL and len(element):
                return True
            if element.tag == _ROW:
                element.clear()
    return False
