"""Computes what a period cost from its batches, read in pieces of bounded size."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Final

from dispatcher.core.cost import Bill, BilledMessage
from dispatcher.db.database import Connection
from dispatcher.db.queries import sql

PIECE: Final = 40  # requests: at most 20,000 messages in memory
ERASED: Final = "0"  # the number of a message whose person was forgotten


async def bill_of(
    connection: Connection, begin: datetime, end: datetime, *, country: Callable[[str], str]
) -> Bill:
    """Return what was accepted of the requests opened from *begin* until *end*."""
    bill = await empty_bill(connection)
    last = 0
    while (
        after := await connection.fetchval(sql("next_billed_batch"), begin, end, last, PIECE)
    ) is not None:
        rows = await connection.fetch(sql("billed_messages"), begin, end, last, PIECE)
        bill.add(
            BilledMessage(row[1], "-" if row[2] == ERASED else country(row[2]), *tuple(row)[3:])
            for row in rows
        )
        last = after
    return bill


async def empty_bill(connection: Connection) -> Bill:
    """Return a bill without messages, with the texts and the prices that operators have set."""
    texts = {
        row["template_id"]: row["text"]
        for row in await connection.fetch(sql("templates"))
        if row["text"] is not None
    }
    return Bill(texts, await prices(connection))


async def prices(connection: Connection) -> dict[str, tuple[Decimal, str]]:
    """Return what a segment costs, with its currency, by country."""
    return {row[0]: (row[1], row[2]) for row in await connection.fetch(sql("prices"))}
