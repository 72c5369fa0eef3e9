"""Imports message files by COPY and finds the rows that the database refuses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
from msgspec import Struct

from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.queries import sql

Row: TypeAlias = tuple[Any, ...]  # values in the order of the columns
Refused: TypeAlias = tuple[int, str]  # index of the row, and why

DRY_RUN = ("pg_temp", "dry_run")
MESSAGES = ("dispatcher", "message")


class Progress(Struct, frozen=True):
    """How far the import of a file has come."""

    lines: int = 0  # records of the file, header excluded
    imported: int = 0  # messages that were inserted
    rejected: int = 0
    rejects_bytes: int = 0  # of the rejects file
    finished_at: datetime | None = None


class TakenOverError(Exception):
    """Another process imports the same file now; the text says what to do."""


async def database_time(connection: Connection) -> datetime:
    """Return the database's time, the one that decides when a message is due."""
    time: datetime = await connection.fetchval(sql("database_time"))
    return time


async def begin_import(connection: Connection, digest: str, name: str) -> Progress:
    """Return how far the import of the file with *digest* has come; begin it if it is new."""
    await connection.execute(sql("begin_import"), digest, name)
    row = await connection.fetchrow(sql("import_progress"), digest)
    return Progress(*row) if row else Progress()


async def record_import(
    connection: Connection, digest: str, before: Progress, after: Progress
) -> None:
    """Record in the caller's transaction how far the import has come.

    Raises TakenOverError if it is not where the caller believes it to be.
    """
    row = await connection.fetchval(
        sql("record_import"),
        digest,
        before.lines,
        after.lines,
        after.imported,
        after.rejected,
        after.rejects_bytes,
    )
    if row is None:
        raise TakenOverError("another process is loading the same file: wait for that to end.")


async def finish_import(connection: Connection, digest: str) -> None:
    """Record that the whole file was imported."""
    await connection.execute(sql("finish_import"), digest)


async def forget_import(connection: Connection, digest: str) -> None:
    """Delete the record of an import, so that the file can be imported once more."""
    await connection.execute(sql("forget_import"), digest)


async def make_dry_run(connection: Connection) -> None:
    """Make the table for a dry run; it is dropped with the connection."""
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


def _reason(error: asyncpg.PostgresError | asyncpg.InterfaceError) -> str:
    """Return why a row was refused, without any value of it.

    The names of the constraints are written to be read: that is the reason.
    """
    match error:
        case asyncpg.NotNullViolationError(column_name=str(column)):
            return f"{column} is missing"
        case asyncpg.IntegrityConstraintViolationError(constraint_name=str(name)):
            return name.replace("_", " ")
        case _:
            return "it holds a value that PostgreSQL cannot store"
