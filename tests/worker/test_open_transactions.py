"""A person's transaction that stays open keeps no claim, record or recovery of others waiting."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.messages import of_each

from dispatcher.core.outcome import Accepted, Rejected, Resolved, UnknownResult
from dispatcher.db import workers
from dispatcher.db.database import connect

BEGUN = {
    "suppress": "SELECT dispatcher.suppress('{{+8613800000001}}')",
    "pause": "SELECT dispatcher.pause('default', 'looking at it')",
    "limits": "SELECT dispatcher.set_limits('default', per_day => 5)",
    "cancel": "SELECT dispatcher.cancel(ARRAY[{queued}])",
    "requeue": "SELECT dispatcher.requeue(ARRAY[{rejected}])",
    "settle": "SELECT dispatcher.settle('{unsure}', 'resend')",
    "campaign": "SELECT dispatcher.pause_campaign('spring')",
    "insert": "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('13100000000', 't')",
}


@pytest.fixture
async def person(dsn) -> AsyncIterator[asyncpg.Connection]:
    """A session of a person, with a transaction that stays open."""
    connection = await connect(dsn)
    await connection.execute("BEGIN")
    yield connection
    await connection.close()


@pytest.mark.parametrize("kind", BEGUN)
async def test_no_step_of_a_worker_waits_for_a_person(db, hands, person, kind):
    await hands.begin(on_unsure="resend", resend_after=0.0)
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
        " VALUES ('13100000001', 't', 'spring')"
    )
    await hands.insert(1)
    [first] = await hands.claim()
    await hands.record(first, Resolved([Rejected(m, "E200028", "no") for m in first.messages]))
    unsure = []
    for number in range(2):
        await hands.insert(1, first=10 + number)
        unsure += await hands.claim()
        await hands.record(unsure[-1], UnknownResult("timeout", "no answer"))
    queued = await hands.insert(3, first=20)
    # Else the next answers need the row of the app, and wait for who pauses it (test_locked_app).
    await db.execute("UPDATE dispatcher.app SET unknown_streak = 0")
    rejected = first.messages[0].id
    names = {"queued": queued[0], "rejected": rejected, "unsure": unsure[0].token}
    await person.execute(BEGUN[kind].format(**names))
    held = queued[:1] if kind == "cancel" else []
    async with asyncio.timeout(60):  # what waits for a lock fails by itself, after 4 s
        batches = await hands.claim()
        claimed = [message for batch in batches for message in batch.messages]
        assert {message.id for message in claimed} == {*queued} - {*held}
        for batch in batches:
            answer = Resolved([Accepted(m, f"p{m.id}", 1) for m in batch.messages])
            assert await hands.record(batch, answer)
        flight = hands.flight
        await workers.release_unsent(hands.database, hands.id, flight.tokens, flight.unconfirmed)
        await workers.rescue(hands.database, hands.id, [])
        await workers.expire(hands.database)
        await workers.end_clock_waits(hands.database, 0)
        resent = await workers.resend_unsure(hands.database, hands.id)
    assert resent == ((1, 1) if kind == "settle" else (2, 2))
    assert {row["state"] for row in (await of_each(db, [m.id for m in claimed])).values()} == {
        "accepted"
    }
