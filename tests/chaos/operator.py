"""The operator of a storm with reports: settles by hand what the provider's books show as taken."""

import asyncio
from collections import Counter
from random import Random

import asyncpg

from chaos.database import Database
from dispatcher.simulator import Simulator

MOST = 2  # requests at a time; most are left to their reports


async def settle_what_was_taken(
    base: Database, simulator: Simulator, dice: Random, done: Counter[str]
) -> None:
    """Settle some unsure requests of which each number was accepted as sent, until cancelled.

    The reports that follow bring the provider's ids.
    """
    while True:
        await asyncio.sleep(dice.uniform(0.2, 1.0))
        taken = Counter(row.token for row in simulator.ledger.rows())

        async def settle(db: asyncpg.Connection, taken: Counter[str | None] = taken) -> int:
            rows = await db.fetch(
                "SELECT token, cardinality(message_ids) AS messages FROM dispatcher.batch"
                " WHERE state = 'unsure'"
            )
            whole = [row["token"] for row in rows if taken[row["token"]] == row["messages"]]
            chosen = dice.sample(whole, min(MOST, len(whole)))
            for token in chosen:
                await db.execute("SELECT dispatcher.settle_unsure($1, 'sent')", token)
            return len(chosen)

        done["operator: settled as sent"] += await base.ask(settle) or 0
