"""The file of refused lines: each with its number and the reason, ready to be mended and loaded."""

import csv
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from dispatcher.cli.failure import Failure
from dispatcher.cli.message_file import Line

_OWN = ("line", "reason")


class Rejects:
    """The rejects file of one load; made with the first refused line, so that none means none."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self.path = path
        self.count = 0
        self._kept = [place for place, name in enumerate(header) if name not in _OWN]
        self._header = [header[place] for place in self._kept]
        self._file: TextIO | None = None

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
        """Write lines and their reasons."""
        for line, reason in refused:
            if self._file is None:
                self._file = _made(self.path)
                csv.writer(self._file).writerow([*_OWN, *self._header])
            kept = [line.cells[place] for place in self._kept if place < len(line.cells)]
            csv.writer(self._file).writerow([line.number, reason, *kept])
            self.count += 1


def _made(path: Path) -> TextIO:
    # As the lines came: what is no UTF-8 goes out with the bytes it had.
    try:
        return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise Failure(
            f"refused lines cannot be written to {path}: {error.strerror}. Name another place with"
            " --rejects. Lines before the first refused one may be in already."
        ) from None
