"""The policy `resend` and a report that settles the same message at the same moment."""

import asyncio

from support.waiting import until

from dispatcher.core.outcome import UnknownResult
from dispatcher.db.database import connect
from dispatcher.db.workers import resend_unsure


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


async def has_looked(db, resend: asyncio.Task) -> bool:
    return resend.done() or await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database())"
    )
