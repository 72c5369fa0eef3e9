"""A short storm; ten minutes with ten seeds are a command: ./dev chaos --minutes 10 --seeds 10."""

import pytest
from rich.console import Console

from chaos.__main__ import tell
from chaos.storm import Plan, run


@pytest.mark.timeout(300)
async def test_a_storm_loses_nothing_and_sends_nothing_twice():
    aftermath = await run(Plan(seconds=15, seed=20261122, rate=200))
    tell(aftermath, Console(width=100))  # shown if it fails
    assert not aftermath.problems
    assert aftermath.verdict.books.states["accepted"] > 0
    assert sum(aftermath.faults.values()) > 0
    assert aftermath.blows.total() > 0
    assert aftermath.pages > 0
