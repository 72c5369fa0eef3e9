"""Sequences behind their rows, as after a cut-over to a logical replica, are named and set."""

from dispatcher.db import events
from dispatcher.db.migrate import migrate, sequences_behind

BEHIND = [
    "dispatcher.audit_id_seq",
    "dispatcher.batch_id",
    "dispatcher.event_id_seq",
    "dispatcher.event_position",
    "dispatcher.message_id",
    "dispatcher.worker_id_seq",
]


async def load(db, rows) -> None:
    """Write rows, and set every sequence to where a logical replica has it."""
    ids = await rows.messages(3)
    await rows.batch(ids[:1])
    await db.execute("SELECT dispatcher.cancel($1)", ids[1:])
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease)"
        " VALUES ('host', 1, '1', '{}', '1 min')"
    )
    await db.execute("UPDATE dispatcher.event SET last_position = message_count")
    for name in BEHIND:
        if name != "dispatcher.event_position":
            await db.execute("SELECT setval($1::text::regclass, 1, false)", name)


async def test_what_is_behind_is_named_and_set(db, dsn, database, rows):
    await load(db, rows)
    assert sorted(await sequences_behind(db)) == BEHIND
    lines: list[str] = []
    await migrate(dsn, warn=lines.append)
    assert sorted(line.split()[0] for line in lines) == BEHIND
    assert await sequences_behind(db) == []
    ids = await rows.messages(2)
    await rows.batch(ids[:1], token="another")
    await db.execute("SELECT dispatcher.cancel($1)", ids[1:])
    assert await events.place(database) == 1


async def test_an_id_chosen_far_ahead_sets_no_sequence(db, dsn):
    await db.execute(
        "INSERT INTO dispatcher.message (id, recipient, template_id)"
        " VALUES ($1, '13100000000', 't')",
        10**18,
    )
    assert await sequences_behind(db) == []
    assert await migrate(dsn) == []


async def test_a_worker_role_may_set_them(db, dsn, rows):
    await load(db, rows)
    await migrate(f"{dsn}&role=dispatcher_worker")
    assert await sequences_behind(db) == []
