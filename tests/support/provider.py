"""The provider, in this process or in one of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import msgspec

from dispatcher.postgres.programs import signal_on_parent_exit
from dispatcher.simulator import Row, Simulator
from support.messages import SENDER
from support.worker import ROOT

KEY, SECRET = "uxOF5yvM0H3C0t5G0xc272g7hA2I", "test-secret-0000000000000000"
COMMAND = [sys.executable, "-m", "dispatcher", "simulate", "--key", KEY, "--secret", SECRET]
FIRST_LINE = 60.0  # seconds


def app_at(url: str, **more: object) -> dict[str, object]:
    """Return the settings of an app that sends to *url*, without a limit to its pace."""
    return {
        "endpoint": url,
        "app_key": KEY,
        "app_secret": SECRET,
        "sender": SENDER,
        "numbers_per_second": "none",
        **more,
    }


class ProviderProcess:
    """`dispatcher simulate`, and what it says over its control address."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def ledger(self) -> list[Row]:
        """Return one row for each accepted number."""
        async with self._session.get(f"{self.url}/_ledger") as response:
            return [msgspec.json.decode(line, type=Row) async for line in response.content]

    async def requests(self) -> list[dict[str, Any]]:
        """Return what came."""
        async with self._session.get(f"{self.url}/_requests") as response:
            return [json.loads(line) async for line in response.content]


@asynccontextmanager
async def provider_process(
    *,
    listen: str = "127.0.0.1:0",
    faults: str = "[]",
    inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    **options: object,
) -> AsyncIterator[ProviderProcess]:
    """Run the provider as a process of its own, with *faults* in JSON.

    It is started *inside* of whatever that enters.
    """
    arguments = ["--listen", listen, "--options", json.dumps(options), "--faults", faults]
    with inside():
        process = subprocess.Popen(  # noqa: ASYNC220 - it is started once, and that does not wait
            [*COMMAND, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one system call
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(FIRST_LINE):
            url = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with aiohttp.ClientSession() as session:
            yield ProviderProcess(url, session)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@asynccontextmanager
async def provider(**arguments: Any) -> AsyncIterator[Simulator]:
    """Run the provider in this process, where a test can look at it."""
    async with Simulator({KEY: SECRET}, **arguments) as simulator:
        yield simulator


async def seen(simulator: Simulator, condition: Callable[[], bool], deadline: float = 60) -> None:
    """Wait until *condition* holds for what the simulator has seen."""
    async with asyncio.timeout(deadline):
        await simulator.until(condition)
