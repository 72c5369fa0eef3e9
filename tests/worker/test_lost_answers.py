"""Connections that break and answers that get lost: sent again only what provably was not sent."""

import pytest
from support.fast_forward import let_pass
from support.messages import finished, insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.simulator.faults import (
    Clock,
    Cut,
    Delay,
    HalfAnswer,
    Http,
    Lack,
    NumberCode,
    OddAnswer,
    Refuse,
    Reorder,
    Repeat,
    Reset,
    StallAfterReading,
    StallBeforeReading,
)

UNSURE = {  # fault -> how often the provider took each number
    "reset-unread": (Reset(), 0),
    "stalled-unread": (StallBeforeReading(), 0),
    "cut": (Cut(), 1),
    "cut-with-reset": (Cut(reset=True), 1),
    "half-an-answer": (HalfAnswer(), 1),
    "stalled-and-taken": (StallAfterReading(accept=True), 1),
    "stalled-and-not-taken": (StallAfterReading(accept=False), 0),
    "answered-too-late": (Delay(seconds=30), 1),
    "http-408": (Http(status=408), 0),
    "http-500": (Http(status=500, accept=True), 1),
    "http-500-html": (Http(status=500, html=True), 0),
    "http-502": (Http(status=502, accept=True), 1),
    "http-502-html": (Http(status=502, html=True), 0),
    "http-503": (Http(status=503, accept=True), 1),
    "http-503-html": (Http(status=503, html=True), 0),
    "http-503-for-long": (Http(status=503, retry_after=1, accept=True), 1),
    "http-504-html": (Http(status=504, html=True, accept=True), 1),
    "http-599": (Http(status=599, accept=True), 1),
    "http-200-html": (Http(status=200, html=True, accept=True), 1),
    "http-200-empty": (Http(status=200, accept=True), 1),
    "words": (OddAnswer(form="words"), 1),
    "empty": (OddAnswer(form="empty"), 1),
    "a-list": (OddAnswer(form="list"), 1),
    "deep": (OddAnswer(form="deep"), 1),
}
NOT_SENT = {  # fault -> most requests that are made of it at once
    "refused": (Refuse(), 0),
    "http-429": (Http(status=429), 4),
    "http-429-html": (Http(status=429, html=True, retry_after=1), 4),
    "http-429-for-long": (Http(status=429, retry_after=30), 1),
    "http-301": (Http(status=301), 1),
    "http-403-html": (Http(status=403, html=True), 1),
    "http-404-html": (Http(status=404, html=True), 1),
    "http-451": (Http(status=451), 1),
}


async def test_what_may_have_been_sent_is_unsure_and_never_sent_again(play, db):
    scenes = await play({name: [fault] for name, (fault, _) in UNSURE.items()}, timeout="1s")
    for scene in scenes.values():
        await scene.sim.faults.clear()
    await let_pass(db, 86_400.0)
    for name, scene in scenes.items():
        taken = UNSURE[name][1]
        assert await scene.states() == ("unsure",) * 3, name
        assert scene.accepted == (taken,) * 3, name
        assert len(scene.sim.journal) == 1, name
        assert await scene.pause() is None, name
        assert all(row["code"] and row["reason"] for row in await scene.rows()), name
        assert [row["attempts"] for row in await scene.rows()] == [1, 1, 1], name
    # The apps work on, each over a new connection.
    for name in scenes:
        await insert(db, 5, app=name, first=100)
    for scene in scenes.values():
        before = sum(scene.accepted)
        await seen(scene.sim, lambda s=scene, b=before: s.sim.ledger.numbers == b + 5)


async def test_a_firewall_that_bans_the_address_stops_the_app(play, db):
    [scene] = (await play({"firewall": [Http(status=418, html=True)]})).values()
    assert await scene.states() == ("queued",) * 3
    assert (await scene.pause())["pause_code"] == "HTTP 418"
    assert len(scene.sim.journal) <= 5
    await scene.sim.faults.clear()
    await let_pass(db, 3600.0)
    await until(lambda: finished(db), deadline=60)
    assert await scene.states() == ("accepted",) * 3
    assert scene.accepted == (1, 1, 1)


@pytest.mark.parametrize("form", ["bom", "gbk", "stranger"])
async def test_an_answer_in_an_odd_form_is_read(play, form):
    [scene] = (await play({form: [OddAnswer(form=form)]})).values()
    assert await scene.states() == ("accepted",) * 3
    assert scene.accepted == (1,) * 3
    assert {row["provider_id"] for row in await scene.rows()} == {
        row.sms_msg_id for row in scene.sim.ledger.rows()
    }


@pytest.mark.slow
async def test_what_was_not_taken_goes_out_once_it_can(play, db):
    scenes = await play({name: [fault] for name, (fault, _) in NOT_SENT.items()})
    for name, scene in scenes.items():
        tries = NOT_SENT[name][1]
        assert await scene.states() == ("queued",) * 3, name
        assert [row["attempts"] for row in await scene.rows()] == [0, 0, 0], name
        assert len(scene.sim.journal) <= 2 * tries, name  # two claims may have been under way
        pause = await scene.pause()
        assert pause is not None, name
        assert pause["pause_reason"], name
        await scene.sim.faults.clear()
    await let_pass(db, 3600.0)
    await until(lambda: finished(db), deadline=60)
    for name, scene in scenes.items():
        assert await scene.states() == ("accepted",) * 3, name
        assert scene.accepted == (1, 1, 1), name
        assert await scene.pause() is None, name


@pytest.mark.slow
async def test_a_short_refusal_is_retried_within_the_same_attempt(play):
    scenes = await play({"refused": [Refuse(seconds=0.5)], "busy": [Http(status=429, first=3)]})
    for name, scene in scenes.items():
        assert await scene.states() == ("accepted",) * 3, name
        assert scene.accepted == (1, 1, 1), name
        assert await scene.pause() is None, name
    tokens = {visit.token for visit in scenes["busy"].sim.journal}
    assert len(tokens) == 1
    assert len(scenes["busy"].sim.journal) == 4


async def test_a_cut_of_a_kept_connection_is_not_tried_again(db, workers, sim):
    """HTTP clients like to repeat a request on a new connection when a kept one is closed."""
    await workers.start(sim.url)
    await insert(db, 3)
    await seen(sim, lambda: sim.ledger.numbers == 3)
    await until(lambda: finished(db))
    await sim.faults.arm([Reset(first=1)])
    await insert(db, 3, first=10)
    await until(lambda: states_are(db, {"accepted": 3, "unsure": 3}))
    await insert(db, 3, first=20)
    await until(lambda: states_are(db, {"accepted": 6, "unsure": 3}))
    assert sim.ledger.numbers == 6
    assert len(sim.journal) == 3


async def states_are(db, expected: dict[str, int]) -> bool:
    return await states(db) == expected


async def test_a_result_is_matched_by_number_whatever_its_order(db, workers, provide):
    sims = {
        "reordered": await provide(faults=[Reorder(seed=5)]),
        "repeated": await provide(faults=[Repeat(count=100)]),
        "repeated-refused": await provide(faults=[Repeat(count=100, code="E200041")]),
    }
    for name in sims:
        await insert(db, 500, app=name)
    await workers.start({name: app_at(sim.url) for name, sim in sims.items()})
    await until(lambda: finished(db))
    for name, sim in sims.items():
        given = {row.number: row.sms_msg_id for row in sim.ledger.rows()}
        rows = await db.fetch("SELECT * FROM dispatcher.message_status WHERE app = $1", name)
        assert {row["state"] for row in rows} == {"accepted"}
        assert {row["recipient"]: row["provider_id"] for row in rows} == given


async def test_only_numbers_that_the_answer_lacks_stay_unsure(db, workers, sim):
    await sim.faults.arm([Lack(count=7)])
    await insert(db, 500)
    await workers.start(sim.url)
    await until(lambda: states_are(db, {"accepted": 493, "unsure": 7}))
    assert sim.ledger.numbers == 500
    assert len(sim.journal) == 1
    assert await db.fetchval("SELECT state FROM dispatcher.batch") == "unsure"


async def test_flow_control_with_lacking_numbers_is_not_retried(db, workers, sim):
    """The number that is not named may have been sent."""
    await sim.faults.arm(
        [NumberCode(code="E200015", numbers=["+8613800000000", "+8613800000001"]), Lack()]
    )
    await insert(db, 3)
    await workers.start(sim.url)
    await until(lambda: states_are(db, {"queued": 2, "unsure": 1}))
    assert len(sim.journal) == 1
    assert sim.ledger.numbers == 1


async def test_a_wrong_clock_pauses_the_app_and_says_by_how_much(db, workers, provide):
    clocks = {  # how far the provider's is ahead, seconds
        "behind": ({"auth": "aksk"}, 1200.0, "E000044"),
        "ahead-of": ({"auth": "aksk"}, -1200.0, "E000044"),
        "days-behind": ({"auth": "wsse"}, 90_000.0, "E000110"),
    }
    sims = {
        name: await provide(faults=[Clock(offset=offset, checks=True)])
        for name, (_, offset, _) in clocks.items()
    }
    for name in sims:
        await insert(db, 3, app=name)
    await workers.start({name: app_at(sims[name].url, **clocks[name][0]) for name in sims})
    for name, (_, offset, code) in clocks.items():
        pause = await until(
            lambda name=name: db.fetchrow(
                "SELECT * FROM dispatcher.app WHERE name = $1 AND paused_at IS NOT NULL", name
            )
        )
        assert pause["pause_code"] == code
        told = pause["pause_reason"]
        assert f"s {'behind' if offset > 0 else 'ahead of'} the provider's" in told
        assert abs(int(told.split("Our clock is ")[1].split(" s ")[0]) - abs(offset)) <= 60
    for sim in sims.values():
        await sim.faults.clear()
    await let_pass(db, 60.0)
    await until(lambda: states_are(db, {"accepted": 9}))
