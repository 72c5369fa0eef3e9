"""`console`: every page of the console, and its list by every filter, beside a long history."""

import asyncio
import statistics
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import combinations
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import msgspec
from msgspec import Struct

from bench.queries import research_query
from dispatcher.bench.environment import Environment, make_indexes
from dispatcher.bench.results import Results
from dispatcher.bench.send import LOAD_TIMEOUT_SECONDS, load_messages
from dispatcher.bench.statements import query
from dispatcher.console import ConsoleBackend, console_routes
from dispatcher.db.database import Database, OwnConnection, Pool, connect, create_pool
from dispatcher.service.http import CONSOLE_CONNECTIONS, serving

TOKEN = "a-token-of-the-benchmark"
PARTITION_MESSAGES = 5_000_000  # as make_partitions has it
NOT_FULL = 0.6  # of the newest partition; its messages have no index of numbers and references yet
MESSAGES_PER_STATEMENT = 500_000
WAITING_ALONE, WAITING_TOGETHER = 20_000, 1_000_000
TIME, BLOCKS = "page", "blocks of PostgreSQL"
MANY_ROWS = 50_000  # of a table that is read whole
OK = 200


class Plan(Struct, frozen=True):
    """What one statement read."""

    blocks: int
    whole: list[str]  # tables, if they are not small


async def measure(
    environment: Environment, *, rounds: int, messages: int, progress: Callable[[str], None]
) -> Results:
    """Measure each page *rounds* times beside *messages* finished ones."""
    results = Results("console", {"messages": messages, "rounds": rounds})
    async with environment.template(), environment.database() as address:
        progress(f"creating {messages:,} messages")
        await seed(address, messages)
        await measure_pages(address, results, rounds=rounds, progress=progress)
    return results


async def seed(address: str, messages: int) -> None:
    """Fill a database with a history of *messages*, and with what waits and is open beside it."""
    connection = await connect(address)
    # Where the ids begin decides how full the newest partition is.
    offset = -(messages - round(NOT_FULL * PARTITION_MESSAGES)) % PARTITION_MESSAGES

    async def run(name: str, *arguments: object) -> None:
        await connection.execute(research_query(name), *arguments, timeout=LOAD_TIMEOUT_SECONDS)

    try:
        await connection.execute("ALTER TABLE dispatcher.message DISABLE TRIGGER fill_queue")
        await run("console_begin", offset + 1)
        for first in range(1, messages + 1, MESSAGES_PER_STATEMENT):
            last = min(messages, first + MESSAGES_PER_STATEMENT - 1)
            await connection.execute(query("make_partitions"), timeout=LOAD_TIMEOUT_SECONDS)
            await run("console_messages", first, last, messages)
            await run("console_reports", first, last, messages)
        await run("console_batches", messages, offset)
        await run("console_events", messages, offset)
        await run("console_counters")
        await run("console_waiting")
        await run("console_messages_of_requests")
        await run("console_rules", messages, offset)
        await connection.execute("ALTER TABLE dispatcher.message ENABLE TRIGGER fill_queue")
        await make_indexes(connection)
        await connection.execute("VACUUM (ANALYZE)", timeout=LOAD_TIMEOUT_SECONDS)
        await load_messages(connection, WAITING_TOGETHER)
        for _ in range(WAITING_ALONE // 100):
            await load_messages(connection, 100, due_in_seconds=3600.0)
    finally:
        await connection.close()


async def measure_pages(
    address: str, results: Results, *, rounds: int, progress: Callable[[str], None]
) -> None:
    """Measure the time of each page, and how much its statements read."""
    # Connections keep the listener that takes their plans.
    warnings.simplefilter("ignore", asyncpg.InterfaceWarning)
    connection = await connect(address)
    try:
        pages = await _pages(connection)
    finally:
        await connection.close()
    async with _opened(address, None) as pool:
        for name, path in pages.items():
            await _fetch(pool, address, path)  # has the statements prepared
            for _ in range(rounds):
                results.add(name, TIME, await _fetch(pool, address, path) * 1e3, "ms")
            async with _opened(address, plans := []) as explained:
                await _fetch(explained, address, path)
            results.add(name, BLOCKS, sum(plan.blocks for plan in plans))
            if whole := sorted({table for plan in plans for table in plan.whole}):
                results.notes.append(f"{name}: reads whole tables: {', '.join(whole)}")
            taken = statistics.median(results.figure(name, TIME).values)
            blocks = results.figure(name, BLOCKS).values[0]
            progress(f"{taken:7.1f} ms {blocks:8.0f} blocks  {name}  {' '.join(whole)}")


@asynccontextmanager
async def _opened(address: str, plans: "list[Plan] | None") -> AsyncIterator[Pool]:
    """Open connections; what they do is explained into *plans*."""

    async def explain(connection: OwnConnection) -> None:
        if plans is not None:
            await _collect_plans(connection, plans)

    async with await create_pool(address, max_size=CONSOLE_CONNECTIONS, on_init=explain) as pool:
        yield pool


async def _fetch(pool: Pool, address: str, path: str) -> float:
    """Return the seconds that a page takes in a console that has cached nothing."""
    stop = asyncio.Event()
    backend = ConsoleBackend(Database(address, pool), reports_expected=True)
    async with (
        serving("127.0.0.1", 0, console_routes(backend, TOKEN, stop)) as (host, port),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        url = f"http://{host}:{port}"
        form = {"token": TOKEN, "actor": "Ana"}
        async with session.post(f"{url}/console/login", data=form, allow_redirects=False):
            pass
        began = monotonic()
        async with session.get(url + path, allow_redirects=False) as answer:
            body = await answer.read()
        seconds = monotonic() - began
        stop.set()
        if answer.status != OK:
            raise RuntimeError(f"{path}: {answer.status}: {body[:200]!r}")
        return seconds


async def _collect_plans(connection: OwnConnection, plans: list[Plan]) -> None:
    """Have each statement of *connection* explained while it runs; it takes a superuser."""

    def take(_connection: object, message: object) -> None:
        _, _, text = str(message).partition("plan:\n")
        if text:
            plan = msgspec.json.decode(text)["Plan"]
            plans.append(
                Plan(
                    plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
                    [
                        each["Relation Name"]
                        for each in _nodes(plan)
                        if each["Node Type"] == "Seq Scan"
                        and each["Actual Rows"] * each["Actual Loops"] > MANY_ROWS
                    ],
                )
            )

    await connection.execute("LOAD 'auto_explain'")
    for setting, value in (
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_timing", "off"),
        ("auto_explain.log_format", "json"),
        ("client_min_messages", "log"),
    ):
        await connection.execute("SELECT set_config($1, $2, false)", setting, value)
    connection.add_log_listener(take)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _pages(connection: OwnConnection) -> dict[str, str]:
    """Return the addresses of all pages, and of the list by each filter and each two of them."""
    last = await connection.fetchval("SELECT max(message_id) FROM dispatcher.outcome")
    old = await connection.fetchval("SELECT min(message_id) FROM dispatcher.outcome") + 10_007
    moment = await connection.fetchval("SELECT now()")
    token = await connection.fetchval(
        "SELECT token FROM dispatcher.batch WHERE state = 'closed' ORDER BY id DESC LIMIT 1"
    )
    campaigns = await connection.fetch(
        "SELECT name FROM dispatcher.campaign ORDER BY first_id DESC"
    )
    newest, oldest = campaigns[0]["name"], campaigns[-1]["name"]
    filters: dict[str, list[str]] = {
        "state": [
            *("queued", "sending", "unsure", "accepted", "delivered", "undelivered", "rejected"),
            *("expired", "cancelled"),
        ],
        "code": ["E200028", "MK:0001", "none"],
        "app": ["shop", "bank", "none"],
        "template": ["template-3", "none"],
        "campaign": [newest, oldest, "none"],
        "same_number_as": [str(last), str(old)],
        "reference": ["order 9999998", "order 20", "none"],
        "prefix": ["+86138", "+86139", "+1"],
        "last_digits": ["7", "0000"],
        "since": [f"{moment:%Y-%m-%dT00:00}"],
        "until": [f"{moment:%Y-%m-%dT00:00}", "2026-01-01T00:00"],
    }
    pages = {
        "dashboard": "",
        "chart, month": "/chart?span=month",
        "fresh": "/fresh",
        "delivery": "/delivery",
        "problems": "/problems",
        "problems, all": "/problems?all=yes",
        "search": "/search",
        "message, new": f"/message/{last}",
        "message, old": f"/message/{old}",
        "request": f"/batch/{token}",
        "campaigns": "/campaigns",
        "campaign": f"/campaign?{urlencode({'name': newest})}",
        "lists": "/lists",
        "codes": "/codes",
        "rules": "/rules",
        "actions": "/actions",
        "audit": "/audit",
        "audit, filtered": "/audit?actor=Ana&target=app+7&until=2026-11-01T00:00",
        "messages": "/messages",
    }
    for name, values in filters.items():
        for value in values:
            pages[f"messages, {name} {value}"] = f"/messages?{urlencode({name: value})}"
    for (name, values), (other, others) in combinations(filters.items(), 2):
        if {name, other} == {"same_number_as", "prefix"}:
            continue  # refused
        for value, another in ((values[0], others[-1]), (values[-1], others[0])):
            both = urlencode({name: value, other: another})
            pages[f"messages, {name} {value}, {other} {another}"] = f"/messages?{both}"
    return {name: f"/console{path}" for name, path in pages.items()}
