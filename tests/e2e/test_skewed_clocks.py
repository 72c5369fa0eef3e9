"""Workers whose hosts' clocks are an hour wrong: what decides is the database's clock."""

import asyncio
import re
from pathlib import Path

import pytest
from support.exactness import read_books
from support.messages import finished, insert
from support.provider import app_at, seen
from support.waiting import until

pytestmark = pytest.mark.slow  # each test waits for a lease of thirteen seconds

HOUR = 3600
SKEWS = ("+1h", "-1h")
SHORT_LEASE = {"lease": "13s"}
PAST_LEASE = 15.0  # seconds


@pytest.fixture(scope="session")
def library() -> str:
    """What makes a process believe in another time."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is missing: apt install libfaketime")
    return str(found[0])


@pytest.fixture
def start(workers, library):
    """Start workers, each with a clock of its own."""
    workers.forked = False  # a library is loaded by a new interpreter

    def launch(skew: str, app: dict[str, object]):
        with pytest.MonkeyPatch.context() as environ:
            environ.setenv("LD_PRELOAD", library)
            environ.setenv("FAKETIME", skew)
            for name in ("DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"):
                environ.setenv(name, "1")  # what a wrong clock does not change
            return workers.launch({"default": app}, **SHORT_LEASE)

    async def begin(app: dict[str, object], *skews: str) -> list:
        made = [launch(skew, app) for skew in skews]
        for worker in made:
            await worker.started()
        return made

    return begin


async def test_leases_due_times_and_expiry_are_the_databases_own(db, start, sim):
    # X-WSSE takes a clock that is up to a day wrong, so these do send.
    wrong = await start(app_at(sim.url, timeout="3s", auth="wsse"), *SKEWS)
    for worker, hours in zip(wrong, (1, -1), strict=True):
        said = worker.events()[0]["timestamp"]
        off = await db.fetchval("SELECT date_part('epoch', $1::text::timestamptz - now())", said)
        assert off == pytest.approx(hours * HOUR, abs=60), (
            "the clock is wrong, or nothing is tested"
        )

    # Due in three seconds; over in half an hour; over before it is due; and a plain load.
    rows = await db.fetch(
        "INSERT INTO dispatcher.message (recipient, template_id, send_at)"
        " SELECT '+8613900000' || n, 't', now() + '3 s' FROM generate_series(100, 104) AS n"
        " RETURNING id, date_part('epoch', send_at) AS due"
    )
    later, due = [row["id"] for row in rows], rows[0]["due"]
    lasting = await insert(db, 5, first=20_000, lifetime=HOUR / 2)
    for first in range(0, round(PAST_LEASE) * 100, 100):
        await insert(db, 100, first=first)
        await insert(db, 1, first=30_000 + first, lifetime=0.001)
        await asyncio.sleep(1.0)  # past a lease: neither may take the other for dead
    await until(lambda: finished(db), what="everything has its end")

    books = await read_books(db, sim.ledger.rows())
    assert not books.problems()
    assert books.accepted_twice == 0
    assert {"accepted"} <= books.states.keys() <= {"accepted", "expired", "unsure"}
    assert await unsure_codes(db) <= {"timeout"}
    state = {row["id"]: row["state"] for row in books.messages}
    assert {state[one] for one in (*later, *lasting)} <= {"accepted", "unsure"}
    assert books.states["expired"] <= round(PAST_LEASE)
    sent = {row.number: row.time for row in sim.ledger.rows()}
    at = [sent.get(row["recipient"]) for row in books.messages if row["id"] in set(later)]
    late = [time - due for time in at if time is not None]
    assert 0 <= min(late) <= max(late) < 60  # a wrong clock would make it an hour
    shares = await db.fetch("SELECT worker FROM dispatcher.batch GROUP BY worker")
    assert len(shares) == 2


async def unsure_codes(db) -> set[str]:
    """Why requests were unsure: a time-out may end one where the machine stood still as long."""
    rows = await db.fetch("SELECT DISTINCT code FROM dispatcher.event WHERE event = 'unsure'")
    return {row["code"] for row in rows}


@pytest.mark.parametrize("skew", SKEWS)
async def test_a_clock_too_wrong_to_sign_stops_only_its_own_worker(db, start, workers, sim, skew):
    app = app_at(sim.url, timeout="3s")
    await workers.start({"default": app})
    await insert(db, 1)
    await seen(sim, lambda: sim.ledger.numbers == 1)
    [wrong] = await start(app, skew)
    numbers = iter(range(1, 10_000))

    async def stopped() -> bool:
        await insert(db, 1, first=next(numbers))
        return any(e.get("event") == "no claims: this host cannot send" for e in wrong.events())

    await until(stopped, what="the wrong one notices")
    (why,) = [e["why"] for e in wrong.events() if e["event"] == "no claims: this host cannot send"]
    assert re.search(r"Our clock is 3[56]\d\d s", why), why
    before = sim.ledger.numbers
    ids = await insert(db, 500, first=20_000)
    await seen(sim, lambda: sim.ledger.numbers >= before + len(ids))
    await until(lambda: finished(db), what="everything has its end")
    books = await read_books(db, sim.ledger.rows())
    assert {"accepted"} <= books.states.keys() <= {"accepted", "unsure"}
    assert await unsure_codes(db) <= {"timeout"}
    assert not books.problems()
    assert await db.fetchval("SELECT paused_at IS NULL FROM dispatcher.app")
