"""How many results are recorded together."""

import asyncio

import pytest

from dispatcher.core.delays import CountryPause, Pause
from dispatcher.core.message import Batch, RequestDraft
from dispatcher.core.outcome import Resolved, ReturnAll, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.worker import result_queue
from dispatcher.worker.result_queue import GATHER_RESULTS, ResultQueue

PATIENCE_SECONDS = 5.0
BATCH = Batch(1, "default", "t", RequestDraft(None, [], 0), 0.0)
PAUSE = Pause("E000623", "the quota is spent", 60.0, 60.0)
RESULT = BatchResult(BATCH, Resolved([]), 200, "000000", "", 1, 0.1)
UNKNOWN = BatchResult(BATCH, UnknownResult("timeout", "no answer"), None, "timeout", "", 1, 0.1)
REFUSED = BatchResult(BATCH, Resolved([], refused=True), 400, "E000027", "", 1, 0.1)
RETURNED = BatchResult(BATCH, ReturnAll(PAUSE), 200, "E000503", "", 1, 0.1)
QUOTA = BatchResult(BATCH, Resolved([], pause=PAUSE), 200, "000000", "", 1, 0.1)
LIMIT = CountryPause("CN", "E000630", 60.0)
COUNTRY = BatchResult(BATCH, Resolved([], countries=[LIMIT]), 200, "000000", "", 1, 0.1)


@pytest.fixture(autouse=True)
def no_time_is_enough(monkeypatch):
    monkeypatch.setattr(result_queue, "GATHER_SECONDS", 60.0)


async def gathers(queue: ResultQueue) -> asyncio.Task[None]:
    """Return the task that gathers, once it waits or has ended."""
    task = asyncio.create_task(queue.gather())
    for _ in range(5):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("requests", [2, GATHER_RESULTS, 3 * GATHER_RESULTS])
async def test_results_wait_for_those_on_their_way(requests):
    queue = ResultQueue(range(requests))
    wanted = min(requests, GATHER_RESULTS)
    for _ in range(wanted - 1):
        queue.put(RESULT)
    task = await gathers(queue)
    assert not task.done()
    queue.put(RESULT)
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    taken, last = await queue.take()
    assert (len(taken), last) == (wanted, False)


async def test_the_result_of_the_only_request_waits_for_none():
    queue = ResultQueue(["token"])
    queue.put(RESULT)
    await asyncio.wait_for(queue.gather(), PATIENCE_SECONDS)


@pytest.mark.parametrize("result", [UNKNOWN, REFUSED, RETURNED, QUOTA, COUNTRY])
async def test_a_result_that_may_stop_requests_waits_for_none(result):
    queue = ResultQueue(range(5))
    queue.put(RESULT)
    queue.put(result)
    await asyncio.wait_for(queue.gather(), PATIENCE_SECONDS)
    await queue.take()
    queue.put(RESULT)
    task = await gathers(queue)
    assert not task.done()
    queue.close()
    await task


async def test_the_end_waits_for_no_more_results():
    queue = ResultQueue(range(5))
    task = await gathers(queue)
    assert not task.done()
    queue.close()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
