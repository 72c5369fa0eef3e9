"""Reads messages from a CSV file, line by line, with a reason for each bad line.

The header names columns of ``dispatcher.message``, in any order; template variables are in
``param_1``, ``param_2`` and so on. An empty cell takes the column's default. ``line`` and
``reason`` are ignored, so that a corrected rejects file can be imported as it is.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.core.number import DoubtfulNumber, read_number

TEXT_COLUMNS = (
    "app",
    "sender",
    "recipient",
    "template_id",
    "signature",
    "idempotency_key",
    "reference",
)
COLUMNS = (*TEXT_COLUMNS, "params", "priority", "send_at", "expires_at")  # as Line.values has them

UTF_8 = "utf-8-sig"  # with a byte order mark or without
REPLACEMENT_CHARACTER = "\ufffd"  # replaces bytes that cannot be decoded
_REQUIRED_COLUMNS = {"recipient", "template_id"}
_OPTIONAL_COLUMNS = {*COLUMNS, "line", "reason"} - _REQUIRED_COLUMNS - {"params"}


@dataclass(frozen=True, slots=True)
class Line:
    """One record of the file."""

    number: int  # of its first line, counted from 1, the header included
    cells: list[str]  # as in the file
    values: tuple[Any, ...]  # in the order of COLUMNS; empty if refused
    reason: str = ""  # why it is refused


class MessageFile:
    """An open CSV file with messages; iterate it for its lines."""

    def __init__(
        self,
        path: Path,
        stream: BinaryIO,
        now: datetime,
        *,
        encoding: str = UTF_8,
        other_mainland: bool = False,
    ) -> None:
        """Read the header; *now* is the default of send_at.

        *other_mainland*: see core.number.

        Raises :class:`CommandError` if the header is not one of messages.
        """
        # Undecodable bytes become surrogates or replacement characters; only their line is
        # refused.
        errors = "surrogateescape" if encoding == UTF_8 else "replace"
        text = io.TextIOWrapper(stream, encoding, errors=errors, newline="")
        self._encoding = encoding
        self._reader = csv.reader(text)
        self._now = now
        self._other_mainland = other_mainland
        self.header = [name.strip().lower() for name in next(self._reader, [])]
        self._places = {name: place for place, name in enumerate(self.header)}
        params = sum(name.startswith("param_") for name in self.header)
        self._params = [f"param_{number}" for number in range(1, params + 1)]
        missing = [f"has no column {name}" for name in sorted(_REQUIRED_COLUMNS - {*self.header})]
        unknown = [
            f"has an unknown column {name!r}"
            for name in self.header
            if name not in _REQUIRED_COLUMNS | _OPTIONAL_COLUMNS and name not in self._params
        ]
        twice = ["has a column twice"] if len(self._places) < len(self.header) else []
        for wrong in (missing + unknown + twice)[:1]:
            raise CommandError(
                f"the header of {path} {wrong}. It must name recipient and template_id, and may"
                " name param_1, param_2, ... and app, sender, signature, priority, send_at,"
                " expires_at, idempotency_key, reference.",
                code=USED_WRONGLY,
            )

    def __iter__(self) -> Iterator[Line]:
        """Yield the lines after the header."""
        while True:
            number = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(number, [], (), f"it is no CSV: {error}")
                continue
            if cells:  # a blank line is skipped
                yield self._line(number, cells)

    def _line(self, number: int, cells: list[str]) -> Line:
        try:
            return Line(number, cells, self._values(cells))
        except UnicodeEncodeError:
            return Line(number, cells, (), "it is not UTF-8 text")
        except ValueError as error:
            return Line(number, cells, (), str(error))

    def _values(self, cells: list[str]) -> tuple[Any, ...]:
        """Return the values of one line; raises ValueError with the reason to refuse it."""
        if len(cells) != len(self.header):
            raise ValueError(f"it has {len(cells)} cells, and the header has {len(self.header)}")
        joined = "".join(cells)
        joined.encode()  # raises UnicodeEncodeError for surrogates
        if self._encoding != UTF_8 and REPLACEMENT_CHARACTER in joined:
            raise ValueError(f"it is not {self._encoding} text")
        return (
            self._cell(cells, "app") or "default",
            self._cell(cells, "sender"),
            self._recipient(cells),
            *(self._cell(cells, name) for name in TEXT_COLUMNS[3:]),
            self._variables(cells),
            _priority(self._cell(cells, "priority") or "5"),
            _time("send_at", self._cell(cells, "send_at")) or self._now,
            _time("expires_at", self._cell(cells, "expires_at")),
        )

    def _cell(self, cells: list[str], name: str) -> str | None:
        place = self._places.get(name)
        return (cells[place].strip() or None) if place is not None else None

    def _recipient(self, cells: list[str]) -> str:
        read = read_number(cells[self._places["recipient"]], other_mainland=self._other_mainland)
        if isinstance(read, DoubtfulNumber):
            raise ValueError(f"recipient: {read.reason}")  # noqa: TRY004 - the text is wrong
        return read.e164

    def _variables(self, cells: list[str]) -> list[str]:
        values = [cells[self._places[name]] for name in self._params]  # not stripped
        while values and not values[-1]:
            values.pop()  # a template with fewer variables than others in this file
        if "" in values:
            raise ValueError(f"param_{values.index('') + 1} is empty, and one after it is not")
        return values


def _priority(text: str) -> int:
    if len(text) != 1 or text not in "0123456789":
        raise ValueError("priority is 0 first to 9 last")
    return int(text)


def _time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{name} is no time with its zone, such as 2026-01-31T09:00:00+08:00")
    return time
