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
    """How far the load of a file has come."""

    lines: int = 0  # records of the file, header excluded
    taken: int = 0  # messages that are in
    refused: int = 0
    rejects_bytes: int = 0  # of the rejects file
    ended_at: datetime | None = None


class TakenOverError(Exception):
    """Another process imports the same file now; the text says what to do."""


async def database_time(connection: Connection) -> datetime:
    """Return the database's time, the one that decides when a message is due."""
    time: datetime = await connection.fetchval(sql("database_time"))
    return time


async def begin_load(connection: Connection, digest: str, name: str) -> Progress:
    """Return how far the load of the file with *digest* has come; begin it if nobody did."""
    await connection.execute(sql("load_begin"), digest, name)
    row = await connection.fetchrow(sql("load_progress"), digest)
    return Progress(*row) if row else Progress()


async def step_load(connection: Connection, digest: str, before: Progress, after: Progress) -> None:
    """Note in the caller's transaction how far the load has come.

    Raises TakenOverError if it is not where the caller believes it to be.
    """
    row = await connection.fetchval(
        sql("load_step"),
        digest,
        before.lines,
        after.lines,
        after.taken,
        after.refused,
        after.rejects_bytes,
    )
    if row is None:
        raise TakenOverError("another process is loading the same file: wait for that to end.")


async def end_load(connection: Connection, digest: str) -> None:
    """Note that a file is in, whole."""
    await connection.execute(sql("load_end"), digest)


async def forget_load(connection: Connection, digest: str) -> None:
    """Forget that a file was loaded, so that it can be loaded once more."""
    await connection.execute(sql("load_forget"), digest)


async def make_dry_run(connection: Connection) -> None:
    """Make the table for a dry run; it is gone with the connection."""
    await connection.execute(sql("load_dry_table"))
    await connection.execute(sql("load_dry_id"))


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
