"""Fixtures: a running simulator and a client for it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from provider_client import KEY, SECRET, Client

from dispatcher.simulator import Simulator

Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a simulator with any options; return a client for it."""
    async with AsyncExitStack() as stack:

        async def make(**arguments: Any) -> Client:
            sim = await stack.enter_async_context(Simulator({KEY: SECRET}, **arguments))
            session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
            )
            return Client(sim, session)

        yield make


@pytest.fixture
async def client(start: Start) -> Client:
    return await start()
