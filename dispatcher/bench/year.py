"""A year of history, as it lies there: months that are full, indexed and vacuumed."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from dispatcher.bench.stage import make_indexes, statement
from dispatcher.db.database import OwnConnection, connect

MONTHS = 12
DAYS = 30.0  # of one month
AGE = 10.0  # days since the last message of it
AT_ONCE = 250_000  # messages of one statement
TIMEOUT = 3600.0
PARTS = ("messages", "keys", "batches", "outcomes", "reports")


class Size(Struct, frozen=True):
    """What a table and its partitions take on disk, in bytes."""

    heap: int
    indexes: int

    @property
    def whole(self) -> int:
        """Both together."""
        return self.heap + self.indexes


async def make_year(address: str, messages: int, say: Callable[[str], None]) -> None:
    """Fill a migrated, empty database with *messages* of the last year, all over."""
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        first = 1
        for month in range(MONTHS):
            await connection.execute(statement("make_partitions"), timeout=TIMEOUT)
            many = messages // MONTHS
            await _make_month(connection, first, many, month)
            first = await connection.fetchval(statement("keep_page"), first + many - 1)
            say(f"month {month + 1} of {MONTHS} is made")
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        await make_indexes(connection)
        say("its indexes are made")
        await connection.execute("VACUUM (ANALYZE)", timeout=TIMEOUT)
        await connection.execute("CHECKPOINT", timeout=TIMEOUT)
    finally:
        await connection.close()


async def _make_month(connection: OwnConnection, first: int, messages: int, month: int) -> None:
    length = DAYS / messages  # days of one message
    began = AGE + DAYS * (MONTHS - month)  # days ago
    for done in range(0, messages, AT_ONCE):
        many = min(AT_ONCE, messages - done)
        days = (began - done * length, many * length)
        for part in PARTS:
            given = days if part == "messages" else ()
            await connection.execute(
                statement(f"keep_{part}"), first + done, many, *given, timeout=TIMEOUT
            )


async def sizes(connection: OwnConnection) -> Mapping[str, Size]:
    """Return what each table takes on disk, its partitions included."""
    rows = await connection.fetch(statement("keep_sizes"))
    return {row["name"]: Size(row["heap"], row["indexes"]) for row in rows}
