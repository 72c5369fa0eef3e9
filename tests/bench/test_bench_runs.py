"""Each benchmark runs to its end with the smallest sizes: a rule of the schema may stop one."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from dispatcher.cli.bench import BenchmarkName

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ("--rounds", "1", "--messages", "1000", "--seconds", "3", "--million")
# The backlog of `latency` must last for its urgent messages.
MILLION = {"latency": "1000000"}
# The others take minutes, or other systems.
RESEARCH = ("baselines", "enqueue", "reports", "scaling")
TIMEOUT_SECONDS = 300.0


async def run(*arguments: str) -> str:
    """Return what a benchmark prints.

    Once, on a busy machine, the embedded PostgreSQL of one was away at its start, for a reason that
    was not found: that is tried once more.
    """
    status, output, error = await _run(*arguments)
    if status and "No PostgreSQL answers" in error:
        status, output, error = await _run(*arguments)
    assert status == 0, error
    return output


async def _run(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "COLUMNS": "140"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        output, error = await process.communicate()
    return process.returncode, output.decode(), error.decode()


@pytest.mark.parametrize("name", [name.value for name in BenchmarkName])
async def test_a_benchmark_for_users_runs_to_its_end(name):
    told = await run("dispatcher", "bench", name, *SMALL, MILLION.get(name, "1000"))
    assert name in told
    assert "median" in told


async def test_two_receivers_on_a_port_are_compared_with_one():
    told = await run("dispatcher", "bench", "reports", *SMALL, "1000", "--processes", "2")
    assert "receiver, 2 processes / receiver" in told


@pytest.mark.parametrize("name", RESEARCH)
async def test_a_research_benchmark_runs_to_its_end(name):
    assert name in await run("bench", name, *SMALL, "1000")
