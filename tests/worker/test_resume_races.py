"""`resume` during claims and requests: what they decided before it does not outlast it."""

import asyncio
from datetime import datetime

import pytest
from support.claims import arrange
from support.waiting import until

from dispatcher.core.codes import request_code
from dispatcher.core.country import country
from dispatcher.core.delays import Pause, country_pause, pause_for
from dispatcher.core.outcome import Accepted, Deferred, Resolved, ReturnAll, UnknownResult
from dispatcher.core.rules import Rules
from dispatcher.db.circuit import end_probe
from dispatcher.db.claim import claim
from dispatcher.db.database import connect
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.operator import resume
from dispatcher.db.queries import sql
from dispatcher.db.rules import Screen

OVER = "SELECT count(*) FROM dispatcher.queue WHERE due_at > clock_timestamp()"
RESUME = "SELECT dispatcher.resume('default', 'a test')"
LOCKED = (
    "SELECT count(*) > 0 FROM pg_stat_activity"
    " WHERE query LIKE '%dispatcher.resume(%' AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def operator(dsn):
    """A second connection, of an operator."""
    connection = await connect(dsn)
    yield connection
    await connection.close()


async def pause_china(db) -> None:
    await db.execute(
        "INSERT INTO dispatcher.country_pause"
        " VALUES ('default', 'CN', clock_timestamp() + interval '50 minutes', 'E000630')"
    )


async def test_a_claim_under_way_postpones_nothing_past_resume(db, database, hands, operator):
    await hands.begin()
    await hands.insert(20)
    await pause_china(db)
    resumed: list[asyncio.Task] = []

    class Slow(Screen):
        async def decide(self, *_):  # the claim has read the pauses
            resumed.append(asyncio.create_task(operator.execute(RESUME)))
            await until(lambda: db.fetchval(LOCKED), what="resume waits for the claim")
            return {}

    claimed = await claim(
        database,
        hands.id,
        ClaimRequest("default", sender="s"),
        arrange=arrange,
        token=hands.flight.new_token,
        screen=Slow("default", Rules(), country=country),
    )
    assert not claimed.batches
    await resumed[0]
    assert await db.fetchval(OVER) == 0
    assert sum(len(batch.messages) for batch in await hands.claim()) == 20


async def refused_for_its_country(hands, batch) -> None:
    row = request_code("E000630")
    pause = country_pause("CN", row, now=await hands.db.fetchval("SELECT now()"))
    outcomes = [Deferred(m, row.code, pause.until_in, counted=False) for m in batch.messages]
    assert await hands.record(batch, Resolved(outcomes, countries=[pause]))


async def test_an_older_refusal_does_not_pause_a_resumed_country(db, hands, operator):
    await hands.begin()
    await hands.insert(20)
    [batch] = await hands.claim()
    await pause_china(db)
    await operator.execute(RESUME)
    await refused_for_its_country(hands, batch)
    assert await db.fetchval(OVER) == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.country_pause") == 0
    [later] = await hands.claim()
    await refused_for_its_country(hands, later)
    assert await db.fetchval(OVER) == 20
    assert await db.fetchval("SELECT count(*) FROM dispatcher.country_pause") == 1


async def paused(db) -> bool:
    return await db.fetchval("SELECT paused_at IS NOT NULL FROM dispatcher.app")


async def two_batches(hands):
    await hands.begin()
    await hands.insert(1)
    [first] = await hands.claim()
    await hands.insert(1, first=10)
    [second] = await hands.claim()
    return first, second


WRONG_SECRET = ReturnAll(pause_for(request_code("E000045")))
UNKNOWN = UnknownResult("HTTP 502", "a proxy lost it")


async def test_an_older_refusal_does_not_pause_a_resumed_app(db, hands, operator):
    first, second = await two_batches(hands)
    await hands.record(first, WRONG_SECRET)
    assert await paused(db)
    await operator.execute(RESUME)
    await hands.record(second, WRONG_SECRET)
    assert not await paused(db)
    [again] = await hands.claim()
    await hands.record(again, WRONG_SECRET)
    assert await paused(db)


async def test_an_older_lost_answer_does_not_open_the_circuit_again(db, database, hands):
    first, second = await two_batches(hands)
    await db.execute("UPDATE dispatcher.app SET unknown_streak = 2")
    await hands.record(first, UNKNOWN)
    assert await paused(db)
    await end_probe(database, "default", await now(db))
    await hands.record(second, UNKNOWN)
    assert not await paused(db)
    await hands.insert(1, first=20)
    [later] = await hands.claim()
    await hands.record(later, UNKNOWN)
    assert await paused(db)


async def now(db) -> datetime:
    return await db.fetchval("SELECT clock_timestamp()")


async def test_a_late_answer_to_a_probe_ends_no_newer_pause(db, database, hands):
    first, _ = await two_batches(hands)
    await db.execute("UPDATE dispatcher.app SET unknown_streak = 2")
    probed_at = await now(db)  # of the pause before
    await hands.record(first, UNKNOWN)
    await end_probe(database, "default", probed_at)
    assert await paused(db)
    await db.execute("UPDATE dispatcher.app SET probe_at = now()")
    probed_at = await db.fetchval(sql("take_probe"), "default", 0.0)
    await end_probe(database, "default", probed_at)
    assert not await paused(db)


async def test_a_pause_end_that_lies_ahead_counts_for_nothing(db, hands):
    """A fail-over to a server whose clock is right, from one whose clock was ahead."""
    first, second = await two_batches(hands)
    await db.execute("UPDATE dispatcher.app SET pause_ended_at = now() + interval '1 hour'")
    await refused_for_its_country(hands, first)
    assert await db.fetchval(OVER) == 1
    await hands.record(second, WRONG_SECRET)
    assert await paused(db)
    await hands.begin()
    assert await db.fetchval("SELECT pause_ended_at <= clock_timestamp() FROM dispatcher.app")


async def test_a_pause_that_began_ahead_ends_with_an_answer(db, hands):
    first, _ = await two_batches(hands)
    await hands.record(first, WRONG_SECRET)
    await db.execute(
        "UPDATE dispatcher.app SET paused_at = paused_at + interval '1 hour', probe_at = now()"
    )
    [probe] = await hands.claim()
    await hands.record(probe, Resolved([Accepted(m, "p", 1) for m in probe.messages]))
    assert not await paused(db)


async def test_a_message_refused_for_itself_runs_out_of_attempts(db, hands):
    """Else an urgent one pauses the app again and again: others end the pause, and it is first."""
    await hands.begin()
    [bad] = await hands.insert(1, priority=0)
    waits = []
    for attempt in (1, 2):
        [refused] = await hands.claim()
        assert [(m.id, m.attempt) for m in refused.messages] == [(bad, attempt)]
        back = [Deferred(m, "E999999", 60.0, counted=True) for m in refused.messages]
        await db.execute("UPDATE dispatcher.app SET refused_texts = '{7}'")  # one before it, too
        pause = Pause("E999999", "", 5.0, 5.0)
        await hands.record(refused, Resolved(back, refused=True, pause=pause))
        assert await paused(db)
        await hands.insert(1, first=attempt)
        await db.execute("UPDATE dispatcher.app SET probe_at = clock_timestamp()")
        [probe] = await hands.claim()
        await hands.record(probe, Resolved([Accepted(m, "p", 1) for m in probe.messages]))
        assert not await paused(db)
        waits += await db.fetch("SELECT attempt, due_at > clock_timestamp() FROM dispatcher.queue")
    assert [tuple(row) for row in waits] == [(1, False), (2, True)]


async def test_a_probe_that_a_firewall_refuses_ends_no_pause(db, hands):
    first, _ = await two_batches(hands)
    await hands.record(first, WRONG_SECRET)
    await db.execute("UPDATE dispatcher.app SET probe_at = clock_timestamp()")
    [probe] = await hands.claim()
    back = [Deferred(m, "HTTP 418", 60.0, counted=True) for m in probe.messages]
    pause = Pause("HTTP 418", "", 60.0, 600.0)
    await hands.record(probe, Resolved(back, refused=True, pause=pause))
    assert await paused(db)
    assert await db.fetchval("SELECT pause_code FROM dispatcher.app") == "HTTP 418"


async def test_what_a_slow_start_puts_back_keeps_why_it_returned(db, hands):
    """Else the next pause would be probed by what was refused, and not by the others."""
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    back = [Deferred(m, "E000027", 0.0, counted=True) for m in batch.messages]
    await hands.record(batch, Resolved(back, refused=True))
    await hands.insert(20, first=10)  # in a bulk row
    await db.execute("UPDATE dispatcher.app SET slow_start = 1, slow_start_left = 1")
    [first] = await hands.claim()
    assert len(first.messages) == 1
    rows = await db.fetch("SELECT code, last_batch, attempt FROM dispatcher.queue ORDER BY due_at")
    assert [tuple(row) for row in rows] == [("E000027", batch.id, 1)] * 2 + [(None, None, 0)] * 20


async def test_what_a_round_lost_is_claimed_again_in_parts(db, hands):
    """A round whose requests were lost with their workers must not cost the wait for each claim."""
    await hands.begin()
    await db.execute(
        "UPDATE dispatcher.app SET slow_start = 8, slow_start_left = 0, slow_start_answered = 2,"
        " slow_start_at = now() - interval '1 hour'"
    )
    for number, left in enumerate((5, 4, 3)):
        await hands.insert(1, first=number)
        assert len(await hands.claim()) == 1
        assert await db.fetchval("SELECT slow_start_left FROM dispatcher.app") == left


async def test_resume_makes_many_due_in_steps(db, hands, operator):
    await hands.begin()
    await db.execute(
        "INSERT INTO dispatcher.queue (id, app, priority, due_at, code)"
        " SELECT -n, 'default', 5, now() + interval '50 minutes', 'E000630'"
        " FROM generate_series(1, 20050) AS n"
    )
    await pause_china(db)
    await operator.execute(RESUME)
    assert await db.fetchval(OVER) == 50  # one transaction makes so many due
    await pause_china(db)
    assert await db.fetchval("SELECT dispatcher.end_country_waits('default')") == 0
    await resume(operator, "a test", "default")
    assert await db.fetchval(OVER) == 0


@pytest.mark.parametrize("code", ["E000505", "E000630"])
async def test_what_is_moved_under_a_pause_waits_for_its_new_time(db, hands, operator, code):
    await hands.begin()
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
        " VALUES ('+8613112345678', 't', 'list')"
    )
    [batch] = await hands.claim()
    if code == "E000630":
        waits = [Deferred(each, code, 600.0, counted=False) for each in batch.messages]
        assert await hands.record(batch, Resolved(waits))
    else:
        assert await hands.record(batch, ReturnAll(Pause(code, "a wrong key", 60.0, 60.0)))
    await db.execute("SELECT dispatcher.move_campaign('list', NULL, priority => 2)")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == 1
    assert await db.fetchval("SELECT code FROM dispatcher.queue") == code
    await db.execute("SELECT dispatcher.move_campaign('list', now() + interval '30 minutes')")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == 1
    await resume(operator, "a test", "default")
    assert await db.fetchval("SELECT due_at > now() + interval '29 minutes' FROM dispatcher.queue")
