"""``dispatcher export``: the results of messages, as CSV, JSON or Excel."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, ZipFile

import typer

from dispatcher.cli.completion import complete_app, complete_campaign
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, check_app_exists, operator_name
from dispatcher.cli.spans import begin_of
from dispatcher.core.errors import os_reason
from dispatcher.core.language import ENGLISH, _, use_language

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection

COLUMNS: Final = (
    "id", "app", "campaign", "recipient", "template_id", "reference", "state", "code", "reason",
    "segments", "queued_at", "accepted_at", "finished_at", "provider_id", "cost", "currency",
)  # fmt: skip
MAX_TIMES: Final = 100_000  # kept
MAX_SHEET_ROWS: Final = 1_048_576  # of Excel, the header included
_ID, _RECIPIENT, _REASON, _SEGMENTS, _PROVIDER_ID, _COST = map(
    COLUMNS.index, ("id", "recipient", "reason", "segments", "provider_id", "cost")
)
_TIMES = [COLUMNS.index(name) for name in ("queued_at", "accepted_at", "finished_at")]
_WORDS = [  # of others: they may look like a formula
    COLUMNS.index(name)
    for name in ("app", "campaign", "template_id", "reference", "code", "reason", "provider_id")
]
_NUMERIC = {_ID, _SEGMENTS, _COST}
_MAX_EXACT_DIGITS: Final = 15  # of a number in a sheet
_MAINLAND = "+86"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell of a formula may begin with
_NUMBER = re.compile(r"[+-]?[0-9.*]+")  # a number, or one that is masked
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")  # Excel shows _x0041_ as A
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SHEET_PART: Final = "xl/worksheets/sheet1.xml"

Row = list[str]
Write = Callable[[list[Row]], object]


class State(StrEnum):
    """The state of a message."""

    QUEUED = "queued"
    SENDING = "sending"
    UNSURE = "unsure"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"


def export(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Ending in .csv, .json or .xlsx; else CSV to stdout."),
    ] = None,
    *,
    campaign: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only of it.", autocompletion=complete_campaign),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(metavar="APP", help="Only of it.", autocompletion=complete_app),
    ] = None,
    state: Annotated[
        State | None,
        typer.Option(
            metavar="STATE",
            help="Only messages in it now: queued, sending, unsure, accepted, delivered,"
            " undelivered, rejected, expired, cancelled or lost.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only those inserted since: 2h, 3d, or a time with its zone."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON to stdout, an object a line.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Whole numbers; the audit log records it.")
    ] = False,
    as_: As = None,
) -> None:
    """Export the results of messages: CSV, JSON or Excel.

    Each has its state, code, meaning, times, segments and cost.
    Numbers are masked without --full. Costs need prices: `dispatcher cost`.
    Without FILE it writes to stdout.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.format import plural
    from dispatcher.db import operator

    who = operator_name(as_)
    if all(condition is None for condition in (campaign, app, state, since)):
        raise CommandError(
            _("say what to export: --campaign, --app, --state or --since."), code=USED_WRONGLY
        )
    begin = begin_of("--since", since) if since else None
    suffix = file.suffix.lower() if file is not None else ".json" if json else ".csv"
    if suffix not in (".csv", ".json", ".xlsx"):
        raise CommandError(_("FILE ends in .csv, .json or .xlsx."), code=USED_WRONGLY)

    async def work(connection: "Connection") -> int:
        from dispatcher.db import campaigns
        from dispatcher.db.cost import prices

        if campaign is not None and await campaigns.find(connection, campaign) is None:
            raise CommandError(
                _("there is no campaign {campaign}: see `dispatcher campaign list`.").format(
                    campaign=campaign
                )
            )
        if full:
            what = " ".join(
                f"{name}={value}"
                for name, value in (("campaign", campaign), ("app", app), ("state", state),
                                    ("since", since))
                if value is not None
            )  # fmt: skip
            await operator.record_export(connection, who, what)
        known_prices = await prices(connection)
        rows = _Rows(known_prices, full=full)
        if suffix == ".json":
            use_language(ENGLISH)  # programs read it
        with _writer(file, suffix) as write:

            async def write_rows(some: list[Row]) -> None:
                write(rows.finished(some))

            await campaigns.export(
                connection,
                write_rows,
                campaign=campaign,
                app=app,
                state=state and state.value,
                since=begin,
                charged=bool(known_prices),
            )
        if app is not None and not rows.count:  # a misspelt app, or one without messages
            await check_app_exists(connection, app)
        return rows.count

    count = with_database(work)
    if file is not None:
        typer.echo(_("{count} in {file}.").format(count=plural(count, "message"), file=file))


class _Rows:
    """Finishes rows as the database sends them: numbers masked, times in words, costs."""

    def __init__(self, prices: Mapping[str, tuple[Decimal, str]], *, full: bool) -> None:
        self.count = 0
        self._prices = prices
        self._full = full
        self._times = {"": ""}  # few: many messages have the same second
        self._costs: dict[tuple[str, str], Row] = {}  # by country and charged segments

    def finished(self, rows: list[Row]) -> list[Row]:
        """Return *rows* with all of COLUMNS."""
        from dispatcher.core.format import mask, mask_if_number
        from dispatcher.core.stored_texts import stored_text

        self.count += len(rows)
        if len(self._times) > MAX_TIMES:
            self._times = {"": ""}
        for row in rows:
            recipient = row[_RECIPIENT]
            row.extend(self._cost(recipient, row.pop()))
            for place in _TIMES:
                seconds = row[place]
                row[place] = self._times.get(seconds) or self._time(seconds)
            row[_REASON] = stored_text(row[_REASON])
            if not self._full:
                row[_RECIPIENT] = mask(recipient)
                row[_PROVIDER_ID] = mask_if_number(row[_PROVIDER_ID])
        return rows

    def _cost(self, recipient: str, charged: str) -> Row:
        from dispatcher.core.country import country

        if not self._prices or not charged:
            return ["", ""]
        bare = recipient[:1] != "+" or recipient.startswith(_MAINLAND)
        key = ("CN" if bare else country(recipient), charged)
        if key not in self._costs:
            price = self._prices.get(key[0])
            self._costs[key] = [str(price[0] * int(charged)), price[1]] if price else ["", ""]
        return self._costs[key]

    def _time(self, seconds: str) -> str:
        if not seconds:
            return ""
        time = datetime.fromtimestamp(int(seconds), UTC).astimezone()
        self._times[seconds] = text = time.isoformat(timespec="seconds")
        return text


@contextmanager
def _writer(file: Path | None, suffix: str) -> Iterator[Write]:
    """Give a function that writes a row to *file*, or to stdout."""
    try:
        if suffix == ".xlsx" and file is not None:
            with _sheet(file) as write:
                yield write
        elif file is None:
            yield _text(sys.stdout, suffix)
        else:
            # Excel takes a CSV file for UTF-8 only by its mark.
            encoding = "utf-8-sig" if suffix == ".csv" else "utf-8"
            with file.open("w", encoding=encoding, newline="") as stream:
                yield _text(stream, suffix)
    except OSError as error:
        raise CommandError(
            _("the export cannot be written to {file}: {strerror}.").format(
                file=file or "stdout", strerror=os_reason(error)
            )
        ) from None


def _text(stream: TextIO, suffix: str) -> Write:
    if suffix == ".json":
        return lambda rows: stream.write("".join(map(_object, rows)))
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    return lambda rows: writer.writerows(map(_harmless, rows))


def _object(row: Row) -> str:
    import msgspec

    values: dict[str, str | int | None] = {
        name: value or None for name, value in zip(COLUMNS, row, strict=True)
    }
    values["id"] = int(row[_ID])
    if row[_SEGMENTS]:
        values["segments"] = int(row[_SEGMENTS])
    return msgspec.json.encode(values).decode() + "\n"


def _harmless(row: Row) -> Row:
    """Return *row*, with an apostrophe where a spreadsheet would take a cell for a formula."""
    for place in _WORDS:
        cell = row[place]
        if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell):
            row[place] = "'" + cell
    return row


@contextmanager
def _sheet(file: Path) -> Iterator[Write]:
    """Give a function that writes rows to a workbook.

    openpyxl makes the workbook around the sheet, and takes 80 us for a row of it; this takes 15.
    """
    from openpyxl import Workbook
    from openpyxl.xml.constants import SHEET_MAIN_NS

    empty = io.BytesIO()
    Workbook().save(empty)
    count = 0

    def write(rows: list[Row]) -> None:
        nonlocal count
        count += len(rows)
        if count > MAX_SHEET_ROWS:
            raise CommandError(
                _("a sheet of Excel has at most {value} messages: export as .csv.").format(
                    value=f"{MAX_SHEET_ROWS - 1:,}"
                )
            )
        sheet.write("".join(map(_xml, rows)).encode())

    with ZipFile(empty) as made, ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) as book:
        for name in made.namelist():
            if name != _SHEET_PART:
                book.writestr(name, made.read(name))
        with book.open(_SHEET_PART, "w", force_zip64=True) as sheet:
            sheet.write(f'<worksheet xmlns="{SHEET_MAIN_NS}"><sheetData>'.encode())
            write([list(COLUMNS)])
            yield write
            sheet.write(b"</sheetData></worksheet>")


def _xml(row: Row) -> str:
    """Return *row* as a row of a sheet."""
    return f"<row>{''.join(_cell(place, text) for place, text in enumerate(row))}</row>"


def _cell(place: int, text: str) -> str:
    if not text:
        return "<c/>"
    if place in _NUMERIC and len(text) <= _MAX_EXACT_DIGITS and not text[0].isalpha():
        return f"<c><v>{text}</v></c>"
    if not text.isalnum():
        text = _ESCAPED.sub("_x005F_", _NOT_IN_XML.sub("", escape(text)))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
