"""Migrations: once each, by however many starters; never an edited file, never a newer database."""

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from dispatcher.db import migrate as module
from dispatcher.db.database import connect
from dispatcher.db.migrate import (
    MigrationError,
    down,
    migrate,
    migrations_folder,
    read_migrations,
    status,
)

SHAPE = """
SELECT string_agg(shape, E'\\n' ORDER BY shape COLLATE "C") FROM (
    SELECT c.relkind::text || ' ' || c.relname || ' ' || coalesce(string_agg(
        a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull, ', '
        ORDER BY a.attnum), '') AS shape
    FROM pg_class c LEFT JOIN pg_attribute a
        ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'dispatcher'::regnamespace GROUP BY c.oid, c.relkind, c.relname
    UNION ALL
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'dispatcher'::regnamespace
    UNION ALL
    SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'dispatcher'::regnamespace
) AS shapes
"""


class Folder:
    """A folder of migrations that a test writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, version: int, up: str, down: str = "", *, options: str = "") -> Path:
        """Write one migration in dbmate's format."""
        file = self.path / f"{version:04}_step_{version}.sql"
        file.write_text(f"-- migrate:up{options}\n{up}\n\n-- migrate:down{options}\n{down}\n")
        return file


@pytest.fixture
def folder(tmp_path) -> Folder:
    """A folder with two migrations."""
    folder = Folder(tmp_path)
    folder.write(1, "CREATE TABLE dispatcher.one (n int);", "DROP TABLE dispatcher.one;")
    folder.write(2, "CREATE TABLE dispatcher.two (n int);", "DROP TABLE dispatcher.two;")
    return folder


async def tables(dsn: str) -> list[str]:
    connection = await connect(dsn)
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace "
        "AND relkind IN ('r', 'p') ORDER BY relname"
    )
    await connection.close()
    return [row["relname"] for row in rows]


async def run(dsn: str, *statements: str) -> None:
    connection = await connect(dsn)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_what_is_missing_is_applied_in_order_and_once(empty_dsn, folder):
    assert await migrate(empty_dsn, folder=folder.path) == ["0001_step_1", "0002_step_2"]
    assert await migrate(empty_dsn, folder=folder.path) == []
    folder.write(3, "ALTER TABLE dispatcher.two ADD COLUMN m int;")
    assert await migrate(empty_dsn, folder=folder.path) == ["0003_step_3"]
    assert await tables(empty_dsn) == ["one", "schema_migrations", "two"]


async def test_an_edited_file_is_refused(empty_dsn, folder):
    await migrate(empty_dsn, folder=folder.path)
    folder.write(1, "CREATE TABLE dispatcher.one (n bigint);")
    folder.write(3, "CREATE TABLE dispatcher.three (n int);")
    with pytest.raises(MigrationError, match="0001_step_1 was edited after it was applied"):
        await migrate(empty_dsn, folder=folder.path)
    assert "three" not in await tables(empty_dsn)
    assert [standing.edited for standing in await status(empty_dsn, folder=folder.path)] == [
        True,
        False,
        False,
    ]


async def test_other_line_ends_and_a_mended_way_down_are_no_edit(empty_dsn, folder):
    await migrate(empty_dsn, folder=folder.path)
    file = folder.write(1, "CREATE TABLE dispatcher.one (n int);", "DROP TABLE IF EXISTS x;")
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert await migrate(empty_dsn, folder=folder.path) == []


async def test_a_newer_database_is_refused_and_left_alone(empty_dsn, folder):
    await migrate(empty_dsn, folder=folder.path)
    (folder.path / "0002_step_2.sql").unlink()
    for refused in (migrate, down):
        with pytest.raises(MigrationError, match=r"newer than this release \(.* 0002\): install"):
            await refused(empty_dsn, folder=folder.path)
    assert "two" in await tables(empty_dsn)
    assert [standing.unknown for standing in await status(empty_dsn, folder=folder.path)] == [
        False,
        True,
    ]


async def test_down_goes_one_step_and_up_comes_back(empty_dsn, folder):
    await migrate(empty_dsn, folder=folder.path)
    assert await down(empty_dsn, folder=folder.path) == "0002_step_2"
    assert await tables(empty_dsn) == ["one", "schema_migrations"]
    assert await down(empty_dsn, folder=folder.path) == "0001_step_1"
    assert await down(empty_dsn, folder=folder.path) is None
    assert await migrate(empty_dsn, folder=folder.path) == ["0001_step_1", "0002_step_2"]


async def test_our_own_migrations_go_down_to_nothing_and_up_to_the_same(empty_dsn):
    names = await migrate(empty_dsn)
    assert names == [str(migration) for migration in read_migrations()]
    connection = await connect(empty_dsn)
    before = await connection.fetchval(SHAPE)
    for _ in names[1:]:
        await down(empty_dsn)
    # The first makes no function, and its way down drops whatever the others have left.
    left = await connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'dispatcher'::regnamespace"
    )
    assert [row["proname"] for row in left] == []
    await down(empty_dsn)
    assert await tables(empty_dsn) == ["schema_migrations"]
    assert await migrate(empty_dsn) == names
    assert await connection.fetchval(SHAPE) == before
    await connection.close()


async def test_a_migration_that_fails_leaves_nothing_and_the_ones_before_it_stay(empty_dsn, folder):
    folder.write(3, "CREATE TABLE dispatcher.three (n int); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_dsn, folder=folder.path)
    assert await tables(empty_dsn) == ["one", "schema_migrations", "two"]
    folder.write(3, "CREATE TABLE dispatcher.three (n int);")
    assert await migrate(empty_dsn, folder=folder.path) == ["0003_step_3"]


async def test_a_migration_and_its_note_are_one_transaction(empty_dsn, folder):
    noted = "INSERT INTO dispatcher.schema_migrations (version, checksum) VALUES ('0003', 'x');"
    folder.write(3, f"CREATE TABLE dispatcher.three (n int); {noted}")
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrate(empty_dsn, folder=folder.path)
    assert "three" not in await tables(empty_dsn)
    assert not (await status(empty_dsn, folder=folder.path))[2].applied


async def test_of_four_processes_at_once_one_works_and_all_find_it_done(empty_dsn, folder):
    folder.write(3, "SELECT pg_sleep(0.5); CREATE TABLE dispatcher.three (n int);")
    folder.write(
        4,
        "CREATE INDEX CONCURRENTLY three_n ON dispatcher.three (n);",
        options=" transaction:false",
    )
    script = (
        "import asyncio, pathlib, sys\n"
        "from dispatcher.db.migrate import migrate\n"
        "print(*asyncio.run(migrate(sys.argv[1], folder=pathlib.Path(sys.argv[2]))))"
    )
    starters = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, empty_dsn, str(folder.path), stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    async with asyncio.timeout(60):
        said = [(await starter.communicate())[0].decode().split() for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 4
    assert sorted(said) == [
        [],
        [],
        [],
        ["0001_step_1", "0002_step_2", "0003_step_3", "0004_step_4"],
    ]


async def test_waiting_too_long_for_the_lock_says_where_to_look(empty_dsn, folder):
    other = await connect(empty_dsn)
    await other.execute("SELECT pg_advisory_lock($1)", module.LOCK_KEY)
    with pytest.raises(MigrationError, match="'dispatcher migrate'"):
        await migrate(empty_dsn, folder=folder.path, patience=0.2)
    await other.close()
    assert len(await migrate(empty_dsn, folder=folder.path)) == 2


async def test_a_table_in_use_is_waited_for_without_holding_up_others(
    empty_dsn, folder, monkeypatch, until_it_waits
):
    monkeypatch.setattr(module, "TABLE_TIMEOUT", "100ms")
    monkeypatch.setattr(module, "TABLE_PAUSE", 0.2)
    await migrate(empty_dsn, folder=folder.path)
    folder.write(3, "ALTER TABLE dispatcher.one ADD COLUMN m int;")
    user, watcher = await connect(empty_dsn), await connect(empty_dsn)
    transaction = user.transaction()
    await transaction.start()
    await user.execute("SELECT FROM dispatcher.one")
    migration = asyncio.create_task(migrate(empty_dsn, folder=folder.path))
    async with asyncio.timeout(20):
        while not (
            pid := await watcher.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'dispatcher migrate' "
                "AND datname = current_database()"
            )
        ):
            pass
    await until_it_waits(watcher, pid)
    # Transactions behind the waiting migration go on when it gives up for a while.
    await asyncio.wait_for(watcher.execute("SELECT FROM dispatcher.one"), 60)
    assert not migration.done()
    await transaction.commit()
    assert await asyncio.wait_for(migration, 60) == ["0003_step_3"]
    await user.close()
    await watcher.close()


async def test_a_table_in_use_for_ever_is_told(empty_dsn, folder, monkeypatch):
    monkeypatch.setattr(module, "TABLE_TIMEOUT", "10ms")
    monkeypatch.setattr(module, "TABLE_PAUSE", 0.01)
    monkeypatch.setattr(module, "TABLE_TRIES", 3)
    await migrate(empty_dsn, folder=folder.path)
    folder.write(3, "ALTER TABLE dispatcher.one ADD COLUMN m int;")
    user = await connect(empty_dsn)
    async with user.transaction():
        await user.execute("SELECT FROM dispatcher.one")
        with pytest.raises(MigrationError, match="0003_step_3 gets no lock on a table"):
            await migrate(empty_dsn, folder=folder.path)
    await user.close()
    assert await migrate(empty_dsn, folder=folder.path) == ["0003_step_3"]


async def test_the_limits_of_the_role_do_not_end_a_long_migration(empty_dsn, folder):
    await run(
        empty_dsn,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 100', "
        "current_database()); END $$",
    )
    folder.write(3, "SELECT pg_sleep(0.3);")
    assert len(await migrate(empty_dsn, folder=folder.path)) == 3


async def test_status_asks_and_changes_nothing(empty_dsn, folder):
    assert [standing.applied for standing in await status(empty_dsn, folder=folder.path)] == [
        False,
        False,
    ]
    connection = await connect(empty_dsn)
    assert await connection.fetchval("SELECT to_regnamespace('dispatcher')") is None
    await connection.close()
    await migrate(empty_dsn, folder=folder.path)
    first, second = await status(empty_dsn, folder=folder.path)
    assert (first.version, first.name, first.applied) == ("0001", "step_1", True)
    assert first.applied_at <= second.applied_at


async def test_who_has_nothing_to_apply_needs_no_right_to_make_tables(empty_dsn, folder):
    await migrate(empty_dsn, folder=folder.path)
    await run(
        empty_dsn,
        "CREATE ROLE reader",
        "GRANT USAGE ON SCHEMA dispatcher TO reader",
        "GRANT SELECT ON dispatcher.schema_migrations TO reader",
    )
    as_reader = f"{empty_dsn}&role=reader"
    try:
        assert await migrate(as_reader, folder=folder.path) == []
        folder.write(3, "SELECT 1;")
        with pytest.raises(MigrationError, match=r"may not make them \(permission denied"):
            await migrate(as_reader, folder=folder.path)
    finally:
        await run(empty_dsn, "DROP OWNED BY reader", "DROP ROLE reader")


BAD = {
    "no marks": ("0001_x.sql", "SELECT 1;"),
    "no way down": ("0001_x.sql", "-- migrate:up\nSELECT 1;"),
    "down first": ("0001_x.sql", "-- migrate:down\n-- migrate:up\n"),
    "up twice": ("0001_x.sql", "-- migrate:up\n-- migrate:up\n-- migrate:down\n"),
    "no version": ("first.sql", "-- migrate:up\n-- migrate:down\n"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_migration_is_refused_by_its_name(tmp_path, case):
    name, text = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(MigrationError, match=name):
        read_migrations(tmp_path)


def test_two_files_of_one_version_are_refused(folder):
    (folder.path / "0002_again.sql").write_text("-- migrate:up\n-- migrate:down\n")
    with pytest.raises(MigrationError, match="Two migrations have the version 0002"):
        read_migrations(folder.path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(MigrationError, match="no migrations in"):
        read_migrations(tmp_path)


def test_versions_are_numbers_and_not_words(folder):
    folder.write(10000, "SELECT 1;")
    folder.write(9999, "SELECT 1;")
    assert [migration.version for migration in read_migrations(folder.path)][-2:] == [
        "9999",
        "10000",
    ]


def test_the_folder_beside_the_package_is_found():
    assert (migrations_folder() / "0001_schema.sql").is_file()


def test_migrations_and_statements_are_ascii():
    folder = migrations_folder()
    statements = Path(module.__file__).parent / "sql"
    for path in (*folder.glob("*.sql"), *statements.glob("*.sql")):
        assert path.read_bytes().isascii(), path.name


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_CN"])
async def test_a_database_that_is_not_utf8_is_refused(server, encoding):
    connection = await connect(server)
    name = f"in_{encoding.lower()}"
    try:
        await connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
        )
        with pytest.raises(MigrationError, match=f"encoding {encoding}.*UTF8"):
            await migrate(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


async def test_waiting_for_another_migration_is_said_once(empty_dsn, folder):
    connection = await connect(empty_dsn)
    await connection.execute("SELECT pg_advisory_lock($1)", module.LOCK_KEY)
    waits: list[str] = []
    with pytest.raises(MigrationError, match="Another process"):
        await migrate(
            empty_dsn, folder=folder.path, patience=0.3, on_wait=lambda: waits.append("waits")
        )
    await connection.close()
    assert waits == ["waits"]
