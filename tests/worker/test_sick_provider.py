"""A sick provider: few messages become unsure or rejected, and the rest goes out afterwards."""

import pytest
from support.exactness import read_books
from support.fast_forward import let_pass
from support.messages import TEMPLATE, finished, idle, insert, states
from support.provider import app_at, seen
from support.slow import slow_after
from support.waiting import until

from dispatcher.simulator.faults import (
    Cut,
    Http,
    NumberCode,
    RequestCode,
    Reset,
    StallAfterReading,
)
from dispatcher.worker.claim_loop import RequestSlots

WAITING = 1000
IN_FLIGHT = 400  # messages: three requests, and what is on its way while they are recorded
BROWN_OUT = {
    "500": Http(status=500),
    "502": Http(status=502, html=True),
    "503": Http(status=503, accept=True),
    "504": Http(status=504),
    "cut": Cut(accept=False),
    "reset": Reset(),
    "stall": StallAfterReading(),
    "server-error": RequestCode(code="E000000", http_status=500),
}


async def insert_different(db, count: int) -> None:
    """Insert messages with a text of their own each."""
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " SELECT '+86138' || lpad(n::text, 8, '0'), $1, ARRAY[n::text]"
        " FROM generate_series(1, $2::int) AS n",
        TEMPLATE,
        count,
    )


async def paused_for(db, *codes: str) -> bool:
    return await db.fetchval("SELECT pause_code = ANY ($1) FROM dispatcher.app", codes)


async def all_out(db) -> bool:
    """Let ten seconds pass if nothing is on its way, and tell whether all is done."""
    if await idle(db):
        await let_pass(db, 10.0)
    return await finished(db)


@pytest.mark.parametrize("fault", slow_after(1, BROWN_OUT))
async def test_a_brown_out_makes_few_messages_unsure(db, workers, sim, fault):
    await sim.faults.arm([BROWN_OUT[fault]])
    await insert_different(db, WAITING)
    timeout = "1s" if fault == "stall" else "30s"
    await workers.start({"default": app_at(sim.url, timeout=timeout, numbers_per_second=500)})
    await until(lambda: paused_for(db, "unknown-results"))
    await until(lambda: idle(db))
    unsure = (await states(db))["unsure"]
    assert 0 < unsure <= IN_FLIGHT
    reason = await db.fetchval("SELECT pause_reason FROM dispatcher.app")
    assert "unknown" in reason
    # Probes hold no message: nothing else becomes unsure.
    requests = len(sim.journal)
    for _ in range(5):
        await let_pass(db, 10.0)
        await until(lambda n=requests: len(sim.journal) > n, what="a probe")
        requests = len(sim.journal)
    assert (await states(db))["unsure"] == unsure
    assert sim.journal[-1].numbers == 0

    await sim.faults.clear()
    await until(lambda: all_out(db))
    assert await states(db) == {"accepted": WAITING - unsure, "unsure": unsure}
    assert not (await read_books(db, sim.ledger.rows())).problems()


@pytest.mark.slow
async def test_a_healed_app_starts_with_one_message_and_doubles(db, workers, sim):
    await sim.faults.arm([Http(status=502)])
    await insert(db, 24_000)  # all rounds take 5,461, besides what is on its way at first
    await workers.start(sim.url)
    await until(lambda: paused_for(db, "unknown-results"))
    await until(lambda: idle(db))
    await sim.faults.clear()
    before = len(sim.journal)
    await until(lambda: all_out(db))
    after = [visit.numbers for visit in sim.journal[before:] if visit.numbers]
    assert after[0] == 1
    assert max(after[1:3]) == 2  # of less, where not all is back in the queue
    assert max(after) >= 64
    assert await db.fetchval("SELECT slow_start IS NULL FROM dispatcher.app")


async def test_what_was_throttled_starts_with_one_message_too(db, workers, sim):
    await sim.faults.arm([Http(status=429)])
    await insert(db, 500)
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await until(lambda: paused_for(db, "HTTP 429"))
    await until(lambda: idle(db))
    await sim.faults.clear()
    before = len(sim.journal)
    await until(lambda: all_out(db))
    after = [visit.numbers for visit in sim.journal[before:]]
    # A probe is a message; then one request, then two: of less, where not all is back in the queue.
    assert after[:2] == [1, 1]
    assert max(after[2:4]) == 2
    assert await states(db) == {"accepted": 500}


@pytest.mark.slow
async def test_an_answered_probe_and_a_lost_request_open_again(db, workers, sim):
    await sim.faults.arm([Cut(accept=False, prefix="+86138")])  # only requests with messages
    await insert_different(db, WAITING)
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await until(lambda: paused_for(db, "unknown-results"))
    await until(lambda: idle(db))
    unsure = (await states(db))["unsure"]
    waits = []
    for cycle in range(1, 5):
        await let_pass(db, 60.0)
        await until(
            lambda n=unsure + cycle: db.fetchval(
                "SELECT count(*) = $1 FROM dispatcher.message_status WHERE state = 'unsure'", n
            )
        )
        await until(lambda: paused_for(db, "unknown-results"))
        waits.append(await db.fetchval("SELECT date_part('epoch', probe_wait) FROM dispatcher.app"))
    assert waits == sorted(waits)
    assert waits[-1] > 30  # each cycle costs a message, so they become rare


async def test_half_of_all_requests_lost_opens_the_circuit(db, workers, sim):
    await sim.faults.arm([Http(status=502, every=2)])
    await insert_different(db, 200)
    app = app_at(sim.url, numbers_per_second=100, concurrency=2, circuit_unknown=5)
    await workers.start({"default": app})
    await until(lambda: paused_for(db, "unknown-results"))


@pytest.mark.parametrize(
    "fault",
    slow_after(1, [RequestCode(code=code) for code in ("E000027", "E000503", "E000000")]),
    ids=["E000027", "E000503", "E000000"],
)
async def test_a_refusal_of_everything_rejects_few_messages(db, workers, sim, fault):
    await sim.faults.arm([fault])
    await insert_different(db, WAITING)
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await until(lambda: paused_for(db, "all-refused"))
    await until(lambda: idle(db))
    for probe in range(3):
        before = len(sim.journal)
        await let_pass(db, 30.0 if probe else 5.0)
        await until(lambda n=before: len(sim.journal) > n, what="a probe")
        await until(lambda: idle(db))
        assert await paused_for(db, "all-refused")
        assert sim.journal[-1].numbers == 1
    rejected = (await states(db)).get("rejected", 0)
    assert rejected <= 4
    await sim.faults.clear()
    await until(lambda: all_out(db))
    await let_pass(db, 3600.0)
    await until(lambda: finished(db))
    assert (await states(db))["accepted"] == WAITING - rejected
    assert not (await read_books(db, sim.ledger.rows())).problems()


async def test_a_refused_probe_is_followed_soon_by_the_next(db, workers, sim):
    """Not after the time-out of a request: the last probe was answered."""
    await sim.faults.arm([RequestCode(code="E000027")])
    await insert_different(db, 20)
    await workers.start({"default": app_at(sim.url, timeout="30s", numbers_per_second=500)})
    await until(lambda: paused_for(db, "all-refused"))
    await until(lambda: idle(db))
    for _ in range(3):
        before = len(sim.journal)
        await let_pass(db, 30.0)
        await until(lambda n=before: len(sim.journal) > n, what="a probe")
        await until(lambda: idle(db))
    soon = "SELECT probe_at < clock_timestamp() + interval '11 s' FROM dispatcher.app"
    assert await db.fetchval(soon)


@pytest.mark.slow
async def test_an_unknown_code_for_everything_rejects_nothing(db, workers, sim):
    await sim.faults.arm([RequestCode(code="E999999", http_status=400)])
    await insert_different(db, WAITING)
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    # Where several refusals are written together, the circuit opens first.
    await until(lambda: paused_for(db, "E999999", "all-refused"))
    await until(lambda: idle(db))
    await sim.faults.clear()
    await let_pass(db, 3600.0)
    await until(lambda: all_out(db))
    assert await states(db) == {"accepted": WAITING}


async def test_one_unknown_code_does_not_stop_the_other_messages(db, workers, sim):
    await sim.faults.arm([RequestCode(code="E999999", http_status=400, param="7")])
    await insert_different(db, 100)
    await workers.start(sim.url)
    await seen(sim, lambda: sim.ledger.numbers == 99)
    await until(lambda: idle(db))
    assert not await paused_for(db, "E999999", "all-refused")
    assert await states(db) == {"accepted": 99, "queued": 1}


def test_the_first_time_outs_make_no_request_larger():
    slots = RequestSlots(8, reserved=1)
    for _ in range(3):  # then the circuit is open
        slots.record_duration(30.0)
        assert slots.median_duration == 0.0
    slots.record_duration(0.2)
    assert slots.median_duration > 0.0


@pytest.mark.slow
async def test_two_workers_share_the_circuit(db, workers, sim):
    await sim.faults.arm([Http(status=502)])
    app = {"default": app_at(sim.url, numbers_per_second=500)}
    await workers.start(app)
    await workers.start(app)
    await insert_different(db, WAITING)
    await until(lambda: paused_for(db, "unknown-results"))
    await until(lambda: idle(db))
    assert (await states(db))["unsure"] <= 2 * IN_FLIGHT


async def test_flow_control_does_not_open_the_circuit(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015")])
    await insert_different(db, 100)
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await seen(sim, lambda: len(sim.journal) >= 8)
    await until(lambda: idle(db))
    assert await db.fetchval("SELECT paused_at IS NULL FROM dispatcher.app")


async def test_a_probe_is_a_message_that_was_not_refused_yet(hands):
    """Refused ones, however urgent, would keep the app paused for the others."""
    await hands.begin()
    urgent = await hands.insert(3, priority=0)
    ordinary = await hands.insert(2)
    await hands.db.execute(
        "UPDATE dispatcher.queue SET code = 'E000027' WHERE id = ANY ($1::bigint[])", urgent
    )
    for expected in (*ordinary, *urgent):
        await hands.db.execute(
            "UPDATE dispatcher.app SET paused_at = now(), paused_by = 'worker',"
            " pause_code = 'all-refused', probe_at = now()"
        )
        [batch] = await hands.claim()
        assert [message.id for message in batch.messages] == [expected]


async def test_a_probe_that_finds_nothing_due_waits_a_second(hands):
    """A look reads all of a paused campaign, and each loop of each worker would repeat it."""
    await hands.begin()
    await hands.db.execute(
        "UPDATE dispatcher.app SET paused_at = now(), paused_by = 'worker',"
        " pause_code = 'all-refused', probe_at = now(), probe_wait = '5 s', probe_max = '5 s'"
    )
    looked_at = await hands.db.fetchval("SELECT clock_timestamp()")
    assert not await hands.claim()
    probe_at = await hands.db.fetchval("SELECT probe_at FROM dispatcher.app")
    assert 1.0 <= (probe_at - looked_at).total_seconds() < 30.0
    await hands.insert(1)
    await let_pass(hands.db, 5.0)
    assert len(await hands.claim()) == 1


async def test_a_probe_without_an_answer_delays_no_other_probe(db, workers, sim):
    await sim.faults.arm([Http(status=502)])
    await insert_different(db, 100)
    worker = await workers.start({"default": app_at(sim.url, timeout="40s", circuit_unknown=1)})
    await until(lambda: paused_for(db, "unknown-results"))
    await until(lambda: idle(db))
    await insert(db, 1)
    await sim.faults.arm([StallAfterReading(first=1)])
    before = len(sim.journal)
    await let_pass(db, 5.0)
    await seen(sim, lambda: len(sim.journal) > before)
    await let_pass(db, 5.0)
    await seen(sim, lambda: sim.ledger.numbers > 0)
    worker.terminate()
    assert await worker.ended(deadline=25) == 0  # without the answer to the first probe
