"""A wrong secret with much waiting: nothing is touched, and the right one is all it takes."""

from time import monotonic

import pytest
from support.exactness import read_books
from support.messages import finished, idle, insert
from support.provider import app_at
from support.slow import slow_after
from support.waiting import until

CODES = {"aksk": "E000045", "wsse": "E000105"}
MOST_MEMORY = 400  # MB of a worker, however much waits


@pytest.mark.parametrize("auth", slow_after(1, CODES))
async def test_messages_wait_and_are_sent_with_the_right_secret(db, workers, sim, auth, waiting):
    await insert(db, waiting)
    right = app_at(sim.url, auth=auth)
    wrong = right | {"app_secret": "not-the-secret"}
    worker = await workers.start({"default": wrong})
    await until(lambda: paused(db))
    refused = len(sim.journal)
    await until(lambda: idle(db))
    # Some seconds of 50 ms polls: a pause holds all claims back.
    polls = await db.fetchval("SELECT clock_timestamp()")
    await until(
        lambda: db.fetchval("SELECT clock_timestamp() > $1::timestamptz + interval '1 s'", polls),
        what="a second goes by",
    )
    assert len(sim.journal) <= refused + 8  # what was on its way when it was paused
    assert len(sim.journal) <= 40  # those sent before the first refusal was written, 8 at a time
    app = await db.fetchrow("SELECT * FROM dispatcher.app")
    assert app["pause_code"] == CODES[auth]
    assert "APP_SECRET" in app["pause_reason"]
    assert "not-the-secret" not in app["pause_reason"] + worker.text()
    queued = await db.fetchrow(
        "SELECT count(*), sum(attempts) FROM dispatcher.message_status WHERE state = 'queued'"
    )
    assert tuple(queued) == (waiting, 0)
    assert sim.ledger.numbers == 0
    paused_peak = worker.peak
    assert paused_peak < MOST_MEMORY
    worker.terminate()
    assert await worker.ended() == 0

    began = monotonic()
    sender = await workers.start({"default": right})
    await until(
        lambda: finished(db), deadline=60 + waiting / 1000, what="everything goes out by itself"
    )
    seconds = monotonic() - began
    assert sender.peak < MOST_MEMORY
    print(  # noqa: T201 - shown with -s
        f"{waiting} messages out in {seconds:.1f} s;"
        f" {paused_peak} MB while paused, {sender.peak} MB while sending"
    )
    assert not await paused(db)
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": waiting}
    assert not books.problems()
    assert {row["attempts"] for row in books.messages} == {1}


async def paused(db) -> bool:
    return await db.fetchval("SELECT paused_at IS NOT NULL FROM dispatcher.app")
