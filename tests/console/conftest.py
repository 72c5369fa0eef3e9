"""A console on this test's database, and somebody who visits it."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from visitor import TOKEN, Visitor

from dispatcher.console import console_routes
from dispatcher.console.backend import StatusCache, made_desk
from dispatcher.service.http import serving


@pytest.fixture
async def console(database) -> AsyncIterator[str]:
    """The address of a console."""
    looks = StatusCache(database, reports=True)
    stop = asyncio.Event()
    routes = console_routes(made_desk(database, looks), TOKEN, stop)
    async with serving("127.0.0.1", 0, routes) as (host, port):
        yield f"http://{host}:{port}"
        stop.set()


@pytest.fixture
async def stranger(console) -> AsyncIterator[Visitor]:
    """Somebody who has not logged in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Visitor(console, session)


@pytest.fixture
async def operator(stranger) -> Visitor:
    """Somebody who has."""
    assert (await stranger.log_in()).status == 303
    return stranger
