"""The parts of an Excel workbook: a zip file with XML, of which nothing may grow without a bound.

openpyxl reads what the rows refer to. Rows and texts are read by expat itself: elements of a tree,
made for each cell, take three times as long.
"""

import re
from array import array
from collections.abc import Iterator
from typing import IO, Any
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from msgspec import Struct, field
from openpyxl.reader.excel import ExcelReader
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from dispatcher.core.language import _

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
MAX_CELL_CHARACTERS = 32_767  # as Excel has them
_PIECE_BYTES = 65_536  # of XML, parsed at once
# Unpacked. A million rows of a list are 155 MB; what zip makes a thousand times smaller is no list.
MAX_BYTES = 1024 * 1024 * 1024
# Of a part that is read at once: styles are the largest, 13 MB with all 65,490 that Excel takes.
MAX_WHOLE_PART_BYTES = 16 * 1024 * 1024
MAX_WHOLE_PART_TAGS = 500_000  # of those 65,490 formats; openpyxl makes over a kilobyte of each
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")  # a character as Excel writes it, such as _x000D_
MAX_REMARKED = 1_000  # ranges and hidden columns that are kept; a list has few
MAX_COLUMNS = 16_384  # as Excel has them
_RANGE = re.compile(r"[A-Z]{1,3}[0-9]{1,7}(?::[A-Z]{1,3}[0-9]{1,7})?")


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
            raise TooBigError
        if any(part.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for part in parts):
            raise BadZipFile  # others grow without a bound when a piece of them is read

    def read(self, name: str | ZipInfo, pwd: bytes | None = None) -> bytes:
        """Return a whole part; a part with more than it says is cut, and damaged by that."""
        size = (self.getinfo(name) if isinstance(name, str) else name).file_size
        if size > MAX_WHOLE_PART_BYTES:
            raise TooBigError
        with self.open(name, pwd=pwd) as part:
            content = part.read(size)
        if content.count(b"<") > MAX_WHOLE_PART_TAGS:
            raise TooBigError
        for strict, usual in _STRICT_NAMES.items():
            content = content.replace(strict, usual)
        return content


class TooBigError(Exception):
    """A workbook would take too much memory."""


class _Sheet(ReadOnlyWorksheet):  # type: ignore[misc] # openpyxl has no types
    """A sheet that is not looked at before its rows are read."""

    def _get_size(self) -> None:
        """Do nothing: openpyxl reads all of a sheet that does not say how many rows it has."""


class WorkbookReader(ExcelReader):  # type: ignore[misc] # as above
    """Reads everything of a workbook but its rows; its strings are kept small."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(source, read_only=True, data_only=True, keep_links=False)
        self.archive = _Archive(source)

    def read_worksheets(self) -> None:
        """Make the sheets, and read no row of them."""
        for sheet, place in self.parser.find_sheets():
            if place.target in self.valid_files and "chartsheet" not in place.Type:
                made = _Sheet(self.wb, sheet.name, place.target, self.shared_strings)
                made.sheet_state = sheet.state
                self.wb._sheets.append(made)  # noqa: SLF001 - as openpyxl does

    def read_strings(self) -> None:
        """Read the texts that cells refer to."""
        self.shared_strings = strings = _SharedStrings()
        part = self.package.find(
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
        )
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as source:
            for text in _StringParser(source):
                strings.append(unescaped(text))


class SheetCell(Struct):
    """A cell as the file has it."""

    reference: str | None  # such as B7
    kind: str
    style: str | None
    value: str = ""
    text: str = ""  # that stands in the cell itself
    has_formula: bool = False


class SheetRow(Struct):
    """A row as the file has it."""

    number: str | None
    is_hidden: bool
    cells: list[SheetCell] = field(default_factory=list)


class _XmlParser:
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


class _StringParser(_XmlParser):
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


class RowParser(_XmlParser):
    """The rows of a sheet."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(source)
        self.merged: list[str] = []  # ranges such as B2:B4
        self.hidden: list[range] = []  # places of columns

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Look at the beginning of a row, of a cell, or of what stands in one."""
        if name == _CELL:
            get = attributes.get
            self._cell = SheetCell(get("r"), get("t", "n"), get("s"))
        elif name in (_VALUE, _TEXT):
            self.begin_text()
        elif name == _ROW:
            hidden = attributes.get("hidden") in ("1", "true")
            self._row = SheetRow(attributes.get("r"), hidden)
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
        """Take what has ended; a row is found."""
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


def unescaped(text: str) -> str:
    """Return *text* with the characters that Excel writes as _x000D_."""
    return _ESCAPED.sub(_character, text) if "_x" in text else text


def _character(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return found[0] if character == "\0" or "\ud800" <= character <= "\udfff" else character
