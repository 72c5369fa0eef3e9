"""A person's transaction that holds the row of an app: only the answers of that app wait."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from structlog.testing import capture_logs
from support.messages import insert, states
from support.provider import app_at, seen
from support.waiting import until

from dispatcher.core.delays import Pause
from dispatcher.core.message import Batch, RequestDraft
from dispatcher.core.outcome import Accepted, Resolved, ReturnAll, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.db.database import connect
from dispatcher.db.spool import orphaned_files, size
from dispatcher.db.workers import register_app, register_worker
from dispatcher.simulator.faults import Delay
from dispatcher.telemetry import Metrics
from dispatcher.worker import recorder as recording
from dispatcher.worker.recorder import SPOOL_KIND, Recorder
from dispatcher.worker.result_queue import (
    MAX_TRANSACTION_RESULTS,
    MAX_WAITING_RESULTS,
    ResultQueue,
)

APPS = ("held", "other")


@pytest.fixture
async def forgotten(dsn) -> AsyncIterator[asyncpg.Connection]:
    """A session whose transaction stays open, as one that was forgotten."""
    connection = await connect(dsn)
    await connection.execute("BEGIN")
    yield connection
    await connection.close()


@pytest.mark.slow
async def test_answers_of_other_apps_do_not_wait_for_it(db, workers, sim, provide, forgotten):
    sick = await provide()
    await sick.faults.arm([Delay(seconds=30)])
    apps = {"held": app_at(sick.url, timeout="2s"), "other": app_at(sim.url)}
    worker = await workers.start(apps)
    await insert(db, 5, app="held")
    await seen(sick, lambda: sick.ledger.numbers == 5)
    await forgotten.execute("SELECT dispatcher.pause('held', 'looking at it')")
    await until(lambda: "answers wait" in worker.text(), what="its answer waits")
    await insert(db, 2000, first=100, app="other")
    await until(lambda: finished_of(db, "other"), deadline=30, what="the other app is done")
    assert await states(db, "held") == {"sending": 5}
    await forgotten.execute("ROLLBACK")
    await until(lambda: states_are(db, "held", {"unsure": 5}), deadline=30, what="it is written")
    assert worker.code is None


async def finished_of(db, app: str) -> bool:
    return (await states(db, app)).keys() == {"accepted"}


async def states_are(db, app: str, wanted: dict[str, int]) -> bool:
    return await states(db, app) == wanted


@pytest.mark.slow
async def test_what_still_waits_for_it_at_a_stop_is_kept(
    database, forgotten, hands, tmp_path, monkeypatch
):
    for app in APPS:
        await register_app(
            database, app, numbers_per_second=None, on_unsure="hold", resend_after=60.0
        )
    batches = await claimed(hands)
    await forgotten.execute("SELECT dispatcher.pause('held', 'looking at it')")
    recorder = hands.recorder(tmp_path, *APPS, "default")
    for batch in batches:
        recorder.results.put(unknown(batch))
    task = asyncio.create_task(recorder.run())
    await until(lambda: states_are(hands.db, "other", {"unsure": 3}), deadline=30)
    await recorder.finish(task)
    assert await states(hands.db) == {"sending": 3, "unsure": 3}
    assert size(tmp_path, SPOOL_KIND)[0] == 1
    again = Recorder(
        database,
        worker=hands.id,
        in_flight=hands.flight,
        folder=tmp_path,
        metrics=Metrics(),
        breakers={},
        limits={},
    )
    again._spool_kind = SPOOL_KIND
    await again._replay()  # a worker starts all the same
    assert size(tmp_path, SPOOL_KIND)[0] == 1
    await forgotten.execute("ROLLBACK")
    monkeypatch.setattr(recording, "LEFT_RETRY_SECONDS", 0.1)
    await again.replay_left()
    assert await states(hands.db) == {"unsure": 6}
    assert size(tmp_path, SPOOL_KIND)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True])
async def test_other_answers_of_an_app_do_not_wait_for_a_held_batch(
    hands, forgotten, tmp_path, monkeypatch, stops
):
    """A person settles an unsure request while its late answer comes, and commits much later."""
    monkeypatch.setattr(recording, "LOCKED_RETRY_SECONDS", 0.5)
    await hands.begin()
    batches = []
    for first in range(3):
        await hands.insert(1, first=first)
        batches += await hands.claim()
    for batch in batches[:2]:
        assert await hands.record(batch, UnknownResult("timeout", "no answer"))
    await forgotten.execute("SELECT dispatcher.settle($1, 'sent')", batches[0].token)
    recorder = hands.recorder(tmp_path, *APPS, "default")
    task = asyncio.create_task(recorder.run())
    for batch in batches:
        verdict = Resolved([Accepted(m, f"p{m.id}", 1) for m in batch.messages])
        recorder.results.put(BatchResult(batch, verdict, 200, "000000", "", 1, 0.1))
        await until(recorder.results._waiting.empty)
    await until(lambda: states_are(hands.db, "default", {"unsure": 1, "accepted": 2}))
    if stops:
        await recorder.finish(task)
        assert size(tmp_path, SPOOL_KIND)[0] == 1
        return
    await forgotten.execute("ROLLBACK")
    await until(lambda: states_are(hands.db, "default", {"accepted": 3}))
    await recorder.finish(task)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
async def test_a_held_batch_keeps_no_other_answer_on_disk(hands, forgotten, tmp_path, monkeypatch):
    """Neither those of its file nor those of other files, though it takes all of one reading."""
    monkeypatch.setattr(recording, "orphaned_files", partial(orphaned_files, most=1))
    monkeypatch.setattr(recording, "LEFT_RETRY_SECONDS", 0.1)
    await hands.begin()
    batches = []
    for first in range(3):
        await hands.insert(1, first=first)
        batches += await hands.claim()
    for batch in batches:
        assert await hands.record(batch, UnknownResult("timeout", "no answer"))
    await forgotten.execute("SELECT dispatcher.settle($1, 'sent')", batches[0].token)
    recorder = hands.recorder(tmp_path, *APPS, "default")
    await recorder.replay_spool()
    answers = [
        BatchResult(
            batch,
            Resolved([Accepted(m, f"p{m.id}", 1) for m in batch.messages]),
            200, "000000", "", 1, 0.1,
        )
        for batch in batches
    ]  # fmt: skip
    for name, some in (("first", answers[:2]), ("second", answers[2:])):
        recorder._keep(some)
        (kept,) = tmp_path.glob(f"*.*.{recorder._spool_kind}")
        kept.rename(tmp_path / f"{name}.{recorder._spool_kind}")
    await recorder._replay()
    assert await states(hands.db) == {"unsure": 1, "accepted": 2}
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["first"]
    await forgotten.execute("ROLLBACK")
    await recorder.replay_left()
    assert await states(hands.db) == {"accepted": 3}
    assert not list(tmp_path.iterdir())


async def claimed(hands) -> list[Batch]:
    """Claim three messages of each app."""
    hands.id = (
        await register_worker(
            hands.database, host="here", pid=1, version="0", apps=list(APPS), lease=60.0
        )
    ).id
    batches = []
    for place, app in enumerate(APPS):
        await hands.insert(3, first=10 * place, app=app)
        batches += await hands.claim(app=app)
    return batches


async def may_claim(queue: ResultQueue, app: str) -> bool:
    """Tell whether a claim loop of *app* goes on."""
    task = asyncio.create_task(queue.wait_for_capacity(app))
    for _ in range(3):
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    return done


async def test_what_waits_for_a_lock_takes_no_room_of_others():
    queue = ResultQueue()
    batch = Batch(1, "default", "t", RequestDraft(None, [], 0), 0.0)
    result = BatchResult(batch, Resolved([]), 200, "000000", "", 1, 0.1)
    queue.keep_waiting(["held"], MAX_WAITING_RESULTS)
    assert [await may_claim(queue, app) for app in APPS] == [False, True]
    for _ in range(MAX_WAITING_RESULTS):
        queue.put(result)
    assert [await may_claim(queue, app) for app in APPS] == [False, False]
    waiting = [asyncio.create_task(queue.wait_for_capacity(app)) for app in APPS]
    await queue.take()
    await asyncio.wait_for(waiting[1], 5)
    assert not waiting[0].done()
    queue.keep_waiting([], 0)
    await asyncio.wait_for(waiting[0], 5)


async def test_a_lock_is_met_once_and_then_tried_seldom(hands, forgotten, tmp_path, monkeypatch):
    """Answers of other apps waited for four seconds at each try."""
    monkeypatch.setattr("dispatcher.worker.recorder.LOCKED_RETRY_SECONDS", 1.0)
    for app in APPS:
        await register_app(
            hands.database, app, numbers_per_second=None, on_unsure="hold", resend_after=60.0
        )
    hands.id = (
        await register_worker(
            hands.database, host="here", pid=1, version="0", apps=list(APPS), lease=60.0
        )
    ).id
    waits, write = [], recording.records.record

    async def noted(database, worker, results, **more):
        waits.append(({result.batch.app for result in results}, more["lock_timeout"]))
        return await write(database, worker, results, **more)

    monkeypatch.setattr(recording.records, "record", noted)
    batches = []
    for first, app in enumerate(("held", "other", "other", "held")):
        await hands.insert(1, first=first, app=app)
        batches += await hands.claim(app=app)
    await forgotten.execute("SELECT dispatcher.pause('held', 'looking at it')")
    recorder = hands.recorder(tmp_path, *APPS, "default")
    recorder._locked_apps["held"] = 0.0  # it was met before
    task = asyncio.create_task(recorder.run())
    with capture_logs() as logs:
        for count, batch in enumerate(batches[:3]):
            recorder.results.put(unknown(batch))
            wanted = {"unsure": count} if count else {}
            await until(lambda wanted=wanted: states_include(hands.db, "other", wanted))
        recorder.results.put(unknown(batches[3]))
        await until(lambda: len(recorder._unwritten) == 2)
    assert {seconds for apps, seconds in waits if "held" in apps} == {recording.LOCK_TIMEOUT}
    locked = [
        line for line in logs if line["event"] == "answers wait: another session holds a lock"
    ]
    assert {app for line in locked for app in line["apps"]} == {"held"}
    assert all("pg_stat_activity" in line["why"] for line in locked)
    assert not [line for line in logs if "the database is away" in line["event"]]
    await forgotten.execute("ROLLBACK")
    await until(lambda: states_are(hands.db, "held", {"unsure": 2}))
    await until(lambda: not recorder._locked_apps, what="it is known to be free")
    await recorder.finish(task)


async def states_include(db, app: str, wanted: dict[str, int]) -> bool:
    return wanted.items() <= (await states(db, app)).items()


def unknown(batch: Batch) -> BatchResult:
    """Return the result of a request without an answer."""
    return BatchResult(batch, UnknownResult("timeout", "no answer"), None, "timeout", "", 1, 0.1)


@pytest.mark.slow
async def test_many_answers_that_wait_for_it_are_written_in_parts(
    db, hands, forgotten, tmp_path, monkeypatch
):
    monkeypatch.setattr(recording, "LOCKED_RETRY_SECONDS", 0.5)
    count = 2 * MAX_TRANSACTION_RESULTS + 5
    for app in APPS:
        await register_app(
            hands.database, app, numbers_per_second=None, on_unsure="hold", resend_after=60.0
        )
    await hands.insert(1, app="held")
    await db.execute(
        "INSERT INTO dispatcher.message (app, recipient, template_id, params)"
        " SELECT app, recipient, template_id, params FROM dispatcher.message"
        " CROSS JOIN generate_series(2, $1)",
        count,
    )
    hands.id = (
        await register_worker(
            hands.database, host="here", pid=1, version="0", apps=list(APPS), lease=60.0
        )
    ).id
    batches: list[Batch] = []
    while len(batches) < count:  # each is to the same number, so each is a request
        batches += await hands.claim(app="held", slots=count)
    await hands.insert(3, first=10, app="other")
    batches += await hands.claim(app="other")
    await forgotten.execute("SELECT dispatcher.pause('held', 'looking at it')")
    recorder = hands.recorder(tmp_path, *APPS, "default")
    for batch in batches:
        recorder.results.put(unknown(batch))
    task = asyncio.create_task(recorder.run())
    await until(lambda: states_are(db, "other", {"unsure": 3}), deadline=60)
    await until(lambda: len(recorder._unwritten) == count, deadline=60)
    await forgotten.execute("ROLLBACK")
    await until(lambda: states_are(db, "held", {"unsure": count}), deadline=60)
    await recorder.finish(task)
    assert not list(tmp_path.iterdir())


async def test_kept_answers_of_an_app_that_is_gone_end_no_start(hands, tmp_path):
    """Another worker has the app, so the answer concerns the host of this one alone."""
    await hands.begin()
    await hands.begin()
    await hands.insert(3)
    [batch] = await hands.claim()
    pause = Pause("unreachable", "no connection", 1.0, 1.0)
    recorder = Recorder(
        hands.database,
        worker=hands.id,
        in_flight=hands.flight,
        folder=tmp_path,
        metrics=Metrics(),
        breakers={},
        limits={},
    )
    recorder._keep([BatchResult(batch, ReturnAll(pause), None, "unreachable", "", 1, 0.1)])
    await recorder._replay()
    assert await states(hands.db) == {"queued": 3}
    assert not list(tmp_path.iterdir())
