"""`console`: every page of the console, and its list by every filter, beside a long history."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from time import monotonic, process_time
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from msgspec import Struct

from bench.queries import research_query
from dispatcher.bench.environment import Environment, make_indexes
from dispatcher.bench.results import Results
from dispatcher.bench.send import LOAD_TIMEOUT_SECONDS, load_messages
from dispatcher.bench.statements import query
from dispatcher.console import ConsoleBackend, console_routes
from dispatcher.db.database import Connection, Database, OwnConnection, Pool, connect, create_pool
from dispatcher.service.http import CONSOLE_CONNECTIONS, serving

TOKEN = "a-token-of-the-benchmark"
PARTITION_MESSAGES = 5_000_000  # as make_partitions has it
NOT_FULL = 0.6  # of the newest partition; its messages have no index of numbers and references yet
MESSAGES_PER_STATEMENT = 500_000
WAITING_ALONE, WAITING_TOGETHER = 20_000, 1_000_000
FIGURES = TIME, CPU, BLOCKS = "page", "processor", "blocks of PostgreSQL"
EXPLAINED = {
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_min_duration": "0",
    "client_min_messages": "log",
}
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
    """Measure each page: its time, the processor's, and how much PostgreSQL reads for it.

    The processor's time is that of the console, of the client, and of PostgreSQL's connections: on
    a machine that does nothing else the page takes so long, and a loaded one changes it little.
    """
    connection = await connect(address)
    try:
        pages = await _pages(connection)
    finally:
        await connection.close()
    servers: list[int] = []  # process ids of PostgreSQL's connections

    async def note(connection: OwnConnection) -> None:
        servers.append(connection.get_server_pid())

    async with await create_pool(address, max_size=CONSOLE_CONNECTIONS, on_init=note) as pool:
        for name, path in pages.items():
            await _fetch(Database(address, pool), path, servers)  # has the statements prepared
            for _ in range(rounds):
                seconds, worked = await _fetch(Database(address, pool), path, servers)
                results.add(name, TIME, seconds * 1e3, "ms")
                results.add(name, CPU, worked * 1e3, "ms")
            explained = ExplainedDatabase(address, pool)
            await _fetch(explained, path, servers)
            results.add(name, BLOCKS, sum(plan.blocks for plan in explained.plans))
            if whole := sorted({table for plan in explained.plans for table in plan.whole}):
                results.notes.append(f"{name}: reads whole tables: {', '.join(whole)}")
            taken, worked, blocks = (
                statistics.median(results.figure(name, each).values) for each in FIGURES
            )
            progress(f"{taken:7.1f} ms {worked:7.1f} {blocks:7.0f} {name} {' '.join(whole)}")


def _processor_seconds(servers: list[int]) -> float:
    """Return what this process and PostgreSQL's connections have worked so far."""
    worked = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in servers)
    return process_time() + sum(map(int, worked)) / 1e9


async def _fetch(database: Database, path: str, servers: list[int]) -> tuple[float, float]:
    """Return the seconds that a page takes in a console that has cached nothing, and its work."""
    stop = asyncio.Event()
    backend = ConsoleBackend(database, reports_expected=True)
    async with (
        serving("127.0.0.1", 0, console_routes(backend, TOKEN, stop)) as (host, port),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        url = f"http://{host}:{port}"
        form = {"token": TOKEN, "actor": "Ana"}
        async with session.post(f"{url}/console/login", data=form, allow_redirects=False):
            pass
        await backend.tokens()  # a connection is there
        began, before = monotonic(), _processor_seconds(servers)
        async with session.get(url + path, allow_redirects=False) as answer:
            body = await answer.read()
        seconds, worked = monotonic() - began, _processor_seconds(servers) - before
        stop.set()
        if answer.status != OK:
            raise RuntimeError(f"{path}: {answer.status}: {body[:200]!r}")
        return seconds, worked


class ExplainedDatabase(Database):
    """A database whose statements are explained while they run; it takes a superuser."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        super().__init__(dsn, pool)
        self.plans: list[Plan] = []

    @asynccontextmanager
    async def acquire(self, *, seconds: float = 60.0) -> AsyncIterator[Connection]:
        """Give a connection, as `Database.acquire`."""
        async with super().acquire(seconds=seconds) as connection:
            await connection.execute("LOAD 'auto_explain'")
            for name, value in EXPLAINED.items():
                await connection.execute("SELECT set_config($1, $2, false)", name, value)
            connection.add_log_listener(self._take)
            try:
                yield connection
            finally:
                connection.remove_log_listener(self._take)
                await connection.execute("SET auto_explain.log_min_duration = -1")

    def _take(self, _connection: object, message: object) -> None:
        _, _, text = str(message).partition("plan:\n")
        if text:
            plan = msgspec.json.decode(text)["Plan"]
            whole = [
                each["Relation Name"]
                for each in _nodes(plan)
                if each["Node Type"] == "Seq Scan"
                and each["Actual Rows"] * each["Actual Loops"] > MANY_ROWS
            ]
            self.plans.append(Plan(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], whole))


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
    # Last: what they show is counted in the background.
    pages["campaigns"] = "/campaigns"
    pages["campaign"] = f"/campaign?{urlencode({'name': newest})}"
    return {name: f"/console{path}" for name, path in pages.items()}
