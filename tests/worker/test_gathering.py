"""How many results are recorded together."""

import asyncio

import pytest

from dispatcher.core.message import Batch, RequestDraft
from dispatcher.core.outcome import UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.worker import recorder
from dispatcher.worker.recorder import GATHER_RESULTS, ResultQueue

PATIENCE_SECONDS = 5.0
RESULT = BatchResult(
    Batch(1, "default", "t", RequestDraft(None, [], 0), 0.0),
    UnknownResult("timeout", "no answer"),
    None,
    "timeout",
    "",
    1,
    0.1,
)


@pytest.fixture(autouse=True)
def no_time_is_enough(monkeypatch):
    monkeypatch.setattr(recorder, "GATHER_SECONDS", 60.0)


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


async def test_the_end_waits_for_no_more_results():
    queue = ResultQueue(range(5))
    task = await gathers(queue)
    assert not task.done()
    queue.close()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
