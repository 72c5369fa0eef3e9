"""Makes a message of each record of a list, or says why there is none."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

from msgspec import Struct

from dispatcher.core.language import _
from dispatcher.core.number import DoubtfulNumber, ReadNumber, read_number
from dispatcher.core.stored_texts import stored_text
from dispatcher.core.templates import MAX_VARIABLES, Template, plain_code, template_mismatch
from dispatcher.lists.cells import (
    DATE_DOUBT,
    MANY_DIGITS,
    ROUNDED,
    Record,
    has_taken_in,
    swallowed,
)
from dispatcher.lists.header import OWN, shown_names
from dispatcher.lists.reading import OpenedList
from dispatcher.lists.times import read_time

TEXTS: Final = (
    "app", "sender", "recipient", "template_id", "signature", "idempotency_key", "reference",
    "campaign",
)  # fmt: skip
COLUMNS: Final = (  # as Line.values has them
    *TEXTS, "params", "priority", "send_at", "expires_at",
)  # fmt: skip

_APP = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_CHARACTERS = {
    "sender": 21, "template_id": 32, "signature": 32, "idempotency_key": 200, "reference": 200,
    "campaign": 100,
}  # fmt: skip
# What a spreadsheet writes where a formula has no result; ### where a column is too narrow.
_ERROR = re.compile(
    r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|SPILL!|CALC!|FIELD!|ERROR!)|##+|Err:5[0-9]{2}"
)
_FORMULA_TEXT = re.compile(r'=\s*"((?:[^"]|"")*)"\s*')
_ARRAY_ITEM = re.compile(
    # Nothing is tried twice: a cell may have 32,767 blanks. Possessive are classes of characters
    # alone: of groups, Python before 3.11.5 captures wrongly what they match.
    r'\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*)"|((?:[^",{}\\\s]++|\\.|\s++(?![\s,]|$))*))\s*+(,|$)'
)


_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL and halves of characters: PostgreSQL takes none
_TIMES = ("send_at", "expires_at")
_CODES = frozenset({"app", "sender", "template_id", "priority", *_TIMES})  # cells that are no texts
_AROUND = "\ufeff\u200b\x1a"  # the mark of a file's begin or end, in its middle; an unseen blank
_PLAIN_CELLS = frozenset({*TEXTS, "priority", *_TIMES}) - {"recipient"}


class _SwallowedError(Exception):
    """A record is several lines that a wrong quote made one; the text says so."""


class Whole(Struct, frozen=True):
    """What the user says of all messages of a list; a cell of the list says otherwise."""

    template: str | None = None
    params: tuple[str, ...] = ()
    app: str | None = None
    sender: str | None = None
    signature: str | None = None
    reference: str | None = None
    priority: str | None = None
    send_at: str | None = None
    expires_at: str | None = None
    zone: tzinfo | None = None  # of times that name none


class Line(Struct, frozen=True):
    """One record of the file and the message that it asks for."""

    number: int  # of its first line, as the file counts
    lines: int  # how many lines it stands on
    cells: list[str]  # as they stand in the file, restored
    values: tuple[Any, ...]  # in the order of COLUMNS; empty: refused
    reason: str = ""  # why it is refused
    assumed_mainland: bool = False  # the number was written without its country
    respelled: bool = False  # the number was written in another spelling
    is_blank: bool = False


class MessageList:
    """The messages of an opened list; iterate it, as often as needed, for its lines."""

    def __init__(
        self,
        opened: OpenedList,
        whole: Whole,
        *,
        now: datetime,
        templates: Mapping[str, Template],
        other_mainland: bool = False,
    ) -> None:
        """*now* is the default of send_at; *templates* are those that operators have defined.

        Raises ValueError for what *whole* says wrongly.
        """
        self.header = opened.header
        self.delimiter = opened.sheet.delimiter
        self._opened = opened
        self._whole = whole
        self._now = now
        self._templates = templates
        self._other_mainland = other_mainland
        self._places = opened.header.places
        self._used = {place: name for name, place in self._places.items() if name not in OWN}
        self._width = len(opened.header.names)
        self._ragged = opened.encoding == "xlsx"  # a workbook leaves out cells that are empty
        self._of_rejects = opened.header.is_of_rejects
        self._plain = [
            (name, place) for name, place in self._places.items() if name in _PLAIN_CELLS
        ]
        self._params = [
            self._places[f"param_{number}"] for number in range(1, opened.header.variables + 1)
        ]
        given = {
            "sender": whole.sender,
            "template_id": whole.template,
            "signature": whole.signature,
            "reference": whole.reference,
        }
        self._given = {name: _tidy(name, text or "") or None for name, text in given.items()}
        self._app = _tidy("app", whole.app or "") or "default"
        _must_be_short(self._given)
        _must_be_text({**self._given, "param": "".join(whole.params)})
        self._priority = _priority(whole.priority or "5")
        self._send_at = _time("send_at", whole.send_at, whole.zone) or now
        self._expires_at = _time("expires_at", whole.expires_at, whole.zone)
        if self._params and whole.params:
            raise ValueError(_("--param is for lists without columns for variables"))
        if self._expires_at is not None and self._expires_at <= self._send_at:
            raise ValueError(_("expires_at is not after send_at"))

    def progress(self) -> float:
        """Return which share of the file is read."""
        return self._opened.sheet.progress()

    def __iter__(self) -> Iterator[Line]:
        """Yield every record after the header, blank ones too."""
        for record in self.records():
            yield from self.lines(record)

    def records(self) -> Iterator[Record]:
        """Yield every record after the header as it stands in the file."""
        data_from = self._opened.data_from
        return (record for record in self._opened.sheet if record.line >= data_from)

    def lines(self, record: Record) -> Iterator[Line]:
        """Yield the lines of a record: one, unless a wrong quote made one record of several."""
        try:
            yield self._line(record)
        except _SwallowedError as error:
            for place, text in enumerate(record.raw):
                cells = text.split(self.delimiter)
                yield Line(record.line + place, 1, cells, (), str(error))

    def _line(self, record: Record) -> Line:
        if record.is_blank:
            return Line(record.line, record.lines, [], (), is_blank=True)
        cells = self._restored(record.cells)
        if record.raw:
            self._must_not_swallow(record, cells)
        if record.trouble:
            return Line(record.line, record.lines, cells, (), record.trouble)
        try:
            self._must_be_whole(record, cells)
            self._must_hold_no_error(cells)
            self._must_not_be_rounded(cells)
            number = self._number(cells)
            values = self._values(cells, number.e164)
        except ValueError as error:
            return Line(record.line, record.lines, cells, (), str(error))
        written = cells[self._places["recipient"]]
        usual = written == number.e164 or written == number.e164[3:]
        return Line(
            record.line,
            record.lines,
            cells,
            values,
            assumed_mainland=number.assumed_mainland,
            respelled=not usual,
        )

    def _restored(self, cells: list[str]) -> list[str]:
        """Return the cells without what keeps a spreadsheet from changing them."""
        if "=" in "".join(cells):
            cells = [
                found[1].replace('""', '"') if (found := _FORMULA_TEXT.fullmatch(cell)) else cell
                for cell in cells
            ]
        if self._of_rejects:
            cells = [cell[1:] if cell[:1] == "'" else cell for cell in cells]
        return cells

    def _must_be_whole(self, record: Record, cells: list[str]) -> None:
        """Raise ValueError if a cell is missing, or is not what the sheet shows."""
        if len(cells) < self._width:
            if not self._ragged:
                raise ValueError(
                    _("it has {cells} cells, and the header has {width}").format(
                        cells=len(cells), width=self._width
                    )
                )
            cells += [""] * (self._width - len(cells))
        if len(cells) > self._width and any(cell.strip() for cell in cells[self._width :]):
            raise ValueError(
                _("it has {cells} cells, and the header has {width}").format(
                    cells=len(cells), width=self._width
                )
            )
        for place in self.header.unnamed:
            if cells[place].strip():
                raise ValueError(
                    _("column {value} has no name in the header, and here it is not empty").format(
                        value=place + 1
                    )
                )
        for place, doubt in record.doubts.items():
            name = self._used.get(place)
            if name and not (name in _TIMES and doubt == _(DATE_DOUBT)):
                raise ValueError(name + _(": ") + doubt)

    def _must_hold_no_error(self, cells: list[str]) -> None:
        """Raise ValueError if a cell is the error of a formula, as a CSV file has it."""
        joined = "".join(cells)
        if "#" not in joined and "Err:" not in joined:
            return
        for place, name in self._used.items():
            if _ERROR.fullmatch(error := cells[place].strip()):
                what = _("it holds the error {value}").format(value=shown_names([error]))
                raise ValueError(name + _(": ") + what)

    def _must_not_be_rounded(self, cells: list[str]) -> None:
        """Raise ValueError if a cell is a long number, such as of an order, in Excel's short form.

        That of the recipient is read by `read_number`.
        """
        if "E+" not in "".join(cells):
            return
        for place, name in self._used.items():
            if name != "recipient" and ROUNDED.fullmatch(cells[place].strip()):
                what = _("a spreadsheet has rounded it: format the column as text and export again")
                raise ValueError(name + _(": ") + what)

    def _must_not_swallow(self, record: Record, cells: list[str]) -> None:
        """Raise _SwallowedError if a cell over several lines has taken in lines of their own.

        So it is when two lines each have a quote that is wrong. The record may look well.
        """
        wrong = len(cells) < self._width or any(cell.strip() for cell in cells[self._width :])
        for place, cell in enumerate(cells):
            if place != self._places["recipient"] and "\n" in cell:
                lines = cell.split("\n")[1:]
                wrong |= any(MANY_DIGITS.search(line) for line in lines)
                wrong |= has_taken_in(cell, self.delimiter)
        if wrong:
            raise _SwallowedError(swallowed(record))

    def _number(self, cells: list[str]) -> ReadNumber:
        text = cells[self._places["recipient"]]
        if not text.strip():
            raise ValueError(_("recipient is missing"))
        read = read_number(text, other_mainland=self._other_mainland)
        if isinstance(read, DoubtfulNumber):
            raise ValueError(_("recipient: {reason}").format(reason=read.reason))  # noqa: TRY004 - a value's, not a type's
        return read

    def _values(self, cells: list[str], recipient: str) -> tuple[Any, ...]:
        """Return the values of one line; raises ValueError with the reason if it has none."""
        own = {name: text for name, place in self._plain if (text := _tidy(name, cells[place]))}
        _must_be_short(own)
        app = (own.get("app") or self._app).lower()
        if not _APP.fullmatch(app):
            raise ValueError(_("app is the name of no app: letters, digits, - and _"))
        texts = self._given | own
        template_id = texts["template_id"]
        if template_id is None:
            raise ValueError(_("template_id is missing"))
        params = self._variables(cells)
        template = self._templates.get(template_id)
        if template is not None and (
            mismatch := stored_text(template_mismatch(template, params) or "")
        ):
            raise ValueError(mismatch[0].lower() + mismatch[1:-1])
        priority, send_at, expires_at = self._priority, self._send_at, self._expires_at
        zone = self._whole.zone
        if "priority" in own:
            priority = _priority(own["priority"])
        if "send_at" in own:
            send_at = read_time("send_at", own["send_at"], zone)
        if "expires_at" in own:
            expires_at = read_time("expires_at", own["expires_at"], zone)
        if expires_at is not None:
            if expires_at <= send_at:
                raise ValueError(_("expires_at is not after send_at"))
            if expires_at <= self._now:
                raise ValueError(_("expires_at is past"))
        return (
            app,
            texts["sender"],
            recipient,
            template_id,
            texts["signature"],
            texts.get("idempotency_key"),
            texts["reference"],
            texts.get("campaign"),
            params,
            priority,
            send_at,
            expires_at,
        )

    def _variables(self, cells: list[str]) -> list[str]:
        if "params" in self._places:
            return read_array(cells[self._places["params"]].strip())
        if not self._params:
            return list(self._whole.params)
        values = [_stripped(cells[place]) for place in self._params]
        while values and not values[-1]:
            values.pop()  # a template with fewer variables than others in this file
        if "" in values:
            raise ValueError(
                _("param_{value} is empty, and one after it is not").format(
                    value=values.index("") + 1
                )
            )
        return values


def _stripped(cell: str) -> str:
    """Return a cell without what is not seen around its text."""
    text = cell.strip()
    return text if text.isascii() and text.isprintable() else text.strip(_AROUND).strip()


def _tidy(name: str, cell: str) -> str:
    """Return the text of a cell; a code or a time is in plain characters, and in seen ones only."""
    text = _stripped(cell)
    return text if text.isascii() or name not in _CODES else plain_code(text)


def read_array(text: str) -> list[str]:
    """Return the items of an array as PostgreSQL or JSON writes it; raises ValueError."""
    wrong = ValueError(_('params is no list, such as {4,East,062569} or ["4","East","062569"]'))
    if not text:
        return []
    if text[0] == "[":
        try:
            items = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            raise wrong from None
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ValueError(_("params: each item stands in quotes, so that 062569 keeps its zero"))
        if _NO_TEXT.search("".join(items)):
            raise ValueError(
                _("params: an item has \\u0000, or half of a character such as \\ud83d alone")
            )
    elif text[0] == "{" and text[-1] == "}":
        items = list(_items(text[1:-1], wrong)) if text[1:-1].strip() else []
    else:
        raise wrong
    if len(items) > MAX_VARIABLES:
        raise ValueError(
            _("params has more than {max_variables} variables").format(max_variables=MAX_VARIABLES)
        )
    return items


def _items(text: str, wrong: ValueError) -> Iterator[str]:
    at = 0
    while True:
        found = _ARRAY_ITEM.match(text, at)
        if found is None:
            raise wrong
        quoted, plain, end = found.groups()
        if quoted is None and (not plain or plain.upper() == "NULL"):
            raise wrong
        yield re.sub(r"\\(.)", r"\1", quoted if quoted is not None else plain)
        if not end:
            return
        at = found.end()


def _must_be_short(texts: Mapping[str, str | None]) -> None:
    """Raise ValueError if one of *texts* is longer than its column."""
    for name, text in texts.items():
        most = _MAX_CHARACTERS.get(name)
        if most is not None and text is not None and len(text) > most:
            raise ValueError(
                _("{name} has more than {most} characters").format(name=name, most=most)
            )


def _must_be_text(texts: Mapping[str, str | None]) -> None:
    """Raise ValueError if one of *texts*, as of a command line, holds what no text does."""
    for name, text in texts.items():
        if text is not None and _NO_TEXT.search(text):
            raise ValueError(_("{name} is not {encoding} text").format(name=name, encoding="UTF-8"))


def _priority(text: str) -> int:
    if len(text) != 1 or text not in "0123456789":
        raise ValueError(_("priority is 0 first to 9 last"))
    return int(text)


def _time(name: str, text: str | None, zone: tzinfo | None) -> datetime | None:
    return None if text is None else read_time(name, text, zone)
