"""The file of rejects: what was refused and why, to be corrected in a spreadsheet and loaded."""

import csv
import os
import re
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.header import OWN, Header
from dispatcher.lists.messages import Line

# A spreadsheet rounds long numbers, drops + and zeros in front, and turns 1-2 into a date: such
# cells are written as a formula that is a text. Short whole numbers stay as they are.
_CHANGED = re.compile(r"[+-]?[0-9][0-9A-Za-z+:/ .,%-]*")
_KEPT = re.compile(r"0|[1-9][0-9]{0,8}")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a cell of a formula may begin with


class RejectsFile:
    """The file of rejects of one load; made with the first refused line."""

    def __init__(self, path: Path, header: Header, *, delimiter: str = ",") -> None:
        self.path = path
        self._kept = [
            place for place in range(len(header.names)) if place not in _own_places(header)
        ]
        self._names = [safe_cell(header.names[place].replace('"', "")) for place in self._kept]
        self._delimiter = delimiter if delimiter in (",", ";", "\t") else ","
        self._width = len(header.names)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, refused: Iterable[tuple[Line, str]]) -> None:
        """Write lines and their reasons, and see them on the disk."""
        rows = [[str(line.number), reason, *self._cells(line)] for line, reason in refused]
        if not rows:
            return
        try:
            if self._file is None:
                self._file = self.path.open("wb")
                self._file.write(b"\xef\xbb\xbf")
                rows.insert(0, [*OWN, *self._names])
            text = StringIO(newline="")
            csv.writer(text, delimiter=self._delimiter).writerows(rows)
            # What is not UTF-8 is written with the bytes it had.
            self._file.write(text.getvalue().encode("utf-8", "surrogateescape"))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ListError(
                _(
                    "refused lines cannot be written to {path}: {strerror}. Name another place"
                    " with --rejects. Lines before the first refused one may be in already."
                ).format(path=self.path, strerror=error.strerror)
            ) from None

    def _cells(self, line: Line) -> list[str]:
        cells = [line.cells[place] for place in self._kept if place < len(line.cells)]
        return [safe_cell(cell) for cell in [*cells, *line.cells[self._width :]]]


def safe_cell(cell: str) -> str:
    """Return *cell* so that a spreadsheet shows it as it is, and runs nothing."""
    if _CHANGED.fullmatch(cell) and not _KEPT.fullmatch(cell):
        return f'="{cell}"'
    return "'" + cell if cell.startswith(_FORMULA) else cell


def _own_places(header: Header) -> set[int]:
    return {header.places[name] for name in OWN if name in header.places}
