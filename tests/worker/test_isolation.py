"""What spoils a request is found, and the rest goes out: halving, countries."""

from math import ceil, log2

import pytest
from support.exactness import read_books
from support.fast_forward import let_pass
from support.messages import TEMPLATE, finished, insert, is_idle, of_each, states
from support.slow import slow_after
from support.waiting import until

from dispatcher.core.circuit import ENOUGH_REFUSED
from dispatcher.simulator.faults import BadEntry, CountryClosed

ENTRIES = 500


async def insert_entries(db, bad: set[int]) -> None:
    """One request of 500 entries, some of them bad."""
    await db.executemany(
        "INSERT INTO dispatcher.message (recipient, template_id, params) VALUES ($1, $2, $3)",
        [
            (f"+86138{n:08d}", TEMPLATE, [f"{n:06d}", *(["bad"] if n in bad else [])])
            for n in range(ENTRIES)
        ],
    )


@pytest.mark.parametrize(
    ("bad", "code"), [({0}, "E000027"), ({317}, "E000503"), ({7, 8, 499}, "E000503")]
)
async def test_bad_entries_are_rejected_and_all_others_are_sent(db, workers, sim, bad, code):
    await sim.faults.arm([BadEntry(param="bad", code=code)])
    await insert_entries(db, bad)
    await workers.start(sim.url)
    await until(lambda: finished(db))
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": ENTRIES - len(bad), "rejected": len(bad)}
    assert not books.problems()
    assert {m["code"] for m in books.messages if m["state"] == "rejected"} == {code}
    assert {m["attempts"] for m in books.messages} == {1}
    assert sim.journal[0].numbers == ENTRIES
    assert len(sim.journal) <= 1 + 2 * len(bad) * ceil(log2(ENTRIES))
    # Each part has its own token: after a lost answer it is known which part may have gone.
    tokens = [visit.token for visit in sim.journal]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("bad", slow_after(1, [{0, 1, 249, 250, 251}, {3}, {3, 490}]))
async def test_bad_numbers_of_one_text_are_rejected_alone(db, workers, sim, bad):
    await sim.faults.arm([BadEntry(numbers=[f"+86138{n:08d}" for n in bad], code="E000503")])
    ids = await insert(db, 500)
    await workers.start(sim.url)
    await until(lambda: finished(db))
    assert await states(db) == {"accepted": 500 - len(bad), "rejected": len(bad)}
    rows = await of_each(db, ids)
    assert {n for n, i in enumerate(ids) if rows[i]["state"] == "rejected"} == bad
    assert len(sim.journal) <= 2 * len(bad) * log2(500) + 2
    assert not (await read_books(db, sim.ledger.rows())).problems()


async def test_a_bad_text_rejects_its_own_messages_only(db, workers, sim):
    await sim.faults.arm([BadEntry(param="bad")])
    await insert(db, 50, params=["bad"])
    await insert(db, 250, params=["good"], first=1000)
    await workers.start(sim.url)
    await until(lambda: is_idle(db))
    first = await states(db)
    assert first["accepted"] == 250
    assert first["rejected"] >= ENOUGH_REFUSED  # the others wait, in case it is not the text

    async def finished_with_time() -> bool:
        await let_pass(db, 3600.0)
        return await finished(db)

    await until(finished_with_time)
    assert await states(db) == {"accepted": 250, "rejected": 50}


@pytest.mark.slow
async def test_a_closed_country_waits_and_the_others_go_out(db, workers, sim):
    await sim.faults.arm([CountryClosed(country="FR")])
    french = await insert(db, 40, country="+336", first=10_000_000)
    others = [
        *await insert(db, 100),
        *await insert(db, 30, country="+49151", first=10_000_000),
        *await insert(db, 30, country="+3247", first=1_000_000),
    ]
    await workers.start(sim.url)
    await until(lambda: states_are(db, {"accepted": 160, "queued": 40}))
    rows = (await of_each(db, french)).values()
    assert {(r["state"], r["code"], r["attempts"]) for r in rows} == {("queued", "E000630", 0)}
    assert {row["state"] for row in (await of_each(db, others)).values()} == {"accepted"}
    assert await db.fetchval("SELECT paused_at FROM dispatcher.app") is None
    pause = await db.fetchrow("SELECT * FROM dispatcher.country_pause")
    assert (pause["country"], pause["code"]) == ("FR", "E000630")

    # While it is closed, no request is spent on it.
    requests = len(sim.journal)
    await insert(db, 20, country="+336", first=20_000_000)
    await insert(db, 20, first=5000)
    await until(lambda: states_are(db, {"accepted": 180, "queued": 60}))
    assert len(sim.journal) == requests + 1

    await sim.faults.clear()
    await let_pass(db, 3600.0)
    await until(lambda: states_are(db, {"accepted": 240}))
    assert not (await read_books(db, sim.ledger.rows())).problems()


async def states_are(db, expected: dict[str, int]) -> bool:
    return await states(db) == expected


@pytest.mark.slow
async def test_a_country_that_stays_closed_is_tried_once_an_hour(db, workers, sim):
    await sim.faults.arm([CountryClosed(prefix="+336")])
    await insert(db, 100, country="+336", first=10_000_000)
    await workers.start(sim.url)
    requests = []
    for _ in range(3):
        await until(lambda: db.fetchval("SELECT until > now() FROM dispatcher.country_pause"))
        requests.append(len(sim.journal))
        await let_pass(db, 3700.0)
        await until(lambda: len(sim.journal) > requests[-1], what="a new try")
    assert requests[-1] <= 3 * 2
    assert sim.ledger.numbers == 0
