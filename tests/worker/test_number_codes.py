"""Every code that can stand by one number, and what may stand around it."""

from dataclasses import dataclass

import pytest
from support.fast_forward import let_pass
from support.messages import finished, insert, is_idle, of_each
from support.provider import app_at
from support.waiting import until

from dispatcher.core.message import Batch
from dispatcher.core.outcome import Accepted, Deferred, Resolved
from dispatcher.core.result import BatchResult, deserialize, serialize
from dispatcher.db.queries import sql
from dispatcher.db.record import record as write
from dispatcher.simulator.faults import MixedAnswer, NumberCode
from dispatcher.simulator.request import NUMBER_CODES

HOUR = 3600.0
DEFERRED = {"E200015", "E200030"}
UNKNOWN = {"E200099", "E000620", "X1", "200015"}  # the last: a code that lost its letter
REJECTED = NUMBER_CODES.keys() - {"000000"} - DEFERRED | UNKNOWN


@dataclass
class Envelope:
    """What stands at the top of an answer with refused numbers; the facts leave it open."""

    code: str
    http_status: int


ENVELOPES = {
    "page": Envelope("E000510", 400),
    "field": Envelope("E000510", 200),
    "older": Envelope("E200037", 400),
    "success": Envelope("000000", 200),
    "strange": Envelope("E000101", 401),
    "broken": Envelope("E000000", 500),
}


async def test_a_refused_number_is_rejected_and_others_accepted(play):
    scenes = await play(
        {code.lower(): [NumberCode(code=code, param="bad")] for code in sorted(REJECTED)}
    )
    for code, scene in zip(sorted(REJECTED), scenes.values(), strict=True):
        assert await scene.went_together()
        assert await scene.states() == ("accepted", "rejected", "accepted"), code
        assert scene.accepted == (1, 0, 1)
        assert len(scene.sim.journal) == 1, code  # never sent again by itself
        bad = (await scene.rows())[1]
        assert bad["code"] == code
        assert bad["reason"]
        assert bad["provider_id"] is None  # a refused number has one too; it is nobody's
        assert await scene.pause() is None


async def test_a_temporary_refusal_defers_only_its_number(play, db):
    scenes = await play(
        {code.lower(): [NumberCode(code=code, param="bad")] for code in sorted(DEFERRED)}
    )
    for code, scene in zip(sorted(DEFERRED), scenes.values(), strict=True):
        assert await scene.states() == ("accepted", "queued", "accepted"), code
        waiting = (await scene.rows())[1]
        assert (waiting["code"], waiting["attempts"]) == (code, int(code != "E200015"))
        assert len(scene.sim.journal) == 1, code
        await scene.sim.faults.clear()
    await let_pass(db, HOUR)
    await until(lambda: finished(db))
    for scene in scenes.values():
        assert await scene.states() == ("accepted",) * 3
        assert scene.accepted == (1, 1, 1)
    attempts = [[row["attempts"] for row in await scene.rows()] for scene in scenes.values()]
    assert attempts == [[1, 1, 1], [1, 2, 1]]  # what flow control returns has had none


async def test_results_are_believed_whatever_stands_around_them(play):
    scenes = await play(
        {
            name: [
                NumberCode(code="E200028", param="bad"),
                MixedAnswer(code=envelope.code, http_status=envelope.http_status),
            ]
            for name, envelope in ENVELOPES.items()
        }
    )
    for name, scene in scenes.items():
        assert await scene.states() == ("accepted", "rejected", "accepted"), name
        assert scene.accepted == (1, 0, 1)
        assert len(scene.sim.journal) == 1, name
        assert await scene.pause() is None, name


@pytest.mark.slow
async def test_a_share_of_flow_control_defers_only_those_numbers(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015", share=0.3, seed=3)])
    ids = await insert(db, 2000)
    await workers.start(sim.url)
    await until(lambda: sim.journal and not sim_open(sim))
    await until(lambda: is_idle(db))
    rows = (await of_each(db, ids)).values()
    waiting = [row for row in rows if row["state"] == "queued"]
    assert len(waiting) == 2000 - sim.ledger.numbers
    assert 400 < len(waiting) < 800
    assert {(row["code"], row["attempts"]) for row in waiting} == {("E200015", 0)}
    waits = await db.fetch(
        "SELECT extract(epoch FROM q.due_at - b.closed_at)::float AS wait"
        " FROM dispatcher.queue q JOIN dispatcher.batch b ON b.id = q.last_batch"
    )
    # The first wait, with its jitter, and the time that the record took.
    assert all(7.0 <= row["wait"] <= 25.0 for row in waits)
    assert max(row["wait"] for row in waits) - min(row["wait"] for row in waits) > 3
    for _ in range(8):  # 0.3 to the 8th of 600: few need more
        await let_pass(db, HOUR)
        await until(lambda: is_idle(db))
    await sim.faults.clear()
    await let_pass(db, HOUR)
    await until(lambda: finished(db))
    assert sim.ledger.numbers == 2000
    assert max(sim.ledger.counts().values()) == 1


def sim_open(sim) -> bool:
    return any(visit.seconds is None for visit in sim.journal)


async def test_flow_control_is_not_answered_by_a_short_retry(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015", first=1)])
    ids = await insert(db, 100)
    await workers.start(sim.url)
    await until(lambda: sim.journal and not sim_open(sim))
    await until(lambda: is_idle(db))
    rows = (await of_each(db, ids)).values()
    assert {(row["attempts"], row["code"]) for row in rows} == {(0, "E200015")}
    assert len(sim.journal) == 1
    await let_pass(db, 20)
    await until(lambda: finished(db))
    assert sim.ledger.numbers == 100


@pytest.mark.slow
async def test_waits_for_flow_control_grow_up_to_ten_minutes(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015", param="bad")])
    await insert(db, 1, params=["good"])
    (slow,) = await insert(db, 1, params=["bad"], first=1)
    await workers.start({"default": app_at(sim.url, max_attempts=3)})
    waits = []
    for time in range(1, 9):
        wait = await until(
            lambda time=time: db.fetchval(
                "SELECT extract(epoch FROM due_at - clock_timestamp())::float"
                " FROM dispatcher.queue WHERE id = $1 AND throttled = $2",
                slow,
                time,
            ),
            what=f"time {time}",
        )
        waits.append(wait)
        await let_pass(db, 600)
    for time, wait in enumerate(waits):
        longest = min(600, 15 * 2**time)
        assert longest / 2 - 5 <= wait <= longest
    await until(lambda: is_idle(db))
    end = (await of_each(db, [slow]))[slow]
    assert (end["state"], end["code"], end["attempts"]) == ("queued", "E200015", 0)


@pytest.mark.slow
async def test_flow_control_slows_the_app_until_it_recovers(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015", share=0.5)])
    await insert(db, 200)
    await workers.start({"default": app_at(sim.url, numbers_per_second=1000)})
    # How far it fell is not looked at here: it begins to recover with the next claim.
    await until(
        lambda: db.fetchval("SELECT rate FROM dispatcher.app WHERE rate < numbers_per_second")
    )
    await sim.faults.clear()
    await until(lambda: is_idle(db))
    # Five minutes from nothing to full: as if four of them were over.
    await db.execute("UPDATE dispatcher.app SET rate = 0.998 * numbers_per_second")
    await insert(db, 3000, first=1000)
    await until(lambda: db.fetchval("SELECT rate = numbers_per_second FROM dispatcher.app"))


async def test_a_new_template_gets_three_attempts(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200030")])
    ids = await insert(db, 3)
    await workers.start(sim.url)
    for attempt in (1, 2):
        await until(
            lambda attempt=attempt: db.fetchval(
                "SELECT count(*) = 3 FROM dispatcher.queue WHERE attempt = $1", attempt
            )
        )
        await let_pass(db, 301)
    await until(lambda: finished(db))
    rows = (await of_each(db, ids)).values()
    assert {(r["state"], r["code"], r["attempts"]) for r in rows} == {("rejected", "E200030", 3)}
    assert len(sim.journal) == 3


@pytest.mark.slow
async def test_a_deferral_past_the_expiry_ends_it_at_once(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200030", first=1, share=0.5)])  # waits five minutes
    await workers.start(sim.url)
    lifetime = 90.0  # less than that
    ids = await insert(db, 100, lifetime=lifetime)
    await until(lambda: finished(db))  # without waiting for the expiry itself
    rows = (await of_each(db, ids)).values()
    expired = [row for row in rows if row["state"] == "expired"]
    assert len(expired) == 100 - sim.ledger.numbers > 0
    assert {row["code"] for row in expired} == {"E200030"}


async def test_flow_control_gives_a_rate_to_an_app_without_one(hands):
    await hands.begin()
    await hands.insert(40)
    for half in (20, 40):
        [batch] = await hands.claim(slots=1)
        refused = [
            Deferred(one, "E200015", 600.0, counted=False, throttled=True)
            for one in batch.messages[:half]
        ]
        taken = [Accepted(one, f"id-{one.id}", 1) for one in batch.messages[half:]]
        assert await hands.record(batch, Resolved(taken + refused, throttled=len(refused)))
        assert await hands.db.fetchval("SELECT rate IS NULL FROM dispatcher.app") is (half == 20)
        await hands.db.execute("UPDATE dispatcher.app SET window_at = window_at - interval '61 s'")
        await hands.insert(40, first=100)
    rate, setting = await hands.db.fetchrow("SELECT rate, numbers_per_second FROM dispatcher.app")
    assert 1 <= rate < 5
    assert setting is None


async def test_it_is_kept_how_often_flow_control_returned_a_message(db, hands):
    """Through other returns, and through the spool: its wait grows by that alone."""
    await hands.begin()
    [one] = await hands.insert(1)

    async def record(*outcomes: Deferred, batch: Batch) -> tuple[int, ...]:
        closing = BatchResult(batch, Resolved(list(outcomes)), 200, "000000", "", 1, 0.1)
        read = deserialize(serialize(closing))
        assert read is not None
        recorded = await write(hands.database, hands.id, [read])
        assert recorded.written == {batch.token}
        [row] = await db.fetch("SELECT id, attempt, throttled FROM dispatcher.queue")
        return tuple(row)

    for time in (1, 2):
        [batch] = await hands.claim()
        [message] = batch.messages
        assert (message.attempt, message.throttled) == (1, time - 1)
        back = Deferred(message, "E200015", 0.0, counted=False, throttled=True)
        assert await record(back, batch=batch) == (one, 0, time)
    [batch] = await hands.claim()
    back = Deferred(batch.messages[0], "E200030", 0.0, counted=True)
    assert await record(back, batch=batch) == (one, 1, 2)
    [batch] = await hands.claim()
    assert await record(
        Deferred(batch.messages[0], "never-sent", 0.0, counted=False), batch=batch
    ) == (one, 1, 2)
    await db.execute(sql("postpone_queued"), one, 0.0, "write-refused")
    [batch] = await hands.claim()
    assert (batch.messages[0].attempt, batch.messages[0].throttled) == (2, 2)


async def test_a_message_that_no_slot_has_keeps_its_throttles(db, hands):
    await hands.begin()
    for number in range(2):  # two messages to one number take a request each
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id, params)"
            " VALUES ('+8613800000001', 't', $1)",
            [str(number)],
        )
    await db.execute("UPDATE dispatcher.queue SET throttled = 3, attempt = 1")
    assert len(await hands.claim(slots=1)) == 1
    rows = await db.fetch("SELECT throttled, attempt FROM dispatcher.queue")
    assert [tuple(row) for row in rows] == [(3, 1)]
