"""Lets time pass faster: what decides is the database's clock, so its times are moved instead."""

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
