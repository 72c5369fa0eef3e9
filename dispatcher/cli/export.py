"""``dispatcher export``: the results of messages, as CSV, JSON or Excel."""

import csv
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from dispatcher.cli.campaign import complete_campaign
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection

COLUMNS: Final = (
    "id", "app", "campaign", "recipient", "template_id", "reference", "state", "code", "reason",
    "segments", "queued_at", "accepted_at", "finished_at", "provider_id", "cost", "currency",
)  # fmt: skip
MAX_SHEET_ROWS: Final = 1_048_576  # of Excel, the header included
_RECIPIENT, _SEGMENTS = COLUMNS.index("recipient"), COLUMNS.index("segments")
_TIMES = [COLUMNS.index(name) for name in ("queued_at", "accepted_at", "finished_at")]
_MAINLAND = "+86"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell of a formula may begin with
_NUMBER = re.compile(r"[+-]?[0-9.*]+")  # a number, or one that is masked

Write = Callable[[tuple[Any, ...]], object]


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
    app: Annotated[str | None, typer.Option(metavar="APP", help="Only of it.")] = None,
    state: Annotated[State | None, typer.Option(help="Only messages in it now.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those inserted since: 2026-01-31T09:00:00+08:00."),
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
            "say what to export: --campaign, --app, --state or --since.", code=USED_WRONGLY
        )
    begin = _time(since)
    suffix = file.suffix.lower() if file is not None else ".json" if json else ".csv"
    if suffix not in (".csv", ".json", ".xlsx"):
        raise CommandError("FILE ends in .csv, .json or .xlsx.", code=USED_WRONGLY)

    async def work(connection: "Connection") -> int:
        from dispatcher.db import campaigns

        if campaign is not None and await campaigns.find(connection, campaign) is None:
            raise CommandError(f"there is no campaign {campaign}: see `dispatcher campaign list`.")
        if full:
            what = " ".join(
                f"{name}={value}"
                for name, value in (("campaign", campaign), ("app", app), ("state", state),
                                    ("since", since))
                if value is not None
            )  # fmt: skip
            await operator.record_export(connection, who, what)
        rows = campaigns.export(
            connection, campaign=campaign, app=app, state=state and state.value, since=begin
        )
        costs = await _Costs.read(connection)
        with _writer(file, suffix) as write:
            return await _copy(rows, write, costs, full=full)

    count = with_database(work)
    if file is not None:
        typer.echo(f"{plural(count, 'message')} in {file}.")


class _Costs:
    """What segments cost; the country of a mainland number needs no look-up."""

    def __init__(self, prices: dict[str, tuple[Decimal, str]]) -> None:
        self._prices = prices

    @classmethod
    async def read(cls, connection: "Connection") -> "_Costs":
        from dispatcher.db.cost import prices

        return cls(await prices(connection))

    def of(self, recipient: str, segments: int | None) -> tuple[str, str]:
        from dispatcher.core.country import country

        if not self._prices or not segments:
            return "", ""
        bare = recipient[:1] != "+" or recipient.startswith(_MAINLAND)
        price = self._prices.get("CN" if bare else country(recipient))
        return (str(price[0] * segments), price[1]) if price else ("", "")


async def _copy(
    rows: AsyncIterator[tuple[Any, ...]], write: Write, costs: _Costs, *, full: bool
) -> int:
    from dispatcher.core.format import mask

    count = 0
    async for row in rows:
        recipient = row[_RECIPIENT]
        cost = costs.of(recipient, row[_SEGMENTS])
        cells = [*row, *cost]
        for place in _TIMES:
            if cells[place] is not None:
                cells[place] = cells[place].astimezone().isoformat(timespec="seconds")
        cells[_RECIPIENT] = recipient if full else mask(recipient)
        write(tuple(cells))
        count += 1
    return count


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
            f"the export cannot be written to {file or 'stdout'}: {error.strerror}."
        ) from None


def _text(stream: TextIO, suffix: str) -> Write:
    if suffix == ".json":
        import msgspec

        encode = msgspec.json.Encoder().encode
        return lambda row: stream.write(
            encode(dict(zip(COLUMNS, row, strict=True))).decode() + "\n"
        )
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    return lambda row: writer.writerow(
        [_harmless(cell) if isinstance(cell, str) else cell for cell in row]
    )


def _harmless(cell: str) -> str:
    """Return *cell*, with an apostrophe where a spreadsheet would take it for a formula."""
    return "'" + cell if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


@contextmanager
def _sheet(file: Path) -> Iterator[Write]:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("messages")
    rows = 0

    def write(row: tuple[Any, ...]) -> None:
        nonlocal rows
        rows += 1
        if rows > MAX_SHEET_ROWS:
            raise CommandError(
                f"a sheet of Excel has at most {MAX_SHEET_ROWS - 1:,} messages: export as .csv."
            )
        sheet.append(row)

    write(COLUMNS)
    yield write
    book.save(file)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    from dispatcher.lists.times import read_time

    try:
        return read_time("--since", text, None)
    except ValueError as error:
        raise CommandError(f"{error}.", code=USED_WRONGLY) from None
