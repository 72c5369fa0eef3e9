"""The file of refused lines: each with its number and the reason, ready to be mended and loaded."""

import csv
import os
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from dispatcher.cli.failure import Failure
from dispatcher.cli.message_file import Line

_OWN = ("line", "reason")


class Rejects:
    """The rejects file of one load; made with the first refused line, so that none means none.

    A load that goes on where it was cut short keeps the first *size* bytes: what stands behind
    them is of lines that are not in the database yet, and come again.
    """

    def __init__(self, path: Path, header: list[str], *, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._kept = [place for place, name in enumerate(header) if name not in _OWN]
        self._header = [header[place] for place in self._kept]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.size:
            self._file = _opened(self.path, "r+b")
            if self._file.seek(0, os.SEEK_END) < self.size:
                self._file.close()
                raise Failure(
                    f"{self.path} is shorter than it was when this load was cut short: bring it"
                    " back, or name the right one with --rejects."
                )
            self._file.truncate(self.size)
            self._file.seek(self.size)
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

    def add(self, refused: Iterable[tuple[Line, str]]) -> int:
        """Write lines and their reasons, and see them on the disk; return how many."""
        count = 0
        text = StringIO(newline="")
        writer = csv.writer(text)
        for line, reason in refused:
            kept = [line.cells[place] for place in self._kept if place < len(line.cells)]
            writer.writerow([line.number, reason, *kept])
            count += 1
        if count:
            self._write(text.getvalue())
        return count

    def _write(self, text: str) -> None:
        if self._file is None:
            self._file = _opened(self.path, "wb")
            head = StringIO(newline="")
            csv.writer(head).writerow([*_OWN, *self._header])
            text = head.getvalue() + text
        # As the lines came: what is no UTF-8 goes out with the bytes it had.
        self.size += self._file.write(text.encode("utf-8", "surrogateescape"))
        self._file.flush()
        os.fsync(self._file.fileno())


def _opened(path: Path, mode: str) -> IO[bytes]:
    try:
        file: IO[bytes] = path.open(mode)
    except OSError as error:
        raise Failure(
            f"refused lines cannot be written to {path}: {error.strerror}. Name another place with"
            " --rejects. Lines before the first refused one may be in already."
        ) from None
    return file
