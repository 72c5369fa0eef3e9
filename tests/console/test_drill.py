"""The drills of whoever is on call: what goes wrong, and what the first screens say of it.

Each is provoked at a real service with a simulated provider. The console's first page and
`dispatcher status` must name the cause and the next step, the worst first. With SCREENSHOTS set
to a folder, a browser leaves a picture of the first page of each there.
"""

import asyncio
import html
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from onlooker import picture
from running import Service, app_settings, running, until
from visitor import TOKEN, Visitor
from world.wire import Wire

from dispatcher.simulator import Simulator, read_faults

FAR = "http://127.0.0.1:1"  # nobody listens there
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params)
    SELECT '+86131' || lpad(n::text, 8, '0'), 'tpl', '{837465}' FROM generate_series(1, $1::int) n
"""
LATER = "UPDATE dispatcher.tally SET minute = minute - interval '20 minutes'"


@dataclass(frozen=True)
class Drill:
    """One thing that goes wrong, and what must be told of it."""

    headline: str
    cause: str
    step: str
    faults: str = "[]"
    app: Mapping[str, str] = field(default_factory=dict)  # settings of the app
    service: Mapping[str, str] = field(default_factory=dict)  # settings of the whole
    messages: int = 40
    first: Callable[..., Awaitable[None]] | None = None  # done before anybody looks


async def accepted_long_ago(db) -> None:
    """Let the time pass in which reports should have come."""
    query = "SELECT count(*) = 40 FROM dispatcher.outcome WHERE state = 'accepted'"
    await until(lambda: db.fetchval(query), what="40 accepted")
    await db.execute(LATER)


NOT_OUT = "Messages are not going out."
PROBLEMS = "Messages are going out, with problems."
IDLE = "Nothing is due, but there are problems."
DRILLS = {
    "wrong secret": Drill(
        NOT_OUT,
        "The signature is wrong",
        "Check DISPATCHER_APPS__DEFAULT__APP_SECRET",
        app={"DISPATCHER_APPS__DEFAULT__APP_SECRET": "not-the-secret"},
    ),
    "not on the white list": Drill(
        NOT_OUT,
        "not on the application's white list",
        "Add it in the provider's console; that takes 10 to 15 minutes",
        '[{"fault": "white-list"}]',
    ),
    "quota spent": Drill(
        NOT_OUT,
        "quota of messages is spent",
        "Ask the provider for more, then `dispatcher resume`",
        '[{"fault": "quota"}]',
    ),
    "template rejected": Drill(
        NOT_OUT,
        "E200033: The template is of the wrong type",
        "Compare template, sender and signature in the provider's console; then requeue",
        '[{"fault": "number-code", "code": "E200033"}]',
    ),
    "template not active": Drill(
        NOT_OUT,
        "E200030: The template is not active",
        "activate it, then requeue",
        '[{"fault": "number-code", "code": "E200030"}]',
    ),
    "one template of several rejected, a single message": Drill(
        IDLE,
        "E200033: The template is of the wrong type",
        "Compare template, sender and signature",
        '[{"fault": "number-code", "code": "E200033"}]',
        messages=1,
    ),
    "callback address broken": Drill(
        IDLE,
        "nothing was reported of any",
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside",
        service={
            "DISPATCHER_CALLBACK_URL": f"{FAR}/reports/a-token-of-sixteen-letters",
            "DISPATCHER_REPORT_PATH_TOKEN": "a-token-of-sixteen-letters",
        },
        first=accepted_long_ago,
    ),
    "provider down": Drill(
        NOT_OUT,
        "The provider cannot be reached",
        "Check network, DNS and DISPATCHER_APPS__DEFAULT__ENDPOINT",
        app={"DISPATCHER_APPS__DEFAULT__ENDPOINT": FAR},
    ),
    "flood of E200015": Drill(
        PROBLEMS,
        "Too many messages wait at the provider",
        "If it lasts, lower the rate limit",
        '[{"fault": "number-code", "code": "E200015", "share": 0.9}]',
        messages=400,
    ),
    "unsure requests": Drill(
        IDLE,
        "They may have been sent: the answer was lost",
        "ask the provider, and settle each by hand",
        '[{"fault": "cut", "accept": true}]',
    ),
}


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Visitor]:
    """Log in to the console at *url*."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        visitor = Visitor(url, session)
        assert (await visitor.log_in()).status == 303
        yield visitor


async def status(dsn: str, *words: str, **settings: str) -> str:
    """Return what `dispatcher status` says, on whichever stream, its line breaks undone."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatcher", "status", *words),
        env=environment | {"DISPATCHER_DATABASE_URL": dsn, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return " ".join(out.decode().split())


def first_screen(page: str) -> tuple[str, str]:
    """Return the headline of a page, and its first finding as text."""
    headline = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]
    finding = re.search(r'<li class="finding.*?</li>', page, re.DOTALL)
    text = re.sub(r"</?code>", "`", finding[0]) if finding else ""
    text = re.sub(r"<[^>]+>", " ", text)
    return html.unescape(headline).strip(), " ".join(html.unescape(text).split())


@pytest.mark.parametrize("name", DRILLS)
async def test_the_first_screens_name_the_cause_and_the_next_step(name, db, dsn):
    drill = DRILLS[name]
    async with Simulator({"key": "secret"}) as simulator:
        await simulator.faults.arm(read_faults(drill.faults.encode()))
        settings = app_settings(simulator.url, timeout="5") | drill.app
        async with running(
            dsn, **settings, **drill.service, DISPATCHER_CONSOLE_TOKEN=TOKEN
        ) as service:
            await db.execute(INSERT, drill.messages)
            if drill.first is not None:
                await drill.first(db)
            await told_by_the_console(service, drill, name)
            said = await status(dsn, **drill.service)
    assert said.startswith(drill.headline)
    assert drill.cause in said
    assert drill.step in said


async def told_by_the_console(service: Service, drill: Drill, name: str) -> None:
    async with looking(service.url) as visitor:

        async def told() -> str | None:
            headline, finding = first_screen((await visitor.get("/console")).text)
            good = drill.cause in finding and drill.step in finding
            return finding if good and headline.startswith(drill.headline) else None

        finding = await until(told, what=f"{drill.cause!r} on the first page")
        assert "<NAME>" not in finding
    await picture(service.url, name)


async def test_a_database_that_goes_down_is_told_and_forgotten_when_it_is_back(dsn):
    async with (
        Simulator({"key": "secret"}) as simulator,
        Wire(dsn) as wire,
        running(wire.dsn, **app_settings(simulator.url), DISPATCHER_CONSOLE_TOKEN=TOKEN) as service,
        looking(service.url) as visitor,
    ):
        await wire.cut()

        async def told() -> bool:
            headline, finding = first_screen((await visitor.get("/console")).text)
            return (
                headline == NOT_OUT
                and "No PostgreSQL answers at 127.0.0.1" in finding
                and "Bring PostgreSQL back. Nothing is lost" in finding
            )

        await until(told, what="the database missed on the first page")
        assert "start it, or correct DISPATCHER_DATABASE_URL" in await status(wire.dsn)
        await picture(service.url, "database down")
        await wire.mend()

        async def well() -> bool:
            return "All is sent" in (await visitor.get("/console")).text

        await until(well, what="a first page without trouble")
        assert (await status(dsn)).startswith("All is sent; nothing is due.")


async def test_without_a_worker_nobody_sends(db, dsn, operator):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await db.execute(INSERT, 3)
    headline, finding = first_screen((await operator.get("/console")).text)
    assert headline == NOT_OUT
    assert "nobody sends. What to do: Start one: `dispatcher run`" in finding
    said = await status(dsn)
    assert said.startswith(NOT_OUT)
    assert "Start one: `dispatcher run`" in said
