"""Without a database, every page of the console names the cause and the next step."""

import asyncio

import aiohttp
from client import TOKEN, Client

from dispatcher.console import ConsoleBackend, console_routes
from dispatcher.db.database import open_database
from dispatcher.service.http import serving

UNREACHABLE = "postgresql://postgres:the-password@127.0.0.1:1/dispatcher"


async def test_every_page_names_the_cause_and_the_next_step():
    async with open_database(UNREACHABLE, max_size=2) as database:
        backend = ConsoleBackend(database, reports_expected=True)
        routes = console_routes(backend, TOKEN, asyncio.Event())
        jar = aiohttp.CookieJar(unsafe=True)
        async with (
            serving("127.0.0.1", 0, routes) as (host, port),
            aiohttp.ClientSession(cookie_jar=jar) as session,
        ):
            operator = Client(f"http://{host}:{port}", session)
            assert (await operator.log_in()).status == 303
            for path, status in (
                ("", 200),
                ("/problems", 503),
                ("/actions", 503),
                ("/message/1", 503),
            ):
                page = await operator.get("/console" + path)
                assert page.status == status
                assert "Messages are not going out." in page.text
                assert "No PostgreSQL answers at 127.0.0.1:1" in page.text
                assert "Bring PostgreSQL back. Nothing is lost" in page.text
                assert "the-password" not in page.text
            done = await operator.act("pause", {"app": "default"})
            assert (done.status, "Bring PostgreSQL back" in done.text) == (503, True)
