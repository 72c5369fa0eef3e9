"""A message leaves the queue only with its batch, and returns only as its batch is closed."""

import asyncpg
import pytest

from dispatcher.core.delays import Pause
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.outcome import Deferred, Resolved, ReturnAll

REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'disk_full'; END $$;"
    "CREATE TRIGGER refuse BEFORE INSERT ON dispatcher.{} EXECUTE FUNCTION refuse()"
)


async def test_what_cannot_be_written_as_a_batch_stays_in_the_queue(hands):
    await hands.begin()
    ids = await hands.insert(10)
    await hands.db.execute(REFUSE.format("batch"))
    with pytest.raises(DatabaseUnavailable, match="is full"):
        await hands.claim()
    assert await hands.queue() == ids
    assert await hands.batches() == []


@pytest.mark.parametrize("table", ["queue", "event_count"])
@pytest.mark.parametrize("whole", [False, True], ids=["deferred", "returned"])
async def test_what_cannot_return_to_the_queue_stays_in_its_batch(hands, table, whole):
    await hands.begin()
    ids = await hands.insert(10)
    [batch] = await hands.claim()
    verdict = (
        ReturnAll(Pause("E000101", "wrong", 60.0, 600.0))
        if whole
        else Resolved([Deferred(m, "E200015", 0.0, counted=True) for m in batch.messages])
    )
    await hands.db.execute(REFUSE.format(table))
    with pytest.raises(DatabaseUnavailable, match="is full"):
        await hands.record(batch, verdict)
    assert await hands.queue() == []
    assert await hands.batches() == [("open", None)]
    await hands.db.execute(f"DROP TRIGGER refuse ON dispatcher.{table}")
    assert await hands.record(batch, verdict)
    assert await hands.queue() == ids
    assert [state for state, _ in await hands.batches()] == ["closed"]


async def test_a_second_outcome_is_refused_by_the_database(hands):
    [one] = await hands.insert(1)
    insert = (
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'accepted', 1)"
    )
    await hands.db.execute(insert, one)
    with pytest.raises(asyncpg.UniqueViolationError):
        await hands.db.execute(insert, one)


async def test_a_claim_returns_each_message_to_its_own_place(hands):
    await hands.begin()
    await hands.db.execute(
        "INSERT INTO dispatcher.country_pause"
        " VALUES ('default', 'GB', clock_timestamp() + interval '50 minutes', 'E000630')"
    )
    first, second = [await hands.insert(1) for _ in range(2)]  # one number: two requests
    paused = await hands.insert(1, country="+4477")
    due = await hands.db.fetchval("SELECT due_at FROM dispatcher.queue WHERE id = $1", second[0])
    [batch] = await hands.claim(slots=1)
    assert [message.id for message in batch.messages] == first
    rows = await hands.db.fetch(
        "SELECT id, code, attempt, due_at = $1 AS as_before,"
        " due_at > clock_timestamp() + interval '9 minutes' AS later"
        " FROM dispatcher.queue ORDER BY id",
        due,
    )
    assert [tuple(row) for row in rows] == [
        (*second, None, 0, True, False),
        (*paused, "E000630", 0, False, True),
    ]
