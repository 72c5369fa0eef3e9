"""Each benchmark runs to its end with the smallest sizes: a rule of the schema may stop one."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from dispatcher.cli.bench import BenchmarkName

TIMEOUT_SECONDS = 540.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_SECONDS + 60)]

ROOT = Path(__file__).parents[2]
SMALL = ("--rounds", "1", "--messages", "1000", "--seconds", "3", "--million", "1000")
LARGER = {
    # The backlog lasts for the urgent messages, 7 s, at less than 30,000 a second; if it does not,
    # the round is repeated with a larger one.
    "latency": ("--million", "300000"),
    # Ten million go out while a snapshot is held, so many at a time.
    "scaling": ("--messages", "5000"),
}
# `send` and `reports` run on an embedded server, of which they know the processes; the others on
# that of the tests.
USUAL = tuple(
    name.value for name in BenchmarkName if name not in {BenchmarkName.SEND, BenchmarkName.REPORTS}
)
# The others take minutes, or other systems.
RESEARCH = ("baselines", "enqueue", "reports", "scaling")


async def run(*arguments: str) -> str:
    """Return what a benchmark prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "COLUMNS": "140"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        output, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return output.decode()


@pytest.mark.parametrize("name", USUAL)
async def test_a_benchmark_for_users_runs_to_its_end(name, server):
    larger = LARGER.get(name, ())
    told = await run("dispatcher", "bench", name, *SMALL, *larger, "--server", server)
    assert name in told
    assert "median" in told


async def test_send_runs_to_its_end_on_an_embedded_server():
    told = await run("dispatcher", "bench", "send", *SMALL)
    assert "send" in told
    assert "median" in told
    assert "PostgreSQL CPU per message" in told


async def test_two_receivers_on_a_port_are_compared_with_one():
    told = await run("dispatcher", "bench", "reports", *SMALL, "--processes", "2")
    assert "reports" in told
    assert "median" in told
    assert "receiver, 2 processes / receiver" in told


@pytest.mark.parametrize("name", RESEARCH)
async def test_a_research_benchmark_runs_to_its_end(name, server):
    assert name in await run("bench", name, *SMALL, *LARGER.get(name, ()), "--server", server)
