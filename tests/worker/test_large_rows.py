"""Messages with large variables: a claim reads few of them at once, and all are sent."""

import pytest
from support.messages import finished, states
from support.provider import app_at
from support.waiting import until

from dispatcher.db.due_messages import MAX_LARGE_BYTES

LARGE = 60_000  # bytes


async def insert_large(db, count: int) -> None:
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " SELECT '+86138' || lpad(n::text, 8, '0'), 't', ARRAY[repeat('x', $2)]"
        " FROM generate_series(1, $1::int) AS n",
        count,
        LARGE,
    )


async def test_a_claim_reads_a_bounded_number_of_bytes(db, hands):
    await hands.begin()
    await insert_large(db, 200)
    small = await hands.insert(5)
    sent: list[int] = []
    while batches := await hands.claim():
        messages = [message for batch in batches for message in batch.messages]
        assert sum(len(m.params[0]) for m in messages) <= MAX_LARGE_BYTES
        assert all(len(m.params[0]) == LARGE for m in messages if m.id not in small)
        sent += [message.id for message in messages]
    assert len(sent) == len(set(sent)) == 205


@pytest.mark.slow
async def test_large_rows_cost_a_worker_little_memory(db, workers, sim):
    await insert_large(db, 1500)
    worker = await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db), deadline=60)
    assert await states(db) == {"accepted": 1500}
    assert worker.peak < 200  # MB
