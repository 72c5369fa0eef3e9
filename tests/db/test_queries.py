"""Every statement fits the migrated schema."""

import random
import re
from pathlib import Path

import asyncpg
import pytest

from dispatcher.db import queries
from dispatcher.db.migrate import read_migrations
from dispatcher.db.queries import array_text, sql, statements

SEVERAL = {"begin", "migrations_table"}  # hold several statements, and have their own tests


async def test_every_statement_can_be_prepared(db):
    wrong = []
    for name in ("survey_table", "left_out_table", "dry_run_table", "refused_table"):
        await db.execute(sql(name))
    await db.execute(sql("earlier_loads"), "digest", 7, False)
    await db.execute(sql("find_earlier"))
    await db.execute(sql("find_already"), 0, False)
    for name in sorted(statements().keys() - SEVERAL):
        try:
            await db.prepare(sql(name))
        except asyncpg.PostgresError as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []


def test_every_statement_says_what_it_promises():
    silent = [name for name, text in statements().items() if text.splitlines()[1][:3] != "-- "]
    assert silent == []


def test_no_zone_is_written_as_an_offset_in_a_text():
    """PostgreSQL reads '+08' as POSIX does: eight hours west of Greenwich."""
    texts = [*statements().values(), *(each.up.statements for each in read_migrations())]
    zones = [zone for text in texts for zone in re.findall(r"(?i)time zone\s+(\S+)", text)]
    assert "interval" in zones
    assert [zone for zone in zones if re.search(r"'[^']*[0-9]", zone)] == []


def test_two_statements_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "_FOLDER", tmp_path)
    (tmp_path / "a.sql").write_text("-- name: one\n-- Returns 1.\nSELECT 1\n")
    (tmp_path / "b.sql").write_text("-- name: one\n-- Returns 2.\nSELECT 2\n")
    with pytest.raises(ValueError, match="repeats the statement one"):
        statements.__wrapped__()


def test_each_row_of_the_queue_keeps_its_campaign():
    """Else a message that comes back would be sent after its campaign was cancelled."""
    functions = (Path(__file__).parents[2] / "migrations/0002_functions.sql").read_text("utf-8")
    texts = [*statements().values(), functions]
    columns = [
        part for text in texts for part in re.findall(r"INTO dispatcher\.queue\s+\(([^)]*)\)", text)
    ]
    assert len(columns) >= 7
    assert [part for part in columns if "campaign" not in part] == []


ODD = ["", "null", "NULL", '"', "\\", "\\n", '\\"', "a\nb", "\t\\", "\x1f", "\x7f", "{,}", " x "]
ODD += ["\u2028", "号"]


async def test_an_array_as_text_holds_the_same_texts(db):
    dice = random.Random(18)
    mixed = [["".join(dice.choices(ODD, k=3)) for _ in range(5)] for _ in range(200)]
    for values in ([], [None], ODD, [*ODD, None], *([each] for each in ODD), *mixed):
        assert await db.fetchval("SELECT $1::text::text[]", array_text(values)) == values


async def test_an_array_as_text_holds_the_same_numbers(db):
    floats = [0.0, 1e-7, 0.1, 123456789.123456, 1e22]
    assert await db.fetchval("SELECT $1::text::float8[]", array_text(floats)) == floats
    numbers = [1, None, -(2**63), 2**63 - 1]
    assert await db.fetchval("SELECT $1::text::bigint[]", array_text(numbers)) == numbers


@pytest.mark.parametrize("value", ["a\0b", "a\0b\n", "\ud800"])
async def test_a_text_that_cannot_be_stored_is_refused(db, value):
    with pytest.raises((asyncpg.DataError, ValueError)):
        await db.fetchval("SELECT $1::text::text[]", array_text([value]))
