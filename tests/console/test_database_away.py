"""A database that is away is the first thing the console says, and the console itself stays."""

import asyncio

import aiohttp
from visitor import TOKEN, Visitor

from dispatcher.console import console_routes
from dispatcher.console.backend import StatusCache, made_desk
from dispatcher.db.database import open_database
from dispatcher.service.http import serving

NOWHERE = "postgresql://postgres:the-password@127.0.0.1:1/dispatcher"


async def test_the_cause_and_the_next_step_are_on_every_page():
    async with open_database(NOWHERE, max_size=2) as database:
        looks = StatusCache(database, reports=True)
        routes = console_routes(made_desk(database, looks), TOKEN, asyncio.Event())
        jar = aiohttp.CookieJar(unsafe=True)
        async with (
            serving("127.0.0.1", 0, routes) as (host, port),
            aiohttp.ClientSession(cookie_jar=jar) as session,
        ):
            operator = Visitor(f"http://{host}:{port}", session)
            assert (await operator.log_in()).status == 303
            for path, status in (("", 200), ("/trouble", 503), ("/act", 503), ("/message/1", 503)):
                page = await operator.get("/console" + path)
                assert page.status == status
                assert "Messages are not going out." in page.text
                assert "No PostgreSQL answers at 127.0.0.1:1" in page.text
                assert "Bring PostgreSQL back. Nothing is lost" in page.text
                assert "the-password" not in page.text
            done = await operator.act("pause", {"app": "default"})
            assert (done.status, "Bring PostgreSQL back" in done.text) == (503, True)
