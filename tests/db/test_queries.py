"""Every statement fits the migrated schema."""

import asyncpg

from dispatcher.db.queries import sql, statements

SEVERAL = {"begin", "migrations_table"}  # hold several statements, and have their own tests


async def test_every_statement_can_be_prepared(db):
    wrong = []
    for name in sorted(statements().keys() - SEVERAL):
        try:
            await db.prepare(sql(name))
        except asyncpg.PostgresError as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []


def test_every_statement_says_what_it_promises():
    silent = [name for name, text in statements().items() if text.splitlines()[1][:3] != "-- "]
    assert silent == []
