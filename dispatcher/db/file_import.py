"""Imports message files by COPY and finds the rows that the database refuses."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg import Record
from msgspec import Struct

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.queries import sql

Row: TypeAlias = tuple[Any, ...]  # values in the order of the columns

SURVEY: Final = (
    "line", "lines", "app", "sender", "recipient", "template_id", "signature", "idempotency_key",
    "reference", "campaign", "params", "priority", "send_at", "expires_at",
)  # fmt: skip
REFUSED: Final = ("line", "lines", "reason")
RECENT_DAYS: Final = 6  # loads of the same rows are then likely a mistake; a weekly list is none
SHOWN_REPEATS: Final = 5  # lines
SHOWN_DIFFERENCES: Final = 5  # lines of a template, and templates


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


class EarlierLoad(Struct, frozen=True):
    """A load that put lines in that this file has too."""

    name: str  # of the file
    campaign: str | None
    started_at: datetime
    imported: int  # messages
    lines: int  # of this file that are among them
    compared: int  # lines of those that were compared with their variables


class Earlier(Struct, frozen=True):
    """Lines of a file that are in by earlier loads."""

    lines: int
    wiped: int  # lines of those whose variables could not be compared: they are deleted by now
    loads: list[EarlierLoad]  # the one with most lines first


class Difference(Struct, frozen=True):
    """Lines that have more or fewer variables than most lines of their template."""

    template_id: str
    variables: int  # of most lines
    shown: list[int]  # the first of the others
    lines: int  # how many those are


class Survey(Struct, frozen=True):
    """What a file holds as a whole."""

    repeats: int  # lines that repeat a number
    repeats_shown: list[tuple[int, int]]  # some of them, each with the first line that has it
    suppressed: int  # lines whose number is suppressed
    apps: dict[str, int]  # lines of each
    unknown_templates: dict[str, int]  # lines of each, if others are defined
    past: int  # messages whose time to be sent is past
    differences: list[Difference]  # of some templates that are not defined


class TakenOverError(ListError):
    """Another process imports the same file now; the text says what to do."""


async def database_time(connection: Connection) -> datetime:
    """Return the database's time, the one that decides when a message is due."""
    time: datetime = await connection.fetchval(sql("database_time"))
    return time


async def begin_import(
    connection: Connection,
    digest: str,
    name: str,
    campaign: str | None = None,
    *,
    replaced: Progress | None = None,
) -> Progress:
    """Return how far the load of the file with *digest* has come; begin it if nobody did.

    *replaced*: the load of this file that it replaces; if that has gone on since, so does this.
    """
    async with connection.transaction():
        if replaced is not None:
            place = (digest, replaced.started_at, replaced.lines)
            await connection.execute(sql("forget_import"), *place)
            await connection.execute(sql("set_import_aside"), *place)
        await connection.execute(sql("begin_import"), digest, name, campaign)
        row = await connection.fetchrow(sql("import_progress"), digest)
    return Progress(*row) if row else Progress()


async def known_import(connection: Connection, digest: str) -> Progress | None:
    """Return how far the load of the file with *digest* has come; None if it never began."""
    row = await connection.fetchrow(sql("import_progress"), digest)
    return Progress(*row) if row else None


async def is_in(connection: Connection, digest: str) -> bool:
    """Return whether any load of the file put lines in, or left out lines that are in."""
    found: bool = await connection.fetchval(sql("file_is_in"), digest)
    return found


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
        raise TakenOverError(_("another process is loading the same file: wait for that to end."))


async def record_rejections(connection: Connection, digest: str, first: int, last: int) -> None:
    """Note the refused lines of a batch, in the transaction of :func:`record_import`."""
    await connection.execute(sql("record_rejections"), digest, first, last)


async def rejections(
    connection: Connection, digest: str | None, first: int, last: int
) -> dict[int, str]:
    """Return the refused lines among those from *first* to *last*, each with its reason.

    They are those of all loads of the file with *digest*; without one, of this dry run.
    """
    if digest is None:
        rows = await connection.fetch(sql("refused_lines"), first, last)
    else:
        rows = await connection.fetch(sql("import_rejections"), digest, first, last)
    return {row["line"]: row["reason"] for row in rows}


async def finish_import(connection: Connection, digest: str) -> None:
    """Note that a file is in, whole."""
    await connection.execute(sql("finish_import"), digest)


async def make_survey(connection: Connection) -> None:
    """Make the tables for the lines of a file; they are dropped with the connection."""
    for table in ("survey_table", "refused_table", "left_out_table"):
        await connection.execute(sql(table))


async def add_to_survey(
    connection: Connection, good: Sequence[Row], refused: Sequence[Row]
) -> None:
    """Add good lines, with the columns SURVEY, and bad ones, with the columns REFUSED."""
    await connection.copy_records_to_table(
        "survey", schema_name="pg_temp", columns=SURVEY, records=good
    )
    if refused:
        await connection.copy_records_to_table(
            "refused", schema_name="pg_temp", columns=REFUSED, records=refused
        )


async def index_survey(connection: Connection) -> None:
    """Make lines quick to find."""
    for step in ("index_survey", "index_refused", "index_left_out", "analyze_survey"):
        await connection.execute(sql(step))


async def read_survey(connection: Connection, now: datetime) -> Survey:
    """Return what the lines are as a whole at *now*, without those that are left out."""
    shown = []
    if await connection.fetchval(sql("survey_has_repeats")):
        shown = await connection.fetch(sql("survey_repeats"), SHOWN_REPEATS)
    return Survey(
        shown[0]["repeats"] if shown else 0,
        [(row["line"], row["first"]) for row in shown],
        await connection.fetchval(sql("survey_suppressed")),
        dict(await connection.fetch(sql("survey_apps"))),
        dict(await connection.fetch(sql("survey_unknown_templates"))),
        await connection.fetchval(sql("survey_past"), now),
        [
            Difference(*row)
            for row in await connection.fetch(
                sql("survey_variable_counts"), SHOWN_DIFFERENCES, SHOWN_DIFFERENCES
            )
        ],
    )


async def find_earlier(
    connection: Connection, digest: str, done: int, *, anew: bool, rest: bool
) -> Earlier | None:
    """Return which lines after *done* are in by other loads; None if none is.

    Those are loads of the last days, and all of the same file. *anew*: the file is loaded from its
    beginning, and what its last load put in counts too. *rest*: only what is surely not in is to
    be loaded.
    """
    await connection.execute(sql("earlier_loads"), digest, RECENT_DAYS, anew)
    await connection.execute(sql("find_earlier"))
    await connection.execute(sql("find_already"), done, rest)
    await connection.execute(sql("find_taken_before"), digest, done)
    row = await connection.fetchrow(sql("already_imported"))
    loads = [EarlierLoad(*each) for each in await connection.fetch(sql("already_imported_by"))]
    return Earlier(row["lines"], row["wiped"], loads) if row and loads else None


async def cancelled_campaign(connection: Connection) -> str | None:
    """Return a cancelled campaign that lines name; None if there is none."""
    name: str | None = await connection.fetchval(sql("survey_cancelled"))
    return name


async def named_campaigns(connection: Connection) -> list[str]:
    """Return the campaigns that lines name, without those of lines that are left out."""
    return [row["campaign"] for row in await connection.fetch(sql("survey_campaigns"))]


async def leave_out_repeats(connection: Connection) -> None:
    """Leave out the lines that repeat the number of an earlier line."""
    await connection.execute(sql("leave_out_repeats"))


async def leave_out_earlier(connection: Connection) -> None:
    """Leave out the lines that :func:`find_earlier` found."""
    await connection.execute(sql("leave_out_imported"))


async def count_left_out(connection: Connection) -> int:
    """Return how many lines are left out."""
    count: int = await connection.fetchval(sql("count_left_out"))
    return count


async def make_dry_run(connection: Connection) -> None:
    """Make the table for a dry run; it is gone with the connection."""
    await connection.execute(sql("dry_run_table"))
    await connection.execute(sql("dry_run_without_ids"))
    await connection.execute(sql("index_survey_keys"))


async def insert_lines(  # noqa: PLR0917
    connection: Connection,
    first: int,
    last: int,
    campaign: str,
    wait: float,
    before: int,
    *,
    dry_run: bool = False,
) -> tuple[int, dict[int, str]]:
    """Insert the messages of the good lines from *first* to *last*, in the caller's transaction.

    Returns how many are in, and the lines that the database refused, with the reason. Each message
    is due *wait* seconds after the one before; *before* messages of the file are in already. One
    bad row fails the whole statement, so what failed is halved until the line stands alone: ten
    more statements for one bad row in a thousand, none where all are good.
    """
    statement = sql("check_lines" if dry_run else "import_lines")
    refused: dict[int, str] = {}
    inserted = 0
    waiting = [(first, last)]
    while waiting:
        begin, end = waiting.pop()
        try:
            async with connection.transaction():  # so that a caller's own goes on after a refusal
                done = await connection.execute(
                    statement, begin, end, campaign, wait, before + inserted
                )
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            if begin == end:
                refused[begin] = _reason(error)
            else:
                middle = (begin + end) // 2
                waiting += [(middle + 1, end), (begin, middle)]  # the first half next
        else:
            inserted += int(done.rpartition(" ")[2])
    return inserted, refused


async def refuse_lines(connection: Connection, refused: Mapping[int, str]) -> None:
    """Note good lines that the database has refused."""
    if refused:
        await connection.execute(sql("refuse_lines"), [*refused], [*refused.values()])


async def refuse_used_keys(
    connection: Connection, first: int, last: int, refused: Mapping[int, str]
) -> None:
    """Refuse lines of a dry run with an idempotency_key that a message or an earlier line has.

    *refused*: lines that the database refuses for something else.
    """
    reason = _SENTENCES["idempotency_key_was_used_before"]
    await connection.execute(sql("refuse_used_keys"), first, last, [*refused], reason)


async def count_lines(connection: Connection, first: int, last: int) -> tuple[int, int, int]:
    """Return how many lines from *first* to *last* are refused, are left out, and are in."""
    row = await connection.fetchrow(sql("count_lines"), first, last)
    assert row is not None  # noqa: S101 - a sum has always a row
    return row["refused"], row["left_out"], row["taken"]


async def taken_lines(connection: Connection, first: int, last: int) -> list[Record]:
    """Return the lines from *first* to *last* that a dry run would take: app, recipient, text."""
    return await connection.fetch(sql("taken_lines"), first, last)


async def due_times(
    connection: Connection, wait: float, done: int, before: int
) -> tuple[datetime, datetime] | None:
    """Return when the first and the last message of a dry run would be due; None if none is taken.

    *wait*: seconds from one message to the next. *done* lines, with *before* messages, are in.
    """
    row = await connection.fetchrow(sql("due_times"), wait, done, before)
    return (row[0], row[1]) if row and row[0] is not None else None


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
