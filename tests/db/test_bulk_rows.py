"""Messages that were inserted together wait together, and are claimed in their place."""

import pytest

FEW, MANY = 19, 20


async def bulk(db) -> list[tuple[int, int]]:
    """Return the first id and the size of each bulk row."""
    rows = await db.fetch("SELECT first_id, size FROM dispatcher.bulk ORDER BY first_id")
    return [(row["first_id"], row["size"]) for row in rows]


async def queue(db) -> list[int]:
    """Return the messages that wait alone."""
    return [row["id"] for row in await db.fetch("SELECT id FROM dispatcher.queue ORDER BY id")]


async def test_many_messages_of_one_insert_wait_in_one_row(db, rows):
    await rows.messages(MANY)
    assert (await bulk(db), await queue(db)) == ([(1, MANY)], [])
