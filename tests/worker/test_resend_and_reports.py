"""The policy `resend` and a report that settles the same message at the same moment."""

import asyncio

import pytest
from support.waiting import until

from dispatcher.core.outcome import UnknownResult
from dispatcher.db.database import connect
from dispatcher.db.workers import release_unsent, resend_unsure


async def test_what_a_report_is_just_settling_is_not_sent_again(hands, dsn, db):
    """A resend that started before the report, and waits for its lock, must check again."""
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await hands.insert(1)
    [batch] = await hands.claim()
    await hands.record(batch, UnknownResult("timeout", "no answer"))
    settling = await connect(dsn)
    async with settling.transaction():
        await settling.execute("SELECT FROM dispatcher.batch FOR UPDATE")
        resend = asyncio.create_task(resend_unsure(hands.database, hands.id))
        await until(lambda: has_looked(db, resend), what="it waits, or leaves it out")
        await settling.execute(
            "INSERT INTO dispatcher.report (provider_id, status, state, token)"
            " VALUES ('p1', 'DELIVRD', 'delivered', $1)",
            batch.token,
        )
        await settling.execute(
            "INSERT INTO dispatcher.outcome (message_id, batch_id, state, attempts, provider_id)"
            " VALUES ($1, $2, 'accepted', 1, 'p1')",
            batch.messages[0].id,
            batch.id,
        )
    await settling.close()
    await resend
    assert await hands.queue() == []
    assert await resend_unsure(hands.database, hands.id) == (0, 0)
    assert await hands.queue() == []


@pytest.mark.parametrize("way", ["policy", "operator", "its worker"])
async def test_what_waits_already_keeps_no_other_from_returning(hands, db, way):
    """A load of a dump with the trigger on puts what is unsure or open into the queue."""
    await hands.begin(on_unsure="resend" if way == "policy" else "hold", resend_after=0.0)
    await hands.insert(3)
    [batch] = await hands.claim()
    ids = [message.id for message in batch.messages]
    if way != "its worker":
        await hands.record(batch, UnknownResult("timeout", "no answer"))
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at)"
        " VALUES ($1, 'default', 5, now() + interval '1 day')",
        ids[1],
    )
    match way:
        case "policy":
            assert await resend_unsure(hands.database, hands.id) == (1, 2)
        case "operator":
            settled = await db.fetchval("SELECT dispatcher.settle($1, 'resend')", batch.token)
            assert settled == 2
        case _:
            lost = {batch.token: None}
            assert await release_unsent(hands.database, hands.id, set(), lost) == (1, 2)
    assert await hands.queue() == ids
    assert await db.fetchval("SELECT due_at > now() FROM dispatcher.queue WHERE id = $1", ids[1])


async def has_looked(db, resend: asyncio.Task) -> bool:
    return resend.done() or await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database())"
    )
