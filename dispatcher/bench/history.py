"""Makes a year of history: twelve full partitions, indexed and vacuumed."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from dispatcher.bench.environment import make_indexes
from dispatcher.bench.statements import query
from dispatcher.db.database import OwnConnection, connect

MONTHS = 12
DAYS_PER_MONTH = 30.0
AGE_DAYS = 10.0  # since the last message of the history
MESSAGES_PER_STATEMENT = 250_000
STATEMENT_TIMEOUT_SECONDS = 3600.0
TABLES = ("messages", "keys", "batches", "outcomes", "reports")


class TableSize(Struct, frozen=True):
    """Size of a table and its partitions on disk, in bytes."""

    heap: int
    indexes: int

    @property
    def total(self) -> int:
        """Heap and indexes together."""
        return self.heap + self.indexes


async def make_history(address: str, messages: int, progress: Callable[[str], None]) -> None:
    """Fill a migrated, empty database with *messages* of the last year, all finished."""
    connection = await connect(address)
    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        first = 1
        for month in range(MONTHS):
            await connection.execute(query("make_partitions"), timeout=STATEMENT_TIMEOUT_SECONDS)
            many = messages // MONTHS
            await _make_month(connection, first, many, month)
            first = await connection.fetchval(query("start_next_partition"), first + many - 1)
            progress(f"month {month + 1} of {MONTHS} is made")
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        await make_indexes(connection)
        progress("indexes are made")
        await connection.execute("VACUUM (ANALYZE)", timeout=STATEMENT_TIMEOUT_SECONDS)
        await connection.execute("CHECKPOINT", timeout=STATEMENT_TIMEOUT_SECONDS)
    finally:
        await connection.close()


async def _make_month(connection: OwnConnection, first: int, messages: int, month: int) -> None:
    days_per_message = DAYS_PER_MONTH / messages
    start_days_ago = AGE_DAYS + DAYS_PER_MONTH * (MONTHS - month)
    for done in range(0, messages, MESSAGES_PER_STATEMENT):
        many = min(MESSAGES_PER_STATEMENT, messages - done)
        days = (start_days_ago - done * days_per_message, many * days_per_message)
        for table in TABLES:
            given = days if table == "messages" else ()
            await connection.execute(
                query(f"history_{table}"),
                first + done,
                many,
                *given,
                timeout=STATEMENT_TIMEOUT_SECONDS,
            )


async def table_sizes(connection: OwnConnection) -> Mapping[str, TableSize]:
    """Return the size of each table on disk, partitions included."""
    rows = await connection.fetch(query("table_sizes"))
    return {row["name"]: TableSize(row["heap"], row["indexes"]) for row in rows}
