"""Records of an Excel workbook, row by row; openpyxl reads what the rows refer to.

Rows and texts are read by expat itself: elements of a tree, made for each cell, take three times as
long.
"""

import re
import zlib
from array import array
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any
from warnings import catch_warnings
from weakref import finalize
from xml.etree.ElementTree import ParseError
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from msgspec import Struct, field
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format
from openpyxl.utils.cell import column_index_from_string
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.cells import DATE_DOUBT, Record
from dispatcher.lists.header import Header, shown_names

_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main "
_ROW, _CELL, _VALUE, _FORMULA, _TEXT, _STRING, _PHONETIC, _MERGED, _COLUMNS = (
    _NAMESPACE + name for name in ("row", "c", "v", "f", "t", "si", "rPh", "mergeCell", "col")
)
_STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main "  # of a Strict Open XML Spreadsheet
_STRICT_NAMES = {  # in parts that openpyxl reads, which knows only the other ones
    b"http://purl.oclc.org/ooxml/spreadsheetml/main": _NAMESPACE.strip().encode(),
    b"http://purl.oclc.org/ooxml/officeDocument/relationships": (
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    ),
}
MAX_CELL_CHARACTERS, MAX_ROWS = 32_767, 1_048_576  # as Excel has them
_PIECE_BYTES = 65_536  # of XML, parsed at once
# Unpacked. A million rows of a list are 155 MB; what zip makes a thousand times smaller is no list.
MAX_BYTES = 1024 * 1024 * 1024
# Of a part that is read at once: styles are the largest, 13 MB with all 65,490 that Excel takes.
MAX_WHOLE_PART_BYTES = 16 * 1024 * 1024
MAX_WHOLE_PART_TAGS = 500_000  # of those 65,490 formats; openpyxl makes over a kilobyte of each
MAX_DIGITS = 40  # before and after the point; 1E+3000000 takes minutes
MAX_EXACT_DIGITS = 15  # that Excel keeps and shows: it writes 19.9 as 19.899999999999999
_AS_SHOWN = Context(prec=MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
_PADDED = Context(prec=MAX_DIGITS + MAX_EXACT_DIGITS, rounding=ROUND_HALF_UP)
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")  # a character as Excel writes it, such as _x000D_
MAX_MERGED_SHOWN = 3  # ranges
MAX_REMARKED = 1_000  # ranges and hidden columns that are kept; a list has few
MAX_COLUMNS = 16_384  # as Excel has them
_RANGE = re.compile(r"[A-Z]{1,3}[0-9]{1,7}(?::[A-Z]{1,3}[0-9]{1,7})?")
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


class _Archive(ZipFile):
    """A workbook's zip file, of which nothing grows beyond what it may have."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(source)
        parts = self.infolist()
        if sum(part.file_size for part in parts) > MAX_BYTES:
            raise _TooBigError
        if any(part.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for part in parts):
            raise BadZipFile  # others grow without a bound when a piece of them is read

    def read(self, name: str | ZipInfo, pwd: bytes | None = None) -> bytes:
        """Return a whole part; a part with more than it says is cut, and damaged by that."""
        size = (self.getinfo(name) if isinstance(name, str) else name).file_size
        if size > MAX_WHOLE_PART_BYTES:
            raise _TooBigError
        with self.open(name, pwd=pwd) as part:
            content = part.read(size)
        if content.count(b"<") > MAX_WHOLE_PART_TAGS:
            raise _TooBigError
        for strict, usual in _STRICT_NAMES.items():
            content = content.replace(strict, usual)
        return content


class _TooBigError(Exception):
    """A workbook would take too much memory."""


class _Sheet(ReadOnlyWorksheet):  # type: ignore[misc] # openpyxl has no types
    """A sheet that is not looked at before its rows are read."""

    def _get_size(self) -> None:
        """Do nothing: openpyxl reads all of a sheet that does not say how many rows it has."""


class _Reader(ExcelReader):  # type: ignore[misc] # as above
    """Reads everything of a workbook but its rows; its strings are kept small."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(source, read_only=True, data_only=True, keep_links=False)
        self.archive = _Archive(source)

    def read_worksheets(self) -> None:
        for sheet, place in self.parser.find_sheets():
            if place.target in self.valid_files and "chartsheet" not in place.Type:
                made = _Sheet(self.wb, sheet.name, place.target, self.shared_strings)
                made.sheet_state = sheet.state
                self.wb._sheets.append(made)  # noqa: SLF001 - as openpyxl does

    def read_strings(self) -> None:
        self.shared_strings = strings = _SharedStrings()
        part = self.package.find(
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        )
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as source:
            for text in _Strings(source):
                strings.append(_unescaped(text))


class _Cell(Struct):
    """A cell as the file has it."""

    reference: str | None  # such as B7
    kind: str
    style: str | None
    value: str = ""
    text: str = ""  # that stands in the cell itself
    has_formula: bool = False


class _Row(Struct):
    """A row as the file has it."""

    number: str | None
    is_hidden: bool
    cells: list[_Cell] = field(default_factory=list)


class _Parser:
    """Parses the XML of a part in pieces; a subclass collects what it finds in *found*."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._texts: list[str] | None = None  # of the element that is read now
        self._length = 0
        self._is_phonetic = False  # how a text is spoken is no part of it
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start_root
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = _refuse_doctype
        self.found: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        piece = b"begin"
        while piece:
            piece = self._source.read(_PIECE_BYTES)
            self._parser.Parse(piece, not piece)
            yield from self.found
            self.found.clear()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Look at the beginning of an element."""
        raise NotImplementedError

    def end(self, name: str) -> None:
        """Look at the end of an element."""
        raise NotImplementedError

    def _start_root(self, name: str, attributes: dict[str, str]) -> None:
        """Look at the first element, whose namespace is that of all others."""
        parser = self._parser
        parser.StartElementHandler = self.start
        if name.startswith(_STRICT):
            parser.StartElementHandler = lambda name, attributes: self.start(
                name.replace(_STRICT, _NAMESPACE), attributes
            )
            parser.EndElementHandler = lambda name: self.end(name.replace(_STRICT, _NAMESPACE))
        parser.StartElementHandler(name, attributes)

    def begin_text(self) -> None:
        """Collect what is written from here on."""
        self._texts = None if self._is_phonetic else []
        self._length = 0

    def end_text(self) -> str:
        """Return what was written since :meth:`begin_text`."""
        texts, self._texts = self._texts, None
        return "".join(texts) if texts else ""

    def _characters(self, text: str) -> None:
        if self._texts is not None:
            self._texts.append(text)
            self._length += len(text)
            if self._length > MAX_CELL_CHARACTERS:
                raise ValueError(_("no cell of Excel holds so much text"))


class _Strings(_Parser):
    """The texts of a workbook that cells refer to."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        if name == _TEXT:
            self.begin_text()
        elif name == _STRING:
            self._whole = ""
        elif name == _PHONETIC:
            self._is_phonetic = True

    def end(self, name: str) -> None:
        if name == _TEXT:
            self._whole += self.end_text()
        elif name == _STRING:
            self.found.append(self._whole)
        elif name == _PHONETIC:
            self._is_phonetic = False


class _Rows(_Parser):
    """The rows of a sheet."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(source)
        self.merged: list[str] = []  # ranges such as B2:B4
        self.hidden: list[range] = []  # places of columns

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == _CELL:
            get = attributes.get
            self._cell = _Cell(get("r"), get("t", "n"), get("s"))
        elif name in (_VALUE, _TEXT):
            self.begin_text()
        elif name == _ROW:
            hidden = attributes.get("hidden") in ("1", "true")
            self._row = _Row(attributes.get("r"), hidden)
        elif name == _FORMULA:
            self._cell.has_formula = True
        elif name == _PHONETIC:
            self._is_phonetic = True
        elif name == _MERGED:
            cells = attributes.get("ref", "")
            if _RANGE.fullmatch(cells) and len(self.merged) < MAX_REMARKED:
                self.merged.append(cells)
        elif name == _COLUMNS and attributes.get("hidden") in ("1", "true"):
            last = min(int(attributes["max"]), MAX_COLUMNS)
            self.hidden.append(range(int(attributes["min"]) - 1, last))
            del self.hidden[MAX_REMARKED:]

    def end(self, name: str) -> None:
        if name == _VALUE:
            self._cell.value = self.end_text()
        elif name == _TEXT:
            self._cell.text += self.end_text()
        elif name == _CELL:
            self._row.cells.append(self._cell)
        elif name == _ROW:
            self.found.append(self._row)
        elif name == _PHONETIC:
            self._is_phonetic = False


def _refuse_doctype(*_declaration: object) -> None:
    raise ValueError(_("a workbook has no DOCTYPE: its entities could grow without an end"))


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
            reader = _Reader(source)
            with catch_warnings(action="ignore"):  # openpyxl's, of what is not used here
                reader.read()
        except _TooBigError:
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
        self._rows: _Rows | None = None  # those read last
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
                self._rows = rows = _Rows(source)
                for row in rows:
                    number = _next_number(number, row)
                    yield self._record(number, row)
                self._source = None
        except _BROKEN:
            raise _damaged(self._path, number) from None

    def _record(self, number: int, row: _Row) -> Record:
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

    def _text(self, cell: _Cell) -> tuple[str, str | None]:  # noqa: PLR0911 - a table
        """Return the text of a cell, and why it cannot be taken as it is."""
        value = cell.value
        match cell.kind:
            case "inlineStr":
                return _unescaped(cell.text), None
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
                return _unescaped(value), None

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


def _unescaped(text: str) -> str:
    """Return *text* with the characters that Excel writes as _x000D_."""
    return _ESCAPED.sub(_character, text) if "_x" in text else text


def _character(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return found[0] if character == "\0" or "\ud800" <= character <= "\udfff" else character


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


def _next_number(last: int, row: _Row) -> int:
    """Return the number of *row*, which comes after that with the number *last*."""
    number = int(row.number or last + 1)
    if not last < number <= MAX_ROWS:
        raise ValueError(_("the rows are not in their order"))
    return number


def _holds_rows(sheet: ReadOnlyWorksheet) -> bool:
    with sheet._get_source() as source:  # noqa: SLF001
        return any(
            cell.value or cell.text or cell.has_formula
            for row in _Rows(source)
            for cell in row.cells
        )
