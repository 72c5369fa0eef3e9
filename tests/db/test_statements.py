"""Every statement of this room fits the migrated schema."""

import asyncpg
import pytest

from dispatcher.db import statements
from dispatcher.db.statements import sql

NAMES = sorted(path.stem for path in statements._FOLDER.glob("*.sql"))
SEVERAL = {"begin", "migrations_table"}  # hold several statements, and have their own tests


async def test_each_can_be_prepared(db):
    wrong = []
    for name in sorted({*NAMES} - SEVERAL):
        try:
            await db.prepare(sql(name))
        except asyncpg.PostgresError as error:
            wrong.append(f"{name}.sql: {error}")
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_what_it_promises(name):
    assert sql(name).startswith("-- ")


def test_it_is_read_once():
    assert sql(NAMES[0]) is sql(NAMES[0])
