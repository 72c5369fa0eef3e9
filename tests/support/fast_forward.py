"""Lets time pass faster: what decides is the database's clock, so its times are moved instead."""

from collections.abc import Collection

import asyncpg


async def let_pass(db: asyncpg.Connection, seconds: float) -> None:
    """Move all that waits for a time nearer by *seconds*: as if so much time had passed.

    Not the heartbeats: whether a worker lives is not a question of patience.
    """
    async with db.transaction():
        for table in ("queue", "bulk"):
            await db.execute(
                f"UPDATE dispatcher.{table} SET due_at = due_at - make_interval(secs => $1)"
                " WHERE due_at > clock_timestamp()",
                seconds,
            )
        await db.execute(
            "UPDATE dispatcher.app SET probe_at = probe_at - make_interval(secs => $1)"
            " WHERE probe_at > clock_timestamp()",
            seconds,
        )
        await db.execute(
            "UPDATE dispatcher.country_pause SET until = until - make_interval(secs => $1)", seconds
        )


async def forget_heartbeat(db: asyncpg.Connection, worker: int) -> None:
    """Let the lease of a dead worker run out at once."""
    await db.execute(
        "UPDATE dispatcher.worker SET heartbeat_at = heartbeat_at - 2 * lease WHERE id = $1", worker
    )


FAR_SECONDS = 1000 * 365 * 86_400.0  # from all that is stored
STORED = """
    SELECT c.relname AS table, a.attname AS column,
        EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = c.oid AND i.indisunique AND a.attnum = ANY (i.indkey)
        ) AS is_key
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p')
      AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid = 'timestamptz'::regtype
"""


async def make_older(db: asyncpg.Connection, seconds: float, *, but: Collection[str] = ()) -> None:
    """Move all that is stored, except in some tables, so many seconds into the past."""
    columns = await db.fetch(STORED)
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = '10s'")
        for table in sorted({row["table"] for row in columns} - {*but}):
            own = [row for row in columns if row["table"] == table]
            changes = ", ".join(
                f"{row['column']} = {row['column']} - make_interval(secs => $1)" for row in own
            )
            # A key is unique after each row, so none may move to where another still is.
            far = any(row["is_key"] for row in own)
            for step in (FAR_SECONDS + seconds, -FAR_SECONDS) if far else (seconds,):
                await db.execute(f"UPDATE dispatcher.{table} SET {changes}", step)
