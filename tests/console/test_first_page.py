"""The dashboard and `dispatcher status` name the cause of each failure, and the next step.

Each failure happens to a real service with a simulated provider. The worst finding comes first.
With SCREENSHOTS set to a folder, a browser saves a screenshot of the dashboard of each there.
"""

import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from client import TOKEN, Client
from screenshots import save_dashboard
from support.cuttable_proxy import Wire
from support.service import Service, app_settings, command, running, until
from support.slow import slow_after

from dispatcher.simulator import Simulator, read_faults

UNREACHABLE = "http://127.0.0.1:1"
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params)
    SELECT '+86131' || lpad(n::text, 8, '0'), 'tpl', '{837465}' FROM generate_series(1, $1::int) n
"""
MAKE_EVENTS_OLDER = "UPDATE dispatcher.event_count SET minute = minute - interval '20 minutes'"


@dataclass(frozen=True)
class Failure:
    """A failure, and the texts that must name it."""

    headline: str | tuple[str, ...]  # one of them
    cause: str
    step: str
    faults: str = "[]"
    app: Mapping[str, str] = field(default_factory=dict)  # settings of the app
    service: Mapping[str, str] = field(default_factory=dict)  # further settings of the service
    messages: int = 40
    first: Callable[..., Awaitable[None]] | None = None  # done before the pages are read


async def accepted_long_ago(db) -> None:
    """Wait until all are accepted, and date that back, so that reports are overdue."""
    query = "SELECT count(*) = 40 FROM dispatcher.outcome WHERE state = 'accepted'"
    await until(lambda: db.fetchval(query), what="40 accepted")
    await db.execute(MAKE_EVENTS_OLDER)


NOT_OUT = "Messages are not going out."
TROUBLE = "Messages are going out, with problems."
IDLE = "Nothing is due, but there are problems."
FAILURES = {
    "wrong secret": Failure(
        NOT_OUT,
        "The signature is wrong",
        "Check DISPATCHER_APPS__DEFAULT__APP_SECRET",
        app={"DISPATCHER_APPS__DEFAULT__APP_SECRET": "not-the-secret"},
    ),
    "not on the white list": Failure(
        NOT_OUT,
        "not on the application's white list",
        "Add it in the provider's console; that takes 10 to 15 minutes",
        '[{"fault": "white-list"}]',
    ),
    "quota spent": Failure(
        NOT_OUT,
        "quota of messages is spent",
        "Ask the provider for more, then `dispatcher resume`",
        '[{"fault": "quota"}]',
    ),
    "template rejected": Failure(
        NOT_OUT,
        "E200033: The template is of the wrong type",
        "Compare template, sender and signature in the provider's console; then requeue",
        '[{"fault": "number-code", "code": "E200033"}]',
    ),
    "template not active": Failure(
        NOT_OUT,
        "E200030: The template is not active",
        "activate it, then requeue",
        '[{"fault": "number-code", "code": "E200030"}]',
    ),
    "one template of several rejected, a single message": Failure(
        IDLE,
        "E200033: The template is of the wrong type",
        "Compare template, sender and signature",
        '[{"fault": "number-code", "code": "E200033"}]',
        messages=1,
    ),
    "callback address broken": Failure(
        IDLE,
        "nothing was reported of any",
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside",
        service={
            "DISPATCHER_CALLBACK_URL": f"{UNREACHABLE}/reports/a-token-of-sixteen-letters",
            "DISPATCHER_REPORT_PATH_TOKEN": "a-token-of-sixteen-letters",
        },
        first=accepted_long_ago,
    ),
    "provider down": Failure(
        NOT_OUT,
        "The provider cannot be reached",
        "Check network, DNS and DISPATCHER_APPS__DEFAULT__ENDPOINT",
        app={"DISPATCHER_APPS__DEFAULT__ENDPOINT": UNREACHABLE},
    ),
    "flood of E200015": Failure(
        (TROUBLE, IDLE),  # the latter while all that was refused waits for its time
        "Too many messages wait at the provider",
        "If it lasts, lower the rate limit",
        '[{"fault": "number-code", "code": "E200015", "share": 0.9}]',
        messages=400,
    ),
    "unknown results": Failure(
        NOT_OUT,
        "the results of its requests are unknown",
        "Settle what is unsure",
        '[{"fault": "cut", "accept": true}]',
    ),
}


@asynccontextmanager
async def logged_in(url: str) -> AsyncIterator[Client]:
    """Log in to the console at *url*."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        client = Client(url, session)
        assert (await client.log_in()).status == 303
        yield client


async def status(dsn: str, *words: str, **settings: str) -> str:
    """Return the output of `dispatcher status` in one line, stderr included."""
    return " ".join((await command("status", *words, dsn=dsn, **settings)).split())


def headline_and_finding(page: str) -> tuple[str, str]:
    """Return the headline of a dashboard, and its first finding as text."""
    headline = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]
    finding = re.search(r'<li class="finding.*?</li>', page, re.DOTALL)
    text = re.sub(r"</?code>", "`", finding[0]) if finding else ""
    text = re.sub(r"<[^>]+>", " ", text)
    return html.unescape(headline).strip(), " ".join(html.unescape(text).split())


@pytest.mark.parametrize("name", slow_after(3, FAILURES))
async def test_dashboard_and_status_name_cause_and_next_step(name, db, dsn):
    failure = FAILURES[name]
    async with Simulator({"key": "secret"}) as simulator:
        await simulator.faults.arm(read_faults(failure.faults.encode()))
        settings = app_settings(simulator.url) | failure.app
        async with running(
            dsn, **settings, **failure.service, DISPATCHER_CONSOLE_TOKEN=TOKEN
        ) as service:
            await db.execute(INSERT, failure.messages)
            if failure.first is not None:
                await failure.first(db)
            await check_dashboard(service, failure, name)
            output = await status(dsn, **failure.service)
    assert output.startswith(failure.headline)
    assert failure.cause in output
    assert failure.step in output


async def check_dashboard(service: Service, failure: Failure, name: str) -> None:
    async with logged_in(service.url) as client:

        async def shown() -> str | None:
            headline, finding = headline_and_finding((await client.get("/console")).text)
            good = failure.cause in finding and failure.step in finding
            return finding if good and headline.startswith(failure.headline) else None

        finding = await until(shown, what=f"{failure.cause!r} on the dashboard")
        assert "<NAME>" not in finding
    await save_dashboard(service.url, name)


async def test_a_database_failure_is_shown_until_it_ends(dsn):
    async with (
        Simulator({"key": "secret"}) as simulator,
        Wire(dsn) as wire,
        running(wire.dsn, **app_settings(simulator.url), DISPATCHER_CONSOLE_TOKEN=TOKEN) as service,
        logged_in(service.url) as client,
    ):
        await wire.cut()

        async def shown() -> bool:
            headline, finding = headline_and_finding((await client.get("/console")).text)
            return (
                headline == NOT_OUT
                and "No PostgreSQL answers at 127.0.0.1" in finding
                and "Bring PostgreSQL back. Nothing is lost" in finding
            )

        await until(shown, what="the database's failure on the dashboard")
        assert "start it, or correct DISPATCHER_DATABASE_URL" in await status(wire.dsn)
        await save_dashboard(service.url, "database down")
        await wire.mend()

        async def recovered() -> bool:
            return "All is sent" in (await client.get("/console")).text

        await until(recovered, what="a dashboard without findings")
        assert (await status(dsn)).startswith("All is sent; nothing is due.")


async def test_a_missing_worker_is_named(db, dsn, operator):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    await db.execute(INSERT, 3)
    headline, finding = headline_and_finding((await operator.get("/console")).text)
    assert headline == NOT_OUT
    assert "nobody sends. What to do: Start one: `dispatcher run`" in finding
    output = await status(dsn)
    assert output.startswith(NOT_OUT)
    assert "Start one: `dispatcher run`" in output
