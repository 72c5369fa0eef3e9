"""Maintenance pauses between its steps, so that workers keep most of the time."""

import asyncio
from itertools import pairwise

from dispatcher.worker import maintenance
from dispatcher.worker.maintenance import maintain

TAKES = 0.1  # seconds of one step


async def test_after_each_step_it_rests_three_times_as_long():
    stop = asyncio.Event()
    clock = asyncio.get_running_loop().time
    began = []

    async def step() -> int:
        began.append(clock())
        await asyncio.sleep(TAKES)
        if len(began) == 4:
            stop.set()
        return 1

    await maintain({"steps": step}, stop)
    assert all(after - before >= 3.9 * TAKES for before, after in pairwise(began))


async def test_a_long_step_leaves_the_others_their_turn(monkeypatch):
    monkeypatch.setattr(maintenance, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(maintenance, "REST_RATIO", 0.0)
    stop = asyncio.Event()
    began = []

    async def long() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def other() -> int:
        began.append("other")
        return 0

    async with asyncio.timeout(60):
        assert await maintain({"long": long, "other": other}, stop)
        assert not await maintain({"other": other}, stop)
    assert began == ["other"] * 2
