"""Whatever way rows come in, the queue is filled with them, and urgent ones are announced."""

import asyncio

import asyncpg
import pytest
from support.waiting import until

from dispatcher.db.database import connect

ONE = "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('13112345678', 't')"


async def waiting(db) -> list[int]:
    rows = await db.fetch("SELECT id FROM dispatcher.message_status WHERE state = 'queued'")
    return sorted(row["id"] for row in rows)


async def test_a_single_insert_waits(db):
    await db.execute(ONE)
    assert await waiting(db) == [1]


async def test_every_row_of_one_insert_waits(db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, app, priority) "
        "SELECT (13100000000 + i)::text, 't', 'a' || i % 3, i % 10 FROM generate_series(1, 1000) i"
    )
    assert len(await waiting(db)) == 1000
    assert await db.fetchval(
        "SELECT bool_and(q.app = m.app AND q.priority = m.priority AND q.attempt = 0 "
        "AND NOT q.requeued) FROM dispatcher.queue q JOIN dispatcher.message m USING (id)"
    )


async def test_every_row_of_a_copy_waits(db):
    await db.copy_records_to_table(
        "message",
        schema_name="dispatcher",
        columns=["recipient", "template_id", "params"],
        records=[(str(13100000000 + number), "t", ["a"]) for number in range(1, 5001)],
    )
    assert len(await waiting(db)) == 5000


async def test_a_message_is_due_at_its_send_time_and_never_before_now(db):
    rows = await db.fetch(
        "WITH m AS (INSERT INTO dispatcher.message (recipient, template_id, send_at) VALUES "
        "('13100000001', 't', '2001-01-01'), ('13100000002', 't', '2999-01-01')"
        " RETURNING id) SELECT FROM m"
    )
    assert len(rows) == 2
    first, second = await db.fetch(
        "SELECT due_at > now() - interval '1 minute' AS not_before, "
        "due_at = '2999-01-01' AS at_its_time FROM dispatcher.queue ORDER BY id"
    )
    assert first["not_before"]
    assert second["at_its_time"]


async def test_rows_rolled_back_leave_nothing(db):
    transaction = db.transaction()
    await transaction.start()
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, priority, idempotency_key) "
        "VALUES ('13100000001', 't', 0, 'k')"
    )
    await transaction.rollback()
    for table in ("message", "queue", "idempotency"):
        assert await db.fetchval(f"SELECT count(*) FROM dispatcher.{table}") == 0


async def test_a_savepoint_rolled_back_takes_only_its_own_rows(db):
    async with db.transaction():
        await db.execute(ONE)
        inner = db.transaction()
        await inner.start()
        await db.execute(ONE)
        await inner.rollback()
    assert await waiting(db) == [1]


async def test_one_bad_row_refuses_the_whole_copy(db):
    with pytest.raises(asyncpg.CheckViolationError):
        await db.copy_records_to_table(
            "message",
            schema_name="dispatcher",
            columns=["recipient", "template_id"],
            records=[("1", "t"), ("none", "t")],
        )
    assert await waiting(db) == []


async def test_a_used_idempotency_key_refuses_the_insert(db):
    insert = (
        "INSERT INTO dispatcher.message (app, recipient, template_id, idempotency_key) "
        "VALUES ($1, '13100000001', 't', 'k')"
    )
    await db.execute(insert, "a")
    await db.execute(insert, "b")  # a key is an app's own
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await db.execute(insert, "a")
    assert refused.value.constraint_name == "idempotency_key_was_used_before"
    assert await waiting(db) == [1, 2]


async def notified(db, dsn, statements: list[str]) -> list[str]:
    """Return what listeners hear of *statements*, in order."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await connect(dsn)
    await listener.add_listener("dispatcher_urgent", lambda *event: heard.put_nowait(event[3]))
    for statement in statements:
        await db.execute(statement)
    await db.execute("SELECT pg_notify('dispatcher_urgent', 'end')")
    words = []
    while (word := await asyncio.wait_for(heard.get(), 60)) != "end":
        words.append(word)
    await listener.close()
    return words


async def test_only_urgent_messages_that_are_due_are_announced(db, dsn):
    insert = "INSERT INTO dispatcher.message (recipient, template_id, app, priority, send_at) "
    assert await notified(
        db,
        dsn,
        [
            insert + "VALUES ('13100000001', 't', 'plain', 2, now())",
            insert + "VALUES ('13100000001', 't', 'zero', 0, now())",
            insert + "VALUES ('13100000001', 't', 'one', 1, now())",
            insert + "VALUES ('13100000001', 't', 'tomorrow', 0, now() + interval '1 day')",
            insert + "SELECT '13100000001', 't', 'many', 0, now() FROM generate_series(1, 1000)",
        ],
    ) == ["zero", "one", "many"]


async def test_an_urgent_message_rolled_back_is_not_announced(db, dsn):
    urgent = (
        "INSERT INTO dispatcher.message (recipient, template_id, priority)"
        " VALUES ('13100000001', 't', 0)"
    )
    assert await notified(db, dsn, ["BEGIN", urgent, "ROLLBACK"]) == []


@pytest.mark.parametrize(("setting", "heard"), [("on", ["default"]), ("off", [])])
async def test_a_session_may_leave_the_notification_out(db, dsn, setting, heard):
    names: list[object] = []
    listener = await connect(dsn)
    await listener.add_listener("dispatcher_urgent", lambda *said: names.append(said[-1]))
    await db.execute(f"SET dispatcher.notify = '{setting}'")
    await db.execute("SELECT dispatcher.enqueue('13100000000', 't', priority => 0)")
    await db.execute("SELECT pg_notify('dispatcher_urgent', 'last')")
    await until(lambda: "last" in names)
    await listener.close()
    assert names == [*heard, "last"]


URGENT = (
    "INSERT INTO dispatcher.message (recipient, template_id, priority)"
    " VALUES ('13100000001', 't', 0)"
)


async def test_a_two_phase_commit_takes_urgent_messages(db):
    """As JTA and XA do, in a session that leaves the notification out."""
    await db.execute("SET dispatcher.notify = 'off'")
    enqueue = "SELECT dispatcher.enqueue('13100000002', 't', priority => 1, idempotency_key => 'k')"
    many = (
        "INSERT INTO dispatcher.message (recipient, template_id, priority, campaign)"
        " SELECT (13100000000 + n)::text, 't', 0, 'c' FROM generate_series(3, 700) AS n"
    )
    for statement in ("BEGIN", URGENT, enqueue, many, "PREPARE TRANSACTION 'order 1'"):
        await db.execute(statement)
    assert await waiting(db) == []
    await db.execute("COMMIT PREPARED 'order 1'")
    assert await waiting(db) == [*range(1, 701)]


async def test_a_two_phase_commit_with_a_notification_is_refused(db):
    """PostgreSQL's limit, for which applications have the setting: they lose their transaction."""
    await db.execute("BEGIN")
    await db.execute(URGENT)
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
        await db.execute("PREPARE TRANSACTION 'order 1'")
    assert await waiting(db) == []


async def test_on_conflict_does_not_hide_a_used_key(db):
    """An application that repeats a key uses dispatcher.enqueue, which returns the first id."""
    insert = (
        "INSERT INTO dispatcher.message (recipient, template_id, idempotency_key)"
        " VALUES ('13100000001', 't', 'k') ON CONFLICT DO NOTHING"
    )
    await db.execute(insert)
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await db.execute(insert)
    assert refused.value.constraint_name == "idempotency_key_was_used_before"
    again = "SELECT dispatcher.enqueue('13100000001', 't', idempotency_key => 'k')"
    assert await db.fetchval(again) == 1
    assert await waiting(db) == [1]
