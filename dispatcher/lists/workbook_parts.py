"""The parts of an Excel workbook: a zip file with XML, of which nothing may grow without a bound.

Only what a list needs is read: fonts, colours, views and properties, which other programs write in
ways that openpyxl refuses and Excel opens, are left alone. Rows and texts are read by expat itself:
elements of a tree, made for each cell, take three times as long.
"""

import re
from array import array
from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import Element
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from msgspec import Struct, field
from openpyxl.packaging.relationship import (
    Relationship,
    RelationshipList,
    get_dependents,
    get_rels_path,
)
from openpyxl.styles.numbers import BUILTIN_FORMATS
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900
from openpyxl.xml.functions import fromstring

from dispatcher.core.language import _

_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main "
_ROW, _CELL, _VALUE, _FORMULA, _TEXT, _STRING, _PHONETIC, _MERGED, _COLUMNS = (
    _NAMESPACE + name for name in ("row", "c", "v", "f", "t", "si", "rPh", "mergeCell", "col")
)
_MAIN = f"{{{_NAMESPACE.strip()}}}"  # in front of the names of a tree's elements
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# Formats that a file names by number only, and whose form is that of the language: all are dates
# and times where dates have formats of their own (Chinese, Japanese, Korean). 32 and 33 show the
# time of day in each of them; 34, 35, 55 and 56 in Chinese alone.
_LOCAL_FORMATS = dict.fromkeys((*range(27, 37), *range(50, 59)), "yyyy-mm-dd") | dict.fromkeys(
    (32, 33), "h:mm:ss"
)
_STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main "  # of a Strict Open XML Spreadsheet
_STRICT_NAMES = {  # in parts that are read as a whole
    b"http://purl.oclc.org/ooxml/spreadsheetml/main": _NAMESPACE.strip().encode(),
    b"http://purl.oclc.org/ooxml/officeDocument/relationships": (
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    ),
}
_HIDDEN = ("hidden", "veryHidden")  # states of a sheet
_TRUE = ("1", "true")
MAX_CELL_CHARACTERS = 32_767  # as Excel has them
MAX_FORMAT_CHARACTERS = 255  # the same
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
        self._parts = {_plain(part.filename): part for part in parts}

    def getinfo(self, name: str) -> ZipInfo:
        """Return a part. Raises KeyError if there is none."""
        return self._parts[_plain(name)]

    def __contains__(self, name: str) -> bool:
        return _plain(name) in self._parts

    def related(self, name: str) -> RelationshipList:
        """Return what parts a part refers to, from the part *name* that lists them."""
        return get_dependents(self, name) if name in self else RelationshipList()

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


class SheetPart(Struct, frozen=True):
    """A sheet of a workbook."""

    title: str
    path: str
    is_visible: bool


class Workbook:
    """Everything of a workbook but its rows."""

    def __init__(self, source: IO[bytes]) -> None:
        self._archive = archive = _Archive(source)
        path = _path("officeDocument", archive.related("_rels/.rels")) or "xl/workbook.xml"
        related = archive.related(get_rels_path(path))
        root = fromstring(archive.read(path))
        about = root.find(f"{_MAIN}workbookPr")
        from_1904 = about is not None and about.get("date1904") in _TRUE
        self.epoch = CALENDAR_MAC_1904 if from_1904 else CALENDAR_WINDOWS_1900
        targets = {one.Id: one.target for one in related if _kind(one) == "worksheet"}
        self.sheets = [
            SheetPart(sheet.get("name", ""), target, sheet.get("state") not in _HIDDEN)
            for sheet in root.iter(f"{_MAIN}sheet")
            if (target := targets.get(sheet.get(_RELATION))) and target in archive
        ]
        if not self.sheets:
            raise LookupError(path)
        self.strings = _SharedStrings()
        texts = _path("sharedStrings", related) or "xl/sharedStrings.xml"
        if texts in archive:
            with archive.open(texts) as source_of_texts:
                for text in _StringParser(source_of_texts):
                    self.strings.append(unescaped(text))
        styles = _path("styles", related) or "xl/styles.xml"
        # Of numbers, by the style of a cell.
        self.formats = _formats(fromstring(archive.read(styles))) if styles in archive else []

    def open(self, sheet: SheetPart) -> IO[bytes]:
        """Return the rows of a sheet as a stream."""
        return self._archive.open(sheet.path)

    def size(self, sheet: SheetPart) -> int:
        """Return how many bytes a sheet says that it has."""
        return self._archive.getinfo(sheet.path).file_size


def _plain(name: str) -> str:
    """Return the name of a part so that it can be compared: some programs write other ones."""
    return name.replace("\\", "/").lower()


def _path(kind: str, related: RelationshipList) -> str | None:
    """Return the path of the part of that kind; None if none is named."""
    return next((one.target for one in related if _kind(one) == kind), None)


def _kind(relation: Relationship) -> str:
    return str(relation.Type).rpartition("/")[2]


def _formats(styles: Element) -> list[str]:
    """Return the format of numbers of each style."""
    own = {
        int(form.get("numFmtId", "")): form.get("formatCode", "")[:MAX_FORMAT_CHARACTERS]
        for form in styles.iterfind(f"{_MAIN}numFmts/{_MAIN}numFmt")
    }
    numbers = [int(xf.get("numFmtId", 0)) for xf in styles.iterfind(f"{_MAIN}cellXfs/{_MAIN}xf")]
    return [
        own.get(number) or BUILTIN_FORMATS.get(number) or _LOCAL_FORMATS.get(number, "General")
        for number in numbers
    ]


class SheetCell(Struct):
    """A cell as the file has it."""

    reference: str | None  # such as B7
    kind: str
    style: str | None
    value: str | None = None  # "" is an empty text, as a formula may give
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
            hidden = attributes.get("hidden") in _TRUE
            self._row = SheetRow(attributes.get("r"), hidden)
        elif name == _FORMULA:
            self._cell.has_formula = True
        elif name == _PHONETIC:
            self._is_phonetic = True
        elif name == _MERGED:
            cells = attributes.get("ref", "")
            if _RANGE.fullmatch(cells) and len(self.merged) < MAX_REMARKED:
                self.merged.append(cells)
        elif name == _COLUMNS and attributes.get("hidden") in _TRUE:
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
