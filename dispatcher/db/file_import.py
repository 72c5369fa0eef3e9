"""Imports message files by COPY and finds the rows that the database refuses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import asyncpg
from msgspec import Struct

from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.queries import sql

Row: TypeAlias = tuple[Any, ...]  # values in the order of the columns
Refused: TypeAlias = tuple[int, str]  # index of the row, and why

DRY_RUN = ("pg_temp", "dry_run")
MESSAGES = ("dispatcher", "message")
SURVEY: Final = (
    "line", "app", "sender", "recipient", "template_id", "signature", "reference", "params",
)  # fmt: skip
RECENT_DAYS: Final = 7  # loads of the same rows are then likely a mistake
SHOWN_REPEATS: Final = 5  # lines


class Progress(Struct, frozen=True):
    """How far the load of a file has come."""

    lines: int = 0  # number of the last line that is done
    imported: int = 0  # messages that are in
    imported_lines: int = 0  # on which they stand
    rejected: int = 0  # lines
    left_out: int = 0  # lines
    started_at: datetime | None = None
    finished_at: datetime | None = None
    campaign: str | None = None


class Earlier(Struct, frozen=True):
    """Lines of a file that are in by an earlier load."""

    lines: int
    name: str  # of the file with most of them
    started_at: datetime


class Survey(Struct, frozen=True):
    """What a file holds as a whole."""

    repeats: int  # lines that repeat a number
    repeats_shown: list[tuple[int, int]]  # some of them, each with the first line that has it
    suppressed: int  # lines whose number is suppressed
    apps: dict[str, int]  # lines of each
    unknown_templates: dict[str, int]  # lines of each, if others are defined


class TakenOverError(Exception):
    """Another process imports the same file now; the text says what to do."""


async def database_time(connection: Connection) -> datetime:
    """Return the database's time, the one that decides when a message is due."""
    time: datetime = await connection.fetchval(sql("database_time"))
    return time


async def begin_import(
    connection: Connection, digest: str, name: str, campaign: str | None = None
) -> Progress:
    """Return how far the load of the file with *digest* has come; begin it if nobody did."""
    await connection.execute(sql("begin_import"), digest, name, campaign)
    row = await connection.fetchrow(sql("import_progress"), digest)
    return Progress(*row) if row else Progress()


async def known_import(connection: Connection, digest: str) -> Progress | None:
    """Return how far the load of the file with *digest* has come; None if it never began."""
    row = await connection.fetchrow(sql("import_progress"), digest)
    return Progress(*row) if row else None


async def record_import(
    connection: Connection, digest: str, before: Progress, after: Progress
) -> None:
    """Note in the caller's transaction how far the load has come.

    Raises TakenOverError if it is not where the caller believes it to be.
    """
    row = await connection.fetchval(
        sql("record_import"),
        digest,
        before.lines,
        after.lines,
        after.imported,
        after.imported_lines,
        after.rejected,
        after.left_out,
    )
    if row is None:
        raise TakenOverError("another process is loading the same file: wait for that to end.")


async def record_rejections(
    connection: Connection, digest: str, refused: Sequence[Refused]
) -> None:
    """Note lines that were refused, in the transaction of :func:`record_import`."""
    if refused:
        lines, reasons = zip(*refused, strict=True)
        await connection.execute(sql("record_rejections"), digest, lines, reasons)


async def rejections(connection: Connection, digest: str, first: int, last: int) -> dict[int, str]:
    """Return the refused lines among those from *first* to *last*, each with its reason."""
    rows = await connection.fetch(sql("import_rejections"), digest, first, last)
    return {row["line"]: row["reason"] for row in rows}


async def finish_import(connection: Connection, digest: str) -> None:
    """Note that a file is in, whole."""
    await connection.execute(sql("finish_import"), digest)


async def forget_import(connection: Connection, digest: str) -> None:
    """Forget that a file was loaded, so that it can be loaded once more."""
    await connection.execute(sql("forget_import"), digest)


async def make_survey(connection: Connection) -> None:
    """Make the table for the lines of a file; it is dropped with the connection."""
    await connection.execute(sql("survey_table"))
    await connection.execute(sql("left_out_table"))


async def add_to_survey(connection: Connection, rows: Sequence[Row]) -> None:
    """Add lines, with the columns SURVEY."""
    await connection.copy_records_to_table(
        "survey", schema_name="pg_temp", columns=SURVEY, records=rows
    )


async def read_survey(connection: Connection) -> Survey:
    """Return what the lines are as a whole."""
    await connection.execute(sql("analyze_survey"))
    repeats = await connection.fetchval(sql("survey_repeats"))
    shown = await connection.fetch(sql("survey_repeats_shown"), SHOWN_REPEATS) if repeats else []
    return Survey(
        repeats,
        [(row["line"], row["first"]) for row in shown],
        await connection.fetchval(sql("survey_suppressed")),
        dict(await connection.fetch(sql("survey_apps"))),
        dict(await connection.fetch(sql("survey_unknown_templates"))),
    )


async def find_earlier(connection: Connection, digest: str, done: int) -> Earlier | None:
    """Return which lines after *done* are in by other loads of the last days; None if none is."""
    await connection.execute(sql("find_earlier"), digest, RECENT_DAYS)
    row = await connection.fetchrow(sql("already_imported"), done)
    return Earlier(*row) if row else None


async def leave_out_repeats(connection: Connection) -> None:
    """Leave out the lines that repeat the number of an earlier line."""
    await connection.execute(sql("leave_out_repeats"))


async def leave_out_earlier(connection: Connection, done: int) -> None:
    """Leave out the lines that :func:`find_earlier` found."""
    await connection.execute(sql("leave_out_imported"), done)


async def index_left_out(connection: Connection) -> None:
    """Make the lines to leave out quick to find."""
    await connection.execute(sql("index_left_out"))


async def left_out(connection: Connection, first: int, last: int) -> set[int]:
    """Return the lines to leave out among those from *first* to *last*."""
    rows = await connection.fetch(sql("lines_left_out"), first, last)
    return {row["line"] for row in rows}


async def make_dry_run(connection: Connection) -> None:
    """Make the table for a dry run; it is gone with the connection."""
    await connection.execute(sql("dry_run_table"))
    await connection.execute(sql("dry_run_without_ids"))


async def copy_messages(
    connection: Connection,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    into: tuple[str, str] = MESSAGES,
) -> list[Refused]:
    """Insert *rows* into ``dispatcher.message``; return those that the database refused.

    All others are in. One refused row fails its whole COPY, so what failed is halved until the
    row stands alone: ten more COPYs for one bad row in a thousand, none where all are good.
    """
    schema, table = into
    refused: list[Refused] = []
    waiting = [range(len(rows))]
    while waiting:
        part = waiting.pop()
        try:
            async with connection.transaction():  # so that a caller's own goes on after a refusal
                await connection.copy_records_to_table(
                    table,
                    schema_name=schema,
                    columns=columns,
                    records=rows[part.start : part.stop],
                )
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            if len(part) == 1:
                refused.append((part.start, _reason(error)))
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]  # the first half next: order is kept
    return refused


# What the reader of a list lets pass and the database refuses.
_SENTENCES: Final = {
    "idempotency_key_was_used_before": "its idempotency_key was used before",
    "expires_at_is_after_send_at": "expires_at is not after send_at",
}


def _reason(error: asyncpg.PostgresError | asyncpg.InterfaceError) -> str:
    """Return why a row was refused, without any value of it.

    The names of the constraints are written to be read: that is the reason.
    """
    match error:
        case asyncpg.NotNullViolationError(column_name=str(column)):
            return f"{column} is missing"
        case asyncpg.IntegrityConstraintViolationError(constraint_name=str(name)):
            return _SENTENCES.get(name, name.replace("_", " "))
        case _:
            return "it holds a value that PostgreSQL cannot store"
