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
    assert (await command("migrate", "--json", DATABASE_URL=empty_dsn)).out == "[]\n"

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


async def test_a_user_who_may_not_make_tables_is_sent_to_their_owner(command, empty_dsn, db):
    await db.execute("CREATE ROLE maker_of_nothing LOGIN PASSWORD 'x'")
    try:
        address = f"{empty_dsn}&role=maker_of_nothing"
        for locale, words in (
            ("C", "Tables are missing or old in "),
            ("zh_CN.UTF-8", "请以表的所有者身份运行 `dispatcher migrate`"),
        ):
            ended = await command("migrate", DATABASE_URL=address, locale=locale)
            assert ended.code == 1
            assert words in ended.line
    finally:
        await db.execute("DROP ROLE maker_of_nothing")


async def test_a_newer_database_is_named_in_chinese_too(command, dsn, db):
    await db.execute("INSERT INTO dispatcher.schema_migrations VALUES ('9999', 'x')")
    ended = await command("migrate", DATABASE_URL=dsn, locale="zh_CN.UTF-8")
    assert "数据库比本版本新（它有迁移 9999）" in ended.line


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
