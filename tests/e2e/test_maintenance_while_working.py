"""History leaves while the service works, and what is wiped is wiped by it."""

from time import monotonic

import pytest
from support.messages import finished, insert, states
from support.provider import app_at
from support.waiting import until

ROUND_SECONDS = 10.0  # of maintenance at most, on a busy machine


@pytest.mark.slow
async def test_a_working_service_wipes_drops_and_prepares(db, workers, sim):
    old = await insert(db, 200)
    first = await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db), what="the old messages have their end")
    first.terminate()
    assert await first.ended() == 0
    # 40 days pass, and so many messages that their partition is full and more are needed.
    for column in ("message.queued_at", "outcome.created_at"):
        table, name = column.split(".")
        await db.execute(f"UPDATE dispatcher.{table} SET {name} = {name} - interval '40 days'")
    await db.execute("SELECT setval('dispatcher.message_id', 12000000)")

    async def start():
        app = app_at(sim.url)
        return await workers.start({"default": app}, retention="30d", wipe_params_after="60s")

    worker, began = await start(), monotonic()
    young = await insert(db, 300, first=1000)
    assert young[0] > 12_000_000 > old[-1]
    await until(lambda: finished(db), what="the young messages have their end")

    async def maintained(question: str) -> bool:
        """Ask *question*; a lock of another session puts it off to the next round: begin that."""
        nonlocal worker, began
        if await db.fetchval(question):
            return True
        if monotonic() - began > ROUND_SECONDS:
            worker.terminate()
            assert await worker.ended() == 0
            worker, began = await start(), monotonic()
        return False

    gone = "SELECT to_regclass('dispatcher.message_1_to_5000001') IS NULL"
    await until(lambda: maintained(gone), deadline=60, what="the old partition is dropped")
    made = "SELECT to_regclass('dispatcher.message_30000001_to_35000001') IS NOT NULL"
    await until(lambda: maintained(made), deadline=60, what="partitions are made ahead")
    assert await states(db) == {"accepted": 300}
