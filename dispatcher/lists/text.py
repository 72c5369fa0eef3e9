"""Records of a CSV or text file. No line is lost, whatever its quotes are like."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.lists.cells import Record
from dispatcher.lists.encoding import UTF_8
from dispatcher.lists.header import Header

MAX_CELL_LINES = 50  # a cell over more lines is a quote that somewhere is not closed
MAX_LINE_CHARACTERS = 100_000  # a longer one is no line of a list
# csv refuses longer cells, of 131,072 characters by default, and no cell is longer than its lines.
csv.field_size_limit(MAX_CELL_LINES * (MAX_LINE_CHARACTERS + 2))
SPOOL_BYTES = 4_000_000  # lines within an open quote that are kept in memory
UNREADABLE = "\ufffd"  # stands for bytes that are no text
# The same in UTF-8: a surrogate for each byte. UTF-7 may have half of a character.
_NO_TEXT = re.compile("[\ud800-\udfff]")


class TextSheet:
    """An open text file; iterate it, as often as needed, for its records."""

    def __init__(self, path: Path, encoding: str, delimiter: str, *, skip: int = 0) -> None:
        """*skip*: how many lines at the beginning are none of the list, such as ``sep=;``."""
        self.delimiter = delimiter
        self._path = path
        self._encoding = encoding
        self._skip = skip
        self._size = max(1, path.stat().st_size)
        self._stream: IO[bytes] | None = None

    def progress(self) -> float:
        """Return which share of the file is read."""
        return self._stream.tell() / self._size if self._stream else 0.0

    def remarks(self, header: Header, data_from: int) -> list[str]:
        """Return nothing: a text hides nothing."""
        del header, data_from
        return []

    def __iter__(self) -> Iterator[Record]:
        """Yield the records from the first line on."""
        # Bytes that are no text become surrogates, or the sign for what cannot be read, and
        # refuse only their own line.
        errors = "surrogateescape" if self._encoding == UTF_8 else "replace"
        try:
            with self._path.open("rb") as stream:
                self._stream = stream
                text = io.TextIOWrapper(stream, self._encoding, errors=errors)
                lines = _numbered(text)
                if self._encoding != UTF_8:
                    lines = ((number, _NO_TEXT.sub(UNREADABLE, line)) for number, line in lines)
                for _skipped in range(self._skip):
                    next(lines, None)
                yield from self._records(lines)
                self._stream = None
        except OSError as error:
            raise unreadable(self._path, error) from None

    def _records(self, lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
        delimiter = self.delimiter
        for number, line in lines:
            if '"' not in line:
                yield Record(number, line.split(delimiter), trouble=self._trouble(line))
                continue
            block = [line]
            cells, is_open = parse(block, delimiter)
            while is_open and len(block) < MAX_CELL_LINES:
                _, following = next(lines, (0, None))
                if following is None:
                    break
                block.append(following)
                if '"' in following:
                    cells, is_open = parse(block, delimiter)
            if is_open:
                yield from self._within_quote(number, block, lines)
            else:
                raw = tuple(block) if len(block) > 1 else ()
                longest = max(block, key=len)
                whole = len(longest) < MAX_LINE_CHARACTERS
                trouble = self._trouble("".join(cells) if whole else longest)
                yield Record(number, cells, len(block), trouble=trouble, raw=raw)

    def _trouble(self, text: str) -> str | None:
        """Return why a record that holds *text* is no text; None: it is."""
        if len(text) >= MAX_LINE_CHARACTERS:
            return _("it has more than {max_line_characters} characters").format(
                max_line_characters=f"{MAX_LINE_CHARACTERS:,}"
            )
        if "\0" in text:
            return _("it holds NUL bytes: the file was damaged there")
        if "\x1b" in text:  # ISO-2022-JP is ASCII, with ESC where Japanese begins and ends
            return _(
                "it has an ESC character, which no text has: save the file as UTF-8, or give its"
                " encoding, such as iso-2022-jp"
            )
        if text.isascii():
            return None
        if self._encoding != UTF_8:
            return (
                _("it is not {encoding} text").format(encoding=self._encoding)
                if UNREADABLE in text
                else None
            )
        return _("it is not UTF-8 text") if _NO_TEXT.search(text) else None

    def _within_quote(
        self, first: int, block: list[str], lines: Iterator[tuple[int, str]]
    ) -> Iterator[Record]:
        """Yield every line from an open quote on, to where one closes it or to the end."""
        count, closed = 0, False
        with SpooledTemporaryFile(
            SPOOL_BYTES, "w+", encoding="utf-8", errors="surrogatepass", newline="\n"
        ) as kept:
            for line in chain(block, (text for _, text in lines)):
                kept.write(line.replace("\n", "") + "\n")
                count += 1
                if count > len(block) and '"' in line.replace('""', ""):
                    closed = True
                    break
            ends = (
                _("is closed only in line {value}").format(value=f"{first + count - 1:,}")
                if closed
                else _("is never closed")
            )
            why = (
                _("a quote opened in line {first} {ends}: {count} line was read as one cell")
                if count == 1
                else _("a quote opened in line {first} {ends}: {count} lines were read as one cell")
            ).format(
                first=f"{first:,}",
                ends=ends,
                count=f"{count:,}",
            )
            kept.seek(0)
            for place in range(count):
                cells = kept.readline().removesuffix("\n").split(self.delimiter)
                yield Record(first + place, cells, trouble=why, open_quote=True)


def unreadable(path: Path, error: OSError) -> ListError:
    """Return the error of a file that cannot be read."""
    return ListError(
        _("{path} cannot be read: {strerror}.").format(path=path, strerror=error.strerror)
    )


def parse(block: list[str], delimiter: str) -> tuple[list[str], bool]:
    """Return the cells of a record that stands on the lines of *block*; True: a quote is open."""
    lines = [*(line + "\n" for line in block), "\n"]
    # Blanks in front of a cell are none of its text, so a quote behind them is one around it.
    reader = csv.reader(lines, delimiter=delimiter, quotechar='"', skipinitialspace=True)
    cells = next(reader)
    # Only a quote that is still open makes the reader ask for the line after the block.
    return cells, reader.line_num > len(block)


def _numbered(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Yield the lines without their ends, each with its number; long ones only in part."""
    number = 0
    while line := text.readline(MAX_LINE_CHARACTERS):
        number += 1
        if line.endswith("\n"):
            line = line[:-1]
        else:
            quotes = 0
            while rest := text.readline(MAX_LINE_CHARACTERS):
                quotes += rest.count('"')
                if rest.endswith("\n"):
                    break
            line += '"' * (quotes % 2)  # a cell that the part left out closes is not left open
        yield number, line
