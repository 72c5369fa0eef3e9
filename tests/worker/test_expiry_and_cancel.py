"""What has expired or was cancelled is never sent, however close it is."""

import asyncio
import random
from time import time

import pytest
from support.exactness import read_books
from support.messages import finished, insert, of_each, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.core.packing import halve
from dispatcher.db.database import connect
from dispatcher.db.split import split
from dispatcher.simulator.faults import Http, NumberCode, Refuse


async def test_what_expires_while_it_waits_is_expired_at_the_claim(db, workers, sim):
    await db.execute("SELECT dispatcher.pause('default', 'a test')")
    short = await insert(db, 100, lifetime=0.01)
    long = await insert(db, 100, first=1000, lifetime=3600)
    await until(
        lambda: db.fetchval(
            "SELECT max(expires_at) < clock_timestamp() FROM"
            " dispatcher.message WHERE id = ANY ($1)",
            short,
        )
    )
    await workers.start(sim.url)
    await db.execute("SELECT dispatcher.resume('default')")
    await until(lambda: finished(db))
    rows = await of_each(db, [*short, *long])
    assert {(rows[one]["state"], rows[one]["attempts"]) for one in short} == {("expired", 0)}
    assert {rows[one]["state"] for one in long} == {"accepted"}
    assert sim.ledger.numbers == 100


@pytest.mark.parametrize("together", [True, False], ids=["in bulk rows", "in the queue"])
async def test_a_probe_is_not_looked_for_one_by_one(db, hands, together):
    """A backlog that is decided without a request would take a transaction for each message."""
    await hands.begin()
    if together:
        await hands.insert(300, lifetime=0.001)
    else:
        for number in range(30):
            await hands.insert(1, first=number, lifetime=0.001)
    good = await hands.insert(5, first=1000)
    await db.execute(
        "UPDATE dispatcher.app SET paused_at = now(), paused_by = 'worker', pause_code = 'E000027',"
        " probe_at = now(), probe_wait = '5s', probe_max = '1min'"
    )
    [probe] = await hands.claim()
    assert probe.probe
    assert [message.id for message in probe.messages] == good[:1]
    assert await states(db) == {"expired": 300 if together else 30, "sending": 1, "queued": 4}
    assert await hands.claim() == []
    assert await hands.queue() == good[1:]


@pytest.mark.slow
async def test_what_expires_between_two_tries_is_not_sent_any_more(db, workers, sim):
    """The first try fails at once, the next comes after half a second or more."""
    await workers.start({"default": app_at(sim.url)})
    await seen(sim, lambda: True)
    await sim.faults.arm([Refuse()])
    ids = await insert(db, 10, lifetime=0.6)
    others = await insert(db, 10, first=100)
    over = "SELECT max(expires_at) < clock_timestamp() FROM dispatcher.message"
    await until(lambda: db.fetchval(over), what="the first ones expire")
    await sim.faults.clear()
    await until(lambda: finished(db))
    rows = await of_each(db, [*ids, *others])
    assert {rows[one]["state"] for one in ids} == {"expired"}
    assert {rows[one]["state"] for one in others} == {"accepted"}
    assert sim.ledger.numbers == 10


async def watch(stills: list[tuple[float, float]]) -> None:
    """Note when this process, which is the provider too, stood still."""
    before = time()
    while True:
        await asyncio.sleep(0.05)
        if (now := time()) > before + 0.5:
            stills.append((before, now))
        before = now


@pytest.mark.slow
async def test_nothing_is_accepted_after_its_expiry_during_outages(db, workers, sim):
    stills = []
    watching = asyncio.create_task(watch(stills))
    await sim.faults.arm(
        [
            Http(status=429, probability=0.5, seed=2),
            NumberCode(code="E200015", share=0.3, seed=4),
        ]
    )
    await workers.start({"default": app_at(sim.url, concurrency=4)})
    dice = random.Random(11)
    for first in range(0, 2000, 100):
        await insert(db, 100, first=first, lifetime=dice.uniform(0.05, 4.0))
    await until(
        lambda: db.fetchval("SELECT max(expires_at) < clock_timestamp() FROM dispatcher.message")
    )
    await sim.faults.clear()
    await db.execute("SELECT dispatcher.resume('default')")
    await until(lambda: finished(db))
    watching.cancel()
    books = await read_books(db, sim.ledger.rows())
    assert books.states.keys() <= {"accepted", "expired"}
    assert not books.problems()
    assert books.states["accepted"] > 0
    assert books.states["expired"] > 0
    expiry = dict(
        await db.fetch(
            "SELECT recipient, extract(epoch FROM expires_at)::float FROM dispatcher.message"
        )
    )
    # The clock of this machine on both sides; the request is encoded, signed and read in between.
    late = []
    for row in sim.ledger.rows():
        due = expiry[row.number]  # what came in time may lie unread until this process goes on
        unread = sum(max(0.0, min(end, row.time) - max(begin, due)) for begin, end in stills)
        late.append(row.time - due - unread)
    # Without a look at the expiry a retry or the end of a pause would send it: seconds later.
    assert max(late) < 2.0


async def test_a_cancelled_message_is_never_sent(db, dsn, workers, sim):
    count = 12_000
    ids = await insert(db, count)
    await workers.start({"default": app_at(sim.url, concurrency=3)})
    dice = random.Random(5)
    wanted = dice.sample(ids, count // 2)
    slices = [wanted[at : at + 25] for at in range(0, len(wanted), 25)]
    singles = {}  # what a cancel of one message said of it

    async def cancel_some(mine: list[list[int]]) -> int:
        connection = await connect(dsn)
        try:
            told = 0
            for each in mine:
                one, *rest = each
                singles[one] = await connection.fetchval("SELECT dispatcher.cancel($1)", [one])
                told += singles[one]
                told += await connection.fetchval("SELECT dispatcher.cancel($1)", rest)
            return told
        finally:
            await connection.close()

    told = sum(await asyncio.gather(*(cancel_some(slices[at::4]) for at in range(4))))
    await until(lambda: finished(db), deadline=60)
    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()  # among others: nothing cancelled is in the ledger
    assert books.states == {"accepted": count - told, "cancelled": told}
    assert 0 < told < len(wanted)
    state = {row["id"]: row["state"] for row in books.messages}
    for one, said in singles.items():
        assert state[one] == ("cancelled" if said else "accepted")


async def test_a_cancel_of_a_deferred_message_holds(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200015")])
    ids = await insert(db, 10)
    await workers.start(sim.url)
    await until(
        lambda: db.fetchval("SELECT count(*) = 10 FROM dispatcher.queue WHERE throttled = 1")
    )
    assert await db.fetchval("SELECT dispatcher.cancel($1)", ids) == 10
    await sim.faults.clear()
    assert await states(db) == {"cancelled": 10}
    assert sim.ledger.numbers == 0


@pytest.mark.parametrize(
    ("stop", "parts"),
    [
        ("SELECT dispatcher.pause('default', 'a test')", 0),
        ("SELECT dispatcher.pause_campaign('spring')", 0),
        ("SELECT dispatcher.cancel_campaign('spring')", 0),
        ("UPDATE dispatcher.app SET paused_at = now(), paused_by = 'worker'", 2),
        ("SELECT dispatcher.pause_campaign('autumn')", 2),
    ],
)
async def test_a_stop_by_a_person_ends_the_search_for_a_bad_message(db, hands, stop, parts):
    """Its parts were not sent yet. A pause by a worker may come from the bad message itself."""
    await hands.begin()
    await hands.insert(30)
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign, send_at)"
        " VALUES ('+8613800001000', 't', 'spring', now()),"
        " ('+8613800001001', 't', 'autumn', '2035-01-01')"
    )
    [batch] = await hands.claim()
    assert len(batch.messages) == 31
    await db.execute(stop)
    halves = halve(batch.packed)
    assert halves is not None
    children = await split(
        hands.database,
        hands.id,
        batch,
        halves,
        code="E000027",
        description="",
        http_status=400,
        tries=1,
        token=hands.flight.new_token,
    )
    assert len(children) == parts
    states = await db.fetch("SELECT state FROM dispatcher.batch ORDER BY id")
    assert [row["state"] for row in states] == (["closed"] + ["open"] * 2 if parts else ["open"])
