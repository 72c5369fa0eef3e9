"""A console on the test's database, and clients of it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from client import TOKEN, Client

from dispatcher.console import ConsoleBackend, console_routes
from dispatcher.service.http import serving


@pytest.fixture(autouse=True)
def patient_queries(monkeypatch) -> None:
    """A machine that stands still for seconds is no database that does not answer."""
    for name in ("QUERY", "ACTION", "CACHED_QUERY"):
        monkeypatch.setattr(f"dispatcher.console.backend.{name}_TIMEOUT_SECONDS", 60.0)


@pytest.fixture
def backend(database) -> ConsoleBackend:
    """What the console reads and does in the database."""
    return ConsoleBackend(database, reports_expected=True)


@pytest.fixture
async def console(backend) -> AsyncIterator[str]:
    """The address of a console."""
    stop = asyncio.Event()
    async with serving("127.0.0.1", 0, console_routes(backend, TOKEN, stop)) as (host, port):
        yield f"http://{host}:{port}"
        stop.set()
    # A list is shown as checked while its process still ends. If its transport were collected while
    # pytest imports a module, that would fail: ast.parse of Python 3.11 cannot be nested.
    tasks = asyncio.all_tasks()
    lists = [task for task in tasks if task.get_coro().__qualname__ == "ListPages._run"]
    if lists:
        await asyncio.wait(lists, timeout=60)


@pytest.fixture
async def client(console) -> AsyncIterator[Client]:
    """A client without a session."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Client(console, session)


@pytest.fixture
async def operator(client) -> Client:
    """A client that has logged in."""
    assert (await client.log_in()).status == 303
    return client
