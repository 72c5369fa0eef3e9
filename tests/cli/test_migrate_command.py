"""``dispatcher migrate``: applies, lists and undoes migrations."""

import pytest


@pytest.mark.slow
async def test_migrate_applies_lists_and_undoes_migrations(command, empty_dsn):
    before = await command("migrate", "--status", DATABASE_URL=empty_dsn)
    assert before.code == 1
    assert all(line.endswith("missing") for line in before.out.splitlines())

    first = await command("migrate", DATABASE_URL=empty_dsn)
    assert (first.code, first.err) == (0, "")
    assert "0001_schema applied." in first.out.splitlines()

    after = await command("migrate", "--status", DATABASE_URL=empty_dsn)
    assert after.code == 0
    assert all("applied 20" in line for line in after.out.splitlines())

    again = await command("migrate", DATABASE_URL=empty_dsn)
    assert (again.code, again.out) == (0, "Nothing to do.\n")

    down = await command("migrate", "--down", DATABASE_URL=empty_dsn)
    assert down.code == 0
    assert down.out.endswith("undone.\n")
    assert (await command("migrate", "--status", DATABASE_URL=empty_dsn)).code == 1


@pytest.mark.slow
async def test_without_an_address_a_database_is_created(command, tmp_path):
    made = await command("migrate", DATA_DIR=tmp_path / "data")
    assert made.code == 0, made.err
    status = await command("status", DATA_DIR=tmp_path / "data")
    assert (status.code, status.err) == (0, "")
    assert "No worker is running" in status.out


async def test_a_worker_of_an_older_schema_is_refused(command, dsn, db):
    await db.execute("INSERT INTO dispatcher.schema_migrations VALUES ('9999', 'of a newer one')")
    refused = await command(
        "run",
        DATABASE_URL=dsn,
        APPS__DEFAULT__ENDPOINT="http://127.0.0.1:9",
        APPS__DEFAULT__APP_KEY="key",
        APPS__DEFAULT__APP_SECRET="secret",
    )
    assert refused.code == 1
    assert refused.line.startswith(
        "dispatcher: The database is newer than this release (it has the migration 9999):"
    )
    assert await db.fetchval("SELECT count(*) FROM dispatcher.worker") == 0
