"""Every code of the page at the top of an answer: what becomes of a request's messages."""

import pytest
from fault_scenes import quiet
from support.fast_forward import let_pass
from support.messages import finished, idle
from support.waiting import until

from dispatcher.simulator.faults import RequestCode
from dispatcher.simulator.request import TOP_CODES

DAY = 86_400.0
ISOLATED = {"E000027", "E000503"}  # one entry spoils all: it alone is rejected
AMBIGUOUS = {"E000000"}
UNCLEAR = {"000000", "E000510", "E200037"}  # results should be there, and are not
BY_COUNTRY = {"E000630"}
PAUSED = TOP_CODES.keys() - ISOLATED - AMBIGUOUS - UNCLEAR - BY_COUNTRY

UNKNOWN = {  # what an unknown code says depends on the HTTP status it comes with
    400: ("queued",) * 3,
    401: ("queued",) * 3,
    403: ("queued",) * 3,
    500: ("unsure",) * 3,
}


def named(codes) -> dict[str, str]:
    """Apps have lower-case names."""
    return {code.lower(): code for code in sorted(codes)}


async def test_a_content_code_rejects_only_the_bad_message(play):
    apps = named(ISOLATED)
    scenes = await play({app: [RequestCode(code=code, param="bad")] for app, code in apps.items()})
    for app, scene in scenes.items():
        assert await scene.went_together()
        assert await scene.states() == ("accepted", "rejected", "accepted"), app
        assert scene.accepted == (1, 0, 1)
        bad = (await scene.rows())[1]
        assert bad["code"] == apps[app]
        assert bad["reason"]
        assert [row["attempts"] for row in await scene.rows()] == [1, 1, 1]
        assert await scene.pause() is None


@pytest.mark.slow
async def test_a_system_error_is_isolated_then_deferred(play, db):
    """It is mostly one bad message, but may be the provider's own trouble."""
    (scene,) = (await play({"odd": [RequestCode(code="E000000", param="bad")]})).values()
    assert await scene.went_together()
    assert await scene.states() == ("accepted", "queued", "accepted")
    assert scene.accepted == (1, 0, 1)
    assert await scene.pause() is None
    for attempts in range(1, 5):
        bad = (await scene.rows())[1]
        assert (bad["state"], bad["code"], bad["attempts"]) == ("queued", "E000000", attempts)
        await let_pass(db, 3600.0)
        await until(lambda: quiet(db))
    assert scene.accepted == (1, 0, 1)


async def test_an_account_code_pauses_the_app_and_keeps_messages(play, db):
    apps = named(PAUSED)
    scenes = await play({app: [RequestCode(code=code)] for app, code in apps.items()})
    for app, scene in scenes.items():
        code = apps[app]
        assert await scene.went_together()
        assert await scene.states() == ("queued",) * 3, code
        assert [row["attempts"] for row in await scene.rows()] == [0, 0, 0], code
        assert scene.accepted == (0, 0, 0)
        # Not tried again at once; a claim that had begun before the pause may still go out.
        assert len(scene.sim.journal) <= 2, code
        pause = await scene.pause()
        assert pause is not None, code
        assert pause["pause_code"] == code
        assert pause["paused_by"] == "worker"
        assert len(pause["pause_reason"]) > 20, code
        assert pause["probe_at"] is not None, code

    for scene in scenes.values():
        await scene.sim.faults.clear()
    await let_pass(db, DAY)
    await until(lambda: finished(db), deadline=60, what="all apps resume by themselves")
    for app, scene in scenes.items():
        assert await scene.states() == ("accepted",) * 3, app
        assert [row["attempts"] for row in await scene.rows()] == [1, 1, 1], app
        assert scene.accepted == (1, 1, 1), app
        assert await scene.pause() is None, app


async def test_a_paused_app_is_probed_by_one_message_at_a_time(play, db):
    (scene,) = (await play({"probed": [RequestCode(code="E000112")]})).values()
    waits = []
    for seen in range(1, 5):
        assert len(scene.sim.journal) == seen
        pause = await scene.pause()
        waits.append(pause["probe_wait"].total_seconds())
        await let_pass(db, waits[-1] + 60.0)
        await until(lambda seen=seen: len(scene.sim.journal) == seen + 1, what="a probe")
        await until(scene.pause)
        await until(lambda: idle(db))
    assert [visit.numbers for visit in scene.sim.journal] == [3, 1, 1, 1, 1]
    assert waits == [60, 120, 240, 480]
    assert [row["attempts"] for row in await scene.rows()] == [0, 0, 0]


@pytest.mark.slow
async def test_messages_that_expired_meanwhile_do_not_use_up_the_probe(play, db):
    (scene,) = (await play({"probed": [RequestCode(code="E000112")]})).values()
    await scene.sim.faults.clear()
    await db.execute(
        "INSERT INTO dispatcher.message"
        " (app, recipient, template_id, send_at, expires_at, priority)"
        " SELECT 'probed', '+86139' || n, 't', now() - interval '2 h', now() - interval '1 h', 2"
        " FROM generate_series(10000000, 10000099) AS n"
    )
    await let_pass(db, 60.0)
    await until(lambda: finished(db), what="the app resumes")
    assert scene.accepted == (1, 1, 1)
    assert len(await scene.rows()) == 103


async def test_an_answer_that_promises_results_and_has_none_is_unsure(play):
    apps = named(UNCLEAR)
    scenes = await play({app: [RequestCode(code=code)] for app, code in apps.items()})
    for app, scene in scenes.items():
        assert await scene.went_together()
        assert await scene.states() == ("unsure",) * 3, app
        assert {row["code"] for row in await scene.rows()} == {apps[app]}
        assert len(scene.sim.journal) == 1, app
        assert await scene.pause() is None


async def test_an_unknown_code_of_a_request_pauses_or_is_unsure(play):
    scenes = await play(
        {f"at-{status}": [RequestCode(code="E999999", http_status=status)] for status in UNKNOWN}
    )
    for (status, states), scene in zip(UNKNOWN.items(), scenes.values(), strict=True):
        assert await scene.states() == states, status
        assert len(scene.sim.journal) <= (5 if status == 400 else 1), status  # halved
        assert scene.accepted == (0, 0, 0)
        assert (await scene.pause() is not None) == (states[0] == "queued")


@pytest.mark.parametrize("code", ["E200015", "E200028", "E200041"])
async def test_a_number_code_for_the_whole_request_means_the_same(play, code):
    (scene,) = (await play({"top": [RequestCode(code=code, param="bad")]})).values()
    expected = {
        "E200015": ("queued", "queued", "queued"),  # all deferred
        "E200028": ("accepted", "rejected", "accepted"),
        "E200041": ("accepted", "rejected", "accepted"),
    }
    assert await scene.states() == expected[code]
