"""What is unsure, and what settles it; and rejected messages that are sent again."""

import pytest
from support.exactness import read_books
from support.messages import finished, insert, of_each, states
from support.provider import app_at
from support.waiting import until

from dispatcher.simulator.faults import Cut, Http, NumberCode, Reset


async def states_are(db, expected: dict[str, int]) -> bool:
    return await states(db) == expected


async def token_of(db) -> str:
    return await db.fetchval("SELECT token FROM dispatcher.batch WHERE state = 'unsure'")


@pytest.mark.parametrize("fault", [Cut(first=1), Reset(first=1)], ids=["taken", "not-taken"])
@pytest.mark.parametrize("how", ["sent", "resend"])
async def test_an_operator_settles_an_unsure_batch(db, workers, sim, fault, how):
    await sim.faults.arm([fault])
    ids = await insert(db, 20)
    await workers.start(sim.url)
    await until(lambda: states_are(db, {"unsure": 20}))
    token = await token_of(db)
    assert await db.fetchval("SELECT dispatcher.settle($1, $2)", token, how) == 20
    await until(lambda: states_are(db, {"accepted": 20}))
    rows = (await of_each(db, ids)).values()
    taken = 20 if isinstance(fault, Cut) else 0
    if how == "sent":
        assert {row["code"] for row in rows} == {"settled-by-operator"}
        assert sim.ledger.numbers == taken
    else:
        assert {row["attempts"] for row in rows} == {2}
        assert all(row["provider_id"] for row in rows)
        assert sim.ledger.numbers == taken + 20
    with pytest.raises(Exception, match="no unsure batch has the token"):
        await db.fetchval("SELECT dispatcher.settle($1, $2)", token, how)


@pytest.mark.slow
async def test_only_the_policy_resend_sends_unsure_messages_again(db, workers, provide):
    policies = {
        "hold": {"resend_after": "1s"},
        "soon": {"on_unsure": "resend", "resend_after": "1s"},
        "patient": {"on_unsure": "resend", "resend_after": "1h"},
    }
    sims = {
        name: await provide(faults=[Http(status=500, first=1, accept=True)]) for name in policies
    }
    for name in sims:
        await insert(db, 10, app=name)
    apps = {name: app_at(sims[name].url, timeout="1s", **policies[name]) for name in sims}
    reports = {"callback_url": "https://example.com/reports/t", "report_path_token": "t" * 16}
    await workers.start(apps, lease="12s", **reports)  # it looks at the policy every two seconds
    await until(lambda: accepted_by(db, "soon"))
    assert await states(db, "hold") == {"unsure": 10}
    assert await states(db, "patient") == {"unsure": 10}
    silence = await db.fetchval(
        "SELECT closed_at - unsure_at FROM dispatcher.batch WHERE settled_by = 'policy: resend'"
    )
    assert silence.total_seconds() >= 1.0
    assert len(sims["hold"].journal) == len(sims["patient"].journal) == 1
    assert sims["soon"].ledger.numbers == 20  # once unknown to us, once known


async def accepted_by(db, app: str) -> bool:
    return await states(db, app) == {"accepted": 10}


async def test_rejected_and_expired_messages_go_out_after_requeue(db, workers, sim):
    await sim.faults.arm([NumberCode(code="E200028", param="bad")])
    bad = await insert(db, 50, params=["bad"])
    late = await insert(db, 50, first=100, lifetime=0.001)
    await workers.start(sim.url)
    await until(lambda: finished(db))
    assert await states(db) == {"rejected": 50, "expired": 50}
    await sim.faults.clear()
    assert await db.fetchval("SELECT dispatcher.requeue($1)", [*bad, *late]) == 100
    await until(lambda: finished(db))
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": 100}
    assert not books.problems()
    # What went out cannot be requeued.
    assert await db.fetchval("SELECT dispatcher.requeue($1)", bad) == 0
