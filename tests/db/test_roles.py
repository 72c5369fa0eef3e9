"""Roles: each can do its work, and nothing else."""

import asyncpg
import pytest
from support.messages import SENDER, finished, insert, states
from support.provider import app_at
from support.waiting import until

from dispatcher.db import operator, status
from dispatcher.db.database import connect
from dispatcher.db.dsn import read_address
from dispatcher.db.migrate import down, migrate, migrations_folder, read_migrations

ROLES = ("dispatcher_app", "dispatcher_worker", "dispatcher_reader")
TABLES = (
    "message",
    "queue",
    "bulk",
    "batch",
    "outcome",
    "idempotency",
    "report",
    "carrier_status",
    "app",
    "country_pause",
    "worker",
    "event_count",
    "report_inbox",
    "unmatched_report",
    "report_summary",
    "event",
    "event_position",
    "audit",
    "role_grant",
    "schema_migrations",
)
INSERT = (
    "INSERT INTO dispatcher.message (recipient, template_id, params)"
    " VALUES ('13100000131', 't', '{1}')"
)


def as_role(dsn: str, role: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}role={role}"


async def refused(dsn: str, role: str, statement: str) -> bool:
    connection = await connect(as_role(dsn, role))
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    finally:
        await connection.close()
    return False


async def test_an_application_inserts_reads_its_view_and_cancels(dsn):
    app = await connect(as_role(dsn, "dispatcher_app"))
    first = await app.fetchval(f"{INSERT} RETURNING id")
    second = await app.fetchval(
        "SELECT dispatcher.enqueue('13100000132', 't', '{1}',"
        " idempotency_key => 'k', reference => 'r',"
        " priority => 1, sender => 's', signature => 'g', expires_at => now() + interval '1 h')"
    )
    assert (
        await app.fetchval("SELECT dispatcher.enqueue('13100000132', 't', idempotency_key => 'k')")
        == second
    )
    await app.copy_records_to_table(
        "message",
        schema_name="dispatcher",
        columns=["recipient", "template_id"],
        records=[("13100000133", "t")],
    )
    assert await app.fetchval("SELECT dispatcher.cancel(ARRAY[$1::bigint])", first) == 1
    seen = dict(await app.fetch("SELECT recipient, state FROM dispatcher.message_status"))
    assert seen == {"13100000131": "cancelled", "13100000132": "queued", "13100000133": "queued"}
    assert await app.fetch("SELECT * FROM dispatcher.events()") == []  # nothing has a place yet
    await app.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT params FROM dispatcher.message",
        "SELECT recipient FROM dispatcher.message",
        f"{INSERT} RETURNING *",  # as ORMs do by default: applications.md has their options
        "INSERT INTO dispatcher.message (id, recipient, template_id) VALUES (1, '13100000131', '')",
        "INSERT INTO dispatcher.message (recipient, queued_at) VALUES ('13100000001', now())",
        "UPDATE dispatcher.message SET recipient = '13100000132'",
        "DELETE FROM dispatcher.message",
        "TRUNCATE dispatcher.message",
        "SELECT setval('dispatcher.message_id', 1)",
        "DELETE FROM dispatcher.queue",
        "UPDATE dispatcher.queue SET due_at = now()",
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES (1, 'accepted', 1)",
        "SELECT dispatcher.requeue(ARRAY[1])",
        "SELECT dispatcher.settle('t', 'sent')",
        "SELECT dispatcher.pause('default', 'no')",
        "SELECT dispatcher.resume('default')",
        "SELECT dispatcher.make_partitions()",
        "SELECT dispatcher.index_step()",
        "SELECT dispatcher.drop_step('1 day')",
        "SELECT dispatcher.append_event('accepted', '', '{a}', '{1}')",
        "SELECT dispatcher.count_event('accepted', '', '{a}')",
        "SELECT dispatcher.requeue('{1}')",
        "SELECT dispatcher.cancel_queued('{1}')",
        "SELECT dispatcher.take_from_bulk('{1}', '{1}')",
        "SELECT dispatcher.pause('default', '')",
        "SELECT dispatcher.suppress('{+8613112345678}')",
        "SELECT dispatcher.append_audit('a', 'b', '', '', '')",
        "SELECT dispatcher.make_roles()",
        "CREATE TABLE dispatcher.mine (n int)",
        "CREATE FUNCTION dispatcher.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE dispatcher.queue",
    ],
)
async def test_an_application_is_refused_everything_else(dsn, statement):
    assert await refused(dsn, "dispatcher_app", statement)


@pytest.mark.parametrize("table", [table for table in TABLES if table != "message"])
async def test_an_application_reads_no_table(dsn, table):
    assert await refused(dsn, "dispatcher_app", f"SELECT FROM dispatcher.{table}")
    assert await refused(dsn, "dispatcher_app", f"DELETE FROM dispatcher.{table}")


async def test_a_worker_does_all_its_work_and_operators_use_its_role(dsn, db, workers, sim):
    mine = as_role(dsn, "dispatcher_worker")
    worker = await workers.start({"default": app_at(sim.url)}, dsn=mine)
    await insert(db, 700)
    await until(lambda: finished(db), what="everything has its end")
    assert await states(db) == {"accepted": 700}
    worker.terminate()
    assert await worker.ended() == 0
    assert not [said for said in worker.events() if said.get("level") == "error"]

    connection = await connect(mine)
    ids = await insert(connection, 3, first=5000)
    assert (await status.overview(connection)).apps
    assert await status.message_history(connection, ids[0]) is not None
    assert (await operator.cancel(connection, "Ana", ids)).count == 3
    assert (await operator.requeue(connection, "Ana", ids)).count == 0
    await operator.pause(connection, "Ana", "default", "a test")
    await operator.resume(connection, "Ana", "default")
    assert await connection.fetchval("SELECT dispatcher.make_partitions(60000000)") > 0
    await connection.close()
    assert {
        message["sender"] for message in await db.fetch("SELECT sender FROM dispatcher.message")
    } <= {None, SENDER}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dispatcher.message SET recipient = '13100000132'",
        "DELETE FROM dispatcher.message",
        "TRUNCATE dispatcher.queue",
        "DELETE FROM dispatcher.batch",
        "DELETE FROM dispatcher.outcome",
        "DELETE FROM dispatcher.report",
        "UPDATE dispatcher.audit SET actor = 'nobody'",
        "DELETE FROM dispatcher.audit",
        "INSERT INTO dispatcher.schema_migrations VALUES ('9999')",
        "INSERT INTO dispatcher.role_grant VALUES ('dispatcher_app', 'ALL', 'dispatcher.audit')",
        "SELECT dispatcher.make_roles()",
        "SELECT dispatcher.transfer_ownership()",
        "ALTER TABLE dispatcher.queue ADD COLUMN n int",
        "CREATE TABLE dispatcher.mine (n int)",
        "CREATE INDEX ON dispatcher.message_rest (recipient)",
        "SELECT dispatcher.is_idle(1, 2)",
        "DROP TABLE dispatcher.message_rest",
        "CREATE SCHEMA mine",
    ],
)
async def test_a_worker_is_refused_what_is_not_its_work(dsn, statement):
    assert await refused(dsn, "dispatcher_worker", statement)


async def test_a_reader_sees_what_dashboards_show(dsn, db):
    await insert(db, 2)
    reader = await connect(as_role(dsn, "dispatcher_reader"))
    assert [app.name for app in (await status.overview(reader)).apps] == ["default"]
    assert await reader.fetchval("SELECT count(*) FROM dispatcher.message_status") == 2
    assert await reader.fetch("SELECT * FROM dispatcher.events()") == []
    await reader.close()


@pytest.mark.parametrize("table", TABLES)
async def test_a_reader_writes_nothing(dsn, table):
    assert await refused(dsn, "dispatcher_reader", f"DELETE FROM dispatcher.{table}")
    assert await refused(dsn, "dispatcher_reader", f"INSERT INTO dispatcher.{table} DEFAULT VALUES")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT params FROM dispatcher.message",
        "SELECT raw FROM dispatcher.report",
        "SELECT key FROM dispatcher.idempotency",
        "SELECT dispatcher.enqueue('13100000131', 't')",
        "SELECT dispatcher.cancel(ARRAY[1])",
        "SELECT dispatcher.requeue(ARRAY[1])",
        "SELECT dispatcher.settle('t', 'sent')",
        "SELECT dispatcher.pause('default', 'no')",
        "CREATE TABLE dispatcher.mine (n int)",
    ],
)
async def test_a_reader_is_refused_texts_and_actions(dsn, statement):
    assert await refused(dsn, "dispatcher_reader", statement)


async def test_the_owner_owns_everything_of_the_schema_and_nothing_else(dsn, db):
    others = await db.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace"
        " AND relowner <> 'dispatcher_owner'::regrole"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'dispatcher'::regnamespace"
        " AND proowner <> 'dispatcher_owner'::regrole"
    )
    assert others == []
    role = await db.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'dispatcher_owner'")
    assert not any(
        role[power]
        for power in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolcanlogin", "rolbypassrls")
    )
    for statement in (
        "CREATE TABLE public.mine (n int)",
        "CREATE ROLE mine",
        "COPY dispatcher.message (recipient) TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
    ):
        assert await refused(dsn, "dispatcher_owner", statement), statement


async def test_the_owner_migrates_from_here_on(dsn, db):
    mine = as_role(dsn, "dispatcher_owner")
    await restored(db)
    taken = []
    while name := await down(mine):
        taken.append(name)
    assert sorted(taken) == await migrate(mine)


async def test_what_a_superuser_migrates_later_is_the_owners_too(dsn, db, tmp_path):
    await restored(db)
    for path in migrations_folder().glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    version = int(read_migrations()[-1].version) + 1
    (tmp_path / f"{version:04}_more.sql").write_text(
        "-- migrate:up\nCREATE TABLE dispatcher.more (n int);\n-- migrate:down\n"
    )
    assert len(await migrate(dsn, folder=tmp_path)) == 1
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'more'"
    assert await db.fetchval(owner) == "dispatcher_owner"


async def test_who_may_make_no_roles_migrates_all_the_same_and_is_told(empty_dsn, renamed_roles):
    await renamed_roles.execute("CREATE ROLE plain")
    try:
        await renamed_roles.execute(
            "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO plain',"
            " current_database()); END $$"
        )
        told: list[str] = []
        assert len(await migrate(as_role(empty_dsn, "plain"), warn=told.append)) > 3
        (line,) = told
        assert "CREATE ROLE dispatcher_app" in line
        plain = await connect(as_role(empty_dsn, "plain"))
        assert await plain.fetchval("SELECT dispatcher.enqueue('13100000131', 't')") == 1

        await renamed_roles.execute("CREATE ROLE dispatcher_app")  # as the line says
        await plain.execute("SELECT dispatcher.make_roles()")
        await plain.close()
        assert not await refused(empty_dsn, "dispatcher_app", INSERT)
        await renamed_roles.execute("DROP OWNED BY dispatcher_app; DROP ROLE dispatcher_app")
    finally:
        await renamed_roles.execute("DROP OWNED BY plain CASCADE; DROP ROLE plain")


@pytest.fixture
async def renamed_roles(empty_dsn, template):  # noqa: ARG001 - whose migration has made them
    """A server that has none of the roles: those of the template have other names meanwhile."""
    connection = await connect(empty_dsn)
    roles = [*ROLES, "dispatcher_owner"]
    for role in roles:
        await connection.execute(f"ALTER ROLE {role} RENAME TO {role}_away")
    yield connection
    for role in roles:
        await connection.execute(f"ALTER ROLE {role}_away RENAME TO {role}")
    await connection.close()


async def restored(db) -> None:
    """Give the owner the one right outside of the schema: a copied database lacks it."""
    await db.execute(
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO dispatcher_owner',"
        " current_database()); END $$"
    )


@pytest.mark.usefixtures("renamed_roles")
async def test_who_may_only_make_roles_hands_the_tables_over(empty_dsn):
    """As managed PostgreSQL has it: no superuser, owner of the database, may make roles."""
    connection = await connect(empty_dsn)
    database = read_address(empty_dsn).database
    await connection.execute(
        f"CREATE ROLE maker CREATEROLE; ALTER DATABASE {database} OWNER TO maker"
    )
    try:
        warnings: list[str] = []
        await migrate(as_role(empty_dsn, "maker"), warn=warnings.append)
        assert warnings == []
        owners = await connection.fetch(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'dispatcher'"
        )
        assert [row["tableowner"] for row in owners] == ["dispatcher_owner"]
        await connection.execute("CREATE ROLE migrator IN ROLE dispatcher_owner")
        taken = await down(as_role(empty_dsn, "migrator"))
        assert await migrate(as_role(empty_dsn, "migrator")) == [taken]
    finally:
        await connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
        await connection.execute(f"ALTER DATABASE {database} OWNER TO postgres")
        await connection.execute("DROP ROLE IF EXISTS migrator")
        await connection.execute(
            "DROP OWNED BY dispatcher_owner, dispatcher_worker, dispatcher_app, dispatcher_reader;"
            "DROP ROLE dispatcher_owner, dispatcher_worker, dispatcher_app, dispatcher_reader"
        )
        await connection.execute("DROP OWNED BY maker; DROP ROLE maker")
        await connection.close()
