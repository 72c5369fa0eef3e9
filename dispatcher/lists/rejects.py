"""The file of rejects: what was refused and why, to be corrected in a spreadsheet and loaded."""

import csv
import os
import re
import shutil
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from io import BytesIO, StringIO, TextIOWrapper
from itertools import chain, count, islice
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import IO, Final, Self
from zlib import crc32

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.header import OWN, Header, column_of
from dispatcher.lists.messages import Line
from dispatcher.lists.shown_texts import list_text

# A spreadsheet rounds long numbers, drops + and zeros in front, and turns 1-2, MAR1, (5), 5月 and
# true into something else, by rules that differ from language to language: a cell with a digit is
# written as a formula that is a text. Short whole numbers stay as they are, and so do cells with a
# quote or a line break, which a spreadsheet takes for texts.
_CHANGED = re.compile(r"""[^"\r\n\d]*\d[^"\r\n]*|\s*(?:true|false)\s*""", re.IGNORECASE)
_KEPT = re.compile(r"0|[1-9][0-9]{0,8}")
_MAX_FORMULA_CHARACTERS: Final = 255  # of a text in a formula of Excel
_PIECE_BYTES: Final = 1024 * 1024
_PIECE_ROWS: Final = 1_000  # sent at once: milliseconds of work
_SECOND: Final = 1_000_000_000  # nanoseconds
# What a cell of a formula may begin with; an apostrophe in front of a cell is taken off on load.
_MARKED = ("=", "@", "\t", "\r", "'")
_SIGNS = ("+", "-")  # of numbers too


class RejectsFile:
    """The file of rejects of one load; made with the first refused line.

    An operator may be correcting the rejects of an earlier load. A file that was changed since it
    was written here is never overwritten: `path` is then the next free name, may.rejects-2.csv.
    """

    def __init__(
        self, path: Path, header: Header, *, delimiter: str = ",", source: Path | None = None
    ) -> None:
        """*source* is the file that is loaded: it is no place for rejects."""
        self.path = path
        self._kept = [
            place for place in range(len(header.names)) if place not in _own_places(header)
        ]
        self._names = [_safe_name(header.names[place]) for place in self._kept]
        self._delimiter = delimiter if delimiter in (",", ";", "\t") else ","
        self._width = len(header.names)
        self._source = source
        self._file: IO[bytes] | None = None
        self._part: Path | None = None  # where the lines are until all are written
        self._checksum = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file, and give it its name if all its lines are written."""
        if self._file is None:
            return
        self._file.close()
        if self._part is None:
            return
        try:
            if error is None:
                self._name(self._part)
        except OSError as failure:
            raise self._not_written(failure) from None
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, refused: Iterable[tuple[Line, str]]) -> None:
        """Write lines and their reasons, and see them on the disk."""
        rows = [[str(line.number), reason, *self._cells(line)] for line, reason in refused]
        if not rows:
            return
        try:
            if self._file is None:
                self._file = self._begin()
                self._write(self._file, BOM_UTF8)
                rows.insert(0, [*OWN, *self._names])
            text = StringIO(newline="")
            csv.writer(text, delimiter=self._delimiter).writerows(rows)
            # What is not UTF-8 is written with the bytes it had.
            self._write(self._file, text.getvalue().encode("utf-8", "surrogateescape"))
            self._file.flush()
            if self._part is not None:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._not_written(error) from None

    def _begin(self) -> IO[bytes]:
        if self.path.exists() and not self.path.is_file():  # a pipe or a device
            return self.path.open("wb")
        part = Path(os.path.realpath(self.path)).parent / f".rejects-{token_hex(8)}.part"
        opened = part.open("xb")
        self._part = part
        return opened

    def _write(self, file: IO[bytes], content: bytes) -> None:
        self._checksum = crc32(content, self._checksum)
        file.write(content)

    def _name(self, part: Path) -> None:
        """Move *part* to the first name that is free, or of a file that nobody has changed."""
        for path in _names(self.path):
            place = Path(os.path.realpath(path))
            if place.exists():
                if self._source is not None and place.samefile(self._source):
                    continue
                if not is_unchanged(place):
                    continue
                shutil.copymode(place, part)
            _mark(part, self._checksum)
            part.replace(place)
            self.path = path
            return

    def _not_written(self, error: OSError) -> ListError:
        return ListError(
            _(
                "refused lines cannot be written to {path}: {strerror}. Name another place"
                " with --rejects. Lines before the first refused one may be in already."
            ).format(path=self.path, strerror=error.strerror)
        )

    def _cells(self, line: Line) -> list[str]:
        cells = [line.cells[place] for place in self._kept if place < len(line.cells)]
        return [safe_cell(cell) for cell in [*cells, *line.cells[self._width :]]]


def with_shown_reasons(content: bytes) -> Iterator[bytes]:
    """Yield a file of rejects in pieces, its reasons in the language of the present context."""
    delimiter = chr(content[len(BOM_UTF8) + len(OWN[0])])
    text = TextIOWrapper(BytesIO(content), "utf-8-sig", "surrogateescape", newline="")
    read = csv.reader(text, delimiter=delimiter)
    rows = chain([next(read)], ([line, list_text(why), *cells] for line, why, *cells in read))
    yield BOM_UTF8
    while some := list(islice(rows, _PIECE_ROWS)):
        piece = StringIO(newline="")
        csv.writer(piece, delimiter=delimiter).writerows(some)
        yield piece.getvalue().encode("utf-8", "surrogateescape")


def safe_cell(cell: str) -> str:
    """Return *cell* so that a spreadsheet shows it as it is, and runs nothing."""
    if cell.startswith(_MARKED):
        return "'" + cell
    if _CHANGED.fullmatch(cell) and not _KEPT.fullmatch(cell):
        return f'="{cell}"' if len(cell) <= _MAX_FORMULA_CHARACTERS else "'" + cell
    return "'" + cell if cell.startswith(_SIGNS) else cell


def _safe_name(name: str) -> str:
    """Return the name of a column; one of ours, such as param_1, is no cell that is changed."""
    name = name.replace('"', "")
    return name if column_of(name) and not name.startswith(_MARKED + _SIGNS) else safe_cell(name)


def is_unchanged(path: Path) -> bool:
    """Tell whether a file is as a load has written it, or empty: then nobody's work is in it.

    The time of change of a written file has the checksum of its content for the fraction of its
    second. Who changes the file changes both; where a disk keeps no such times, every file counts
    as changed.
    """
    state = path.stat()
    if not path.is_file() or not state.st_size:
        return path.is_file()
    checksum = 0
    with path.open("rb") as content:
        while piece := content.read(_PIECE_BYTES):
            checksum = crc32(piece, checksum)
    return state.st_mtime_ns % _SECOND == checksum % _SECOND


def _mark(path: Path, checksum: int) -> None:
    """Give a written file the time of change that `is_unchanged` knows it by."""
    second = path.stat().st_mtime_ns // _SECOND * _SECOND
    os.utime(path, ns=(second, second + checksum % _SECOND))


def _names(path: Path) -> Iterator[Path]:
    """Yield *path*, and the names to take instead of it: may.rejects-2.csv, may.rejects-3.csv."""
    yield path
    for place in count(2):
        yield path.with_name(f"{path.stem}-{place}{path.suffix}")


def _own_places(header: Header) -> set[int]:
    return {header.places[name] for name in OWN if name in header.places}
