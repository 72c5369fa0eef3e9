"""Puts many messages into the database by COPY, and finds the ones it refuses."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg

from dispatcher.db.pool import OwnConnection as Connection
from dispatcher.db.statements import sql

Row: TypeAlias = tuple[Any, ...]  # values in the order of the columns
Refused: TypeAlias = tuple[int, str]  # index of the row, and why


async def database_time(connection: Connection) -> datetime:
    """Return the database's time, the one that decides when a message is due."""
    time: datetime = await connection.fetchval(sql("database_time"))
    return time


async def copy_messages(
    connection: Connection, columns: Sequence[str], rows: Sequence[Row]
) -> list[Refused]:
    """Insert *rows* into ``dispatcher.message``; return those that the database refused.

    All others are in. One refused row fails its whole COPY, so what failed is halved until the
    row stands alone: ten more COPYs for one bad row in a thousand, none where all are good.
    """
    refused: list[Refused] = []
    waiting = [range(len(rows))]
    while waiting:
        part = waiting.pop()
        try:
            await connection.copy_records_to_table(
                "message",
                schema_name="dispatcher",
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
