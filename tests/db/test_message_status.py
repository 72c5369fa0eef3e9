"""The view message_status: where a message is, its result, its reports."""

import pytest

from dispatcher.core.report_status import report_status
from dispatcher.db.reports import register_statuses
from dispatcher.db.status import batch, unsure


async def status(db, message: int = 1):
    return await db.fetchrow("SELECT * FROM dispatcher.message_status WHERE id = $1", message)


async def test_its_columns_are_those_of_the_surface(db, rows):
    await rows.messages()
    assert list((await status(db)).keys()) == [
        "id",
        "app",
        "sender",
        "recipient",
        "template_id",
        "reference",
        "priority",
        "state",
        "attempts",
        "provider_id",
        "code",
        "reason",
        "segments",
        "queued_at",
        "due_at",
        "accepted_at",
        "finished_at",
        "report_status",
        "batch_token",
        "campaign",
    ]


async def test_queued(db, rows):
    await rows.messages()
    row = await status(db)
    assert (row["state"], row["attempts"], row["finished_at"]) == ("queued", 0, None)
    assert row["due_at"] is not None


async def test_a_returned_message_shows_its_last_batch_and_why(db, rows):
    (message,) = await rows.messages()
    batch = await rows.batch([message])
    await db.execute(
        "UPDATE dispatcher.batch SET state = 'closed', description = 'too fast' WHERE id = $1",
        batch,
    )
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, attempt, last_batch, code) "
        "VALUES ($1, 'default', 5, now() + interval '1 minute', 1, $2, 'E200015')",
        message,
        batch,
    )
    row = await status(db)
    assert (row["state"], row["attempts"], row["code"]) == ("queued", 1, "E200015")
    assert (row["batch_token"], row["reason"]) == ("token1", "too fast")


async def test_sending(db, rows):
    await rows.batch(await rows.messages(3))
    row = await status(db, 2)
    assert (row["state"], row["attempts"], row["batch_token"]) == ("sending", 1, "token1")
    assert row["due_at"] is None


async def test_unsure(db, rows):
    await rows.batch(await rows.messages(), state="unsure")
    row = await status(db)
    assert (row["state"], row["code"], row["batch_token"]) == ("unsure", "timeout", "token1")
    assert row["finished_at"] is None


async def test_an_unsure_request_counts_what_is_in_question(database, db, rows):
    ids = await rows.messages(5)
    await rows.batch(ids, state="unsure")
    assert [each.messages for each in await unsure(database)] == [5]
    await db.execute("UPDATE dispatcher.batch SET unsure_ids = $1", ids[:2])
    assert [each.messages for each in await unsure(database)] == [2]
    found = (await batch(database, "token1")).batch
    assert (found["messages"], found["in_question"]) == (5, 2)


async def test_accepted(db, rows):
    (message,) = await rows.messages()
    batch = await rows.batch([message])
    await rows.outcome(message, "accepted", provider_id="p", batch_id=batch, segments=2)
    await db.execute("UPDATE dispatcher.batch SET state = 'closed'")
    row = await status(db)
    assert (row["state"], row["provider_id"], row["segments"]) == ("accepted", "p", 2)
    assert (row["batch_token"], row["report_status"]) == ("token1", None)
    assert row["accepted_at"] is not None
    assert row["finished_at"] is None


@pytest.mark.parametrize(("stored", "shown"), [(None, "000000"), ("settled", "settled")])
async def test_an_accepted_message_has_a_code(db, rows, stored, shown):
    (message,) = await rows.messages()
    await rows.outcome(message, "accepted", code=stored)
    assert (await status(db))["code"] == shown


@pytest.mark.parametrize("state", ["rejected", "expired", "cancelled"])
async def test_never_sent(db, rows, state):
    (message,) = await rows.messages()
    await rows.outcome(message, state, code="E1", reason="because")
    row = await status(db)
    assert (row["state"], row["code"], row["reason"]) == (state, "E1", "because")
    assert row["accepted_at"] is None
    assert row["finished_at"] is not None


# segments as (segment, status, state), of how many in all, and what the message then is
REPORTS = [
    ([(1, "DELIVRD", "delivered")], 1, "delivered", "DELIVRD"),
    ([(1, "UNDELIV", "undelivered")], 1, "undelivered", "UNDELIV"),
    ([(1, "ENROUTE", "interim")], 1, "accepted", "ENROUTE"),
    ([(1, "DELIVRD", "delivered")], 2, "accepted", "DELIVRD"),
    (
        [(1, "DELIVRD", "delivered"), (2, "DELIVRD", "delivered")],
        2,
        "delivered",
        "DELIVRD",
    ),
    (
        [(1, "DELIVRD", "delivered"), (2, "EXPIRED", "undelivered")],
        2,
        "undelivered",
        "EXPIRED",
    ),
    ([(2, "EXPIRED", "undelivered")], 3, "undelivered", "EXPIRED"),
    ([(1, "DELIVRD", "delivered"), (2, "ENROUTE", "interim")], 2, "accepted", "DELIVRD"),
]


@pytest.mark.parametrize("case", REPORTS)
async def test_reports_decide_what_an_accepted_message_is(db, rows, case):
    segments, total, state, told = case
    (message,) = await rows.messages()
    await rows.outcome(message, "accepted", provider_id="p")
    for segment, reported, report_state in segments:
        await rows.report("p", reported, report_state, segment=segment, total=total)
    row = await status(db)
    assert (row["state"], row["report_status"], row["segments"]) == (state, told, total)
    assert (row["finished_at"] is not None) == (state != "accepted")


async def test_a_status_in_small_letters_has_its_meaning(db, database, rows):
    await register_statuses(database)
    (message,) = await rows.messages()
    await rows.outcome(message, "accepted", provider_id="p")
    await rows.report("p", "undeliv", "undelivered")
    row = await status(db)
    assert (row["report_status"], row["reason"]) == ("undeliv", report_status("UNDELIV").meaning)


async def test_a_message_that_is_nowhere_is_told_to_be_lost(db, rows):
    await rows.messages()
    await db.execute("DELETE FROM dispatcher.queue")
    assert (await status(db))["state"] == "lost"


async def test_a_look_at_what_is_being_sent_reads_only_open_batches(db, rows):
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes, state) "
        "SELECT 'old' || i, 'default', 1, ARRAY[1], ARRAY[1::smallint], 1, 'closed' "
        "FROM generate_series(1, 20000) i"
    )
    await rows.batch(await rows.messages())
    await db.execute("ANALYZE dispatcher.batch")
    plan = await db.fetch("EXPLAIN SELECT * FROM dispatcher.message_status WHERE id = 1")
    text = "\n".join(row[0] for row in plan)
    assert "batch_open" in text
    assert "Seq Scan on batch" not in text
