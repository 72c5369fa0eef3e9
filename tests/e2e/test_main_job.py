"""From a row to an accepted message, through real processes on both sides."""

import json
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from support.exactness import read_books
from support.messages import SENDER, TEMPLATE, finished, insert, is_idle
from support.provider import KEY, SECRET, app_at, provider_process, seen
from support.slow import slow_after
from support.waiting import until

from dispatcher.simulator import Options

LIMIT_NUMBERS, LIMIT_BYTES = 500, 65_536
COLUMNS = ("recipient", "template_id", "params", "priority")


def rows(first: int, count: int) -> list[tuple[str, str, list[str], int]]:
    return [
        (f"+86139{n:08d}", TEMPLATE, [f"{n % 7:06d}"], n % 10) for n in range(first, first + count)
    ]


async def copy(db, first: int, count: int) -> None:
    await db.copy_records_to_table(
        "message", schema_name="dispatcher", columns=COLUMNS, records=rows(first, count)
    )


async def insert_rows(db, first: int, count: int, *, at_once: int) -> None:
    statement = (
        "INSERT INTO dispatcher.message (recipient, template_id, params, priority)"
        " SELECT * FROM jsonb_to_recordset($1::jsonb)"
        " AS r (recipient text, template_id text, params text[], priority smallint)"
    )
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows(first, count)]
    for start in range(0, count, at_once):
        await db.execute(statement, json.dumps(named[start : start + at_once]))


@asynccontextmanager
async def rolled_back(db) -> AsyncIterator[None]:
    """The application changes its mind: a transaction, or a savepoint inside one."""
    transaction = db.transaction()
    await transaction.start()
    yield
    await transaction.rollback()


async def insert_10_000(db) -> None:
    """In all ways there are; 3,000 more are rolled back."""
    await copy(db, 0, 6000)
    await insert_rows(db, 6000, 2000, at_once=500)
    await insert_rows(db, 8000, 200, at_once=1)
    async with db.transaction():
        await copy(db, 8200, 800)
        await insert_rows(db, 9000, 500, at_once=100)
        async with rolled_back(db):
            await copy(db, 50_000, 1000)
        await insert_rows(db, 9500, 500, at_once=500)
    async with rolled_back(db):
        await insert_rows(db, 60_000, 1000, at_once=250)
        await copy(db, 61_000, 1000)


@pytest.mark.parametrize(
    "account",
    slow_after(1, [{"auth": "aksk"}, {"auth": "wsse", "wsse_digest": "raw"}]),
    ids=["AK/SK", "X-WSSE"],
)
async def test_ten_thousand_rows_are_sent_once_each(db, workers, record_property, account):
    digests = ["raw"] if account.get("wsse_digest") == "raw" else ["hex"]
    async with provider_process(wsse_digests=digests) as provider:
        await workers.start({"default": app_at(provider.url, **account)})
        began = monotonic()
        await insert_10_000(db)
        await until(lambda: finished(db), deadline=60, what="everything has its end")
        record_property("messages_per_second", 10_000 / (monotonic() - began))

        books = await read_books(db, await provider.ledger())
        requests = await provider.requests()
    assert books.states == {"accepted": 10_000}
    assert not books.problems()  # each its own smsMsgId, none twice, nothing unknown
    assert {request["scheme"] for request in requests} == {account["auth"]}
    assert max(request["numbers"] for request in requests) <= LIMIT_NUMBERS
    assert max(request["size"] for request in requests) <= LIMIT_BYTES
    assert {request["host"] for request in requests} == {provider.url.removeprefix("http://")}


async def insert_long_texts(db, count: int) -> None:
    """One number an entry: every text is another."""
    dice = random.Random(7)
    texts = ["".join(dice.choices(string.ascii_letters, k=200)) for _ in range(count)]
    await db.executemany(
        "INSERT INTO dispatcher.message (recipient, template_id, params) VALUES ($1, $2, $3)",
        [(f"+86139{n:08d}", TEMPLATE, [text]) for n, text in enumerate(texts)],
    )


@pytest.mark.parametrize(
    ("long", "numbers"),
    [(True, range(150, 300)), (False, range(500, 501))],
    ids=["bytes", "numbers"],
)
async def test_requests_are_filled_to_nine_tenths_of_their_limit(db, workers, sim, long, numbers):
    await (insert_long_texts(db, 5000) if long else insert(db, 5000))
    await workers.start(sim.url)
    await until(lambda: finished(db), deadline=60)

    visits = list(sim.journal)
    assert sum(visit.numbers for visit in visits) == 5000
    filled = [max(v.numbers / LIMIT_NUMBERS, v.size / LIMIT_BYTES) for v in visits]
    assert max(filled) <= 1.0
    assert sum(share <= 0.9 for share in filled) <= 2, sorted(filled)[:5]  # only where it ends
    assert all(v.numbers in numbers for v, share in zip(visits, filled, strict=True) if share > 0.9)


async def test_surplus_of_a_claim_keeps_its_place_in_the_queue(db, workers, sim):
    await insert_long_texts(db, 2000)
    await workers.start({"default": app_at(sim.url, concurrency=1)})
    await until(lambda: finished(db), deadline=60)
    numbers = [row.number for row in sim.ledger.rows()]
    assert numbers == sorted(numbers)


async def test_many_senders_still_share_requests_by_the_hundred(db, workers, sim):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, sender)"
        " SELECT '+86139' || lpad(n::text, 8, '0'), 't', 'csms' || n % 20"
        " FROM generate_series(1, 20000) AS n"
    )
    await workers.start(sim.url)
    await until(lambda: finished(db), deadline=60)
    assert len(sim.journal) <= 20_000 / 50


@pytest.mark.parametrize("written", ["http://{host}", "http://{host}:{port}"])
async def test_the_host_that_is_signed_is_the_host_on_the_wire(db, workers, provide, written):
    """Without a port in the endpoint there is none in Host: that needs the port 80."""
    listen = "127.0.0.80:80" if ":{port}" not in written else "127.0.0.1:0"
    try:
        sim = await provide(listen=listen, options=Options(signed_host="wire"))
    except PermissionError:
        pytest.skip("only root may listen on port 80 here")
    host, port = sim.url.removeprefix("http://").rsplit(":", 1)
    endpoint = written.format(host=host, port=port)
    await insert(db, 3)
    await workers.start(endpoint)
    await seen(sim, lambda: sim.ledger.numbers == 3)
    assert {visit.host for visit in sim.journal} == {endpoint.removeprefix("http://")}


async def test_two_workers_share_the_work_and_nothing_goes_twice(db, workers, sim):
    apps = {"default": app_at(sim.url, concurrency=2)}
    await workers.start(apps)
    await workers.start(apps)
    first = 0

    async def is_shared() -> bool:
        """Bring more until each has done a part: one may stand still for a while."""
        nonlocal first
        if first < 100_000:
            await copy(db, first, 2000)
            first += 2000
        rows = await db.fetch("SELECT count(*) FROM dispatcher.batch GROUP BY worker")
        return first >= 20_000 and len(rows) == 2 and min(row["count"] for row in rows) >= 5

    await until(is_shared, deadline=60, what="each takes a share")
    await until(lambda: finished(db), deadline=60)
    books = await read_books(db, sim.ledger.rows())
    assert books.states == {"accepted": first}
    assert not books.problems()


LISTENS = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'
          AND state_change < clock_timestamp() - interval '0.3 s')
"""  # for a while: a statement is prepared before it is executed


async def test_an_urgent_message_wakes_the_worker(db, workers, sim):
    await insert(db, 1)
    await workers.start(sim.url, poll_interval="30s")
    await seen(sim, lambda: sim.ledger.numbers == 1)  # the first claim is over
    await until(lambda: db.fetchval(LISTENS), what="it listens")
    await until(lambda: is_idle(db))
    began = monotonic()
    await insert(db, 1, first=1, priority=0)
    await seen(sim, lambda: sim.ledger.numbers == 2)
    assert monotonic() - began < 20  # a poll comes after 30 s


async def test_a_stop_finishes_and_writes_what_is_in_flight(db, workers, sim):
    await insert(db, 20_000)
    worker = await workers.start(sim.url)
    await seen(sim, lambda: sim.ledger.numbers >= 3000)
    began = monotonic()
    worker.terminate()
    assert await worker.ended() == 0
    assert monotonic() - began < 20

    books = await read_books(db, sim.ledger.rows())
    assert books.states.keys() == {"accepted", "queued"}
    assert not books.problems(final=False)
    assert books.states["accepted"] == sim.ledger.numbers < 20_000
    assert await db.fetchval("SELECT bool_and(stopped_at IS NOT NULL) FROM dispatcher.worker")


async def test_bad_settings_are_a_clear_line_each(workers):
    app = {"app_key": KEY, "app_secret": SECRET, "auth": "basic", "timeout": "1h"}
    worker = workers.launch({"default": app}, poll_intervall="3s", lease="often")
    assert await worker.ended() == 2
    lines = worker.text().splitlines()
    assert {line.split()[1] for line in lines} == {
        "DISPATCHER_APPS__DEFAULT__ENDPOINT",
        "DISPATCHER_APPS__DEFAULT__AUTH",
        "DISPATCHER_APPS__DEFAULT__TIMEOUT",
        "DISPATCHER_LEASE",
        "DISPATCHER_POLL_INTERVALL",
    }
    assert "did you mean DISPATCHER_POLL_INTERVAL?" in worker.text()
    assert SECRET not in worker.text()


async def test_an_unreachable_database_is_one_clear_line(workers):
    worker = workers.launch("http://127.0.0.1:9", dsn="postgresql://u:hush@127.0.0.1:9/none")
    assert await worker.ended() == 1
    (line,) = worker.text().splitlines()
    assert "127.0.0.1:9" in line
    assert "DISPATCHER_DATABASE_URL" in line
    assert "hush" not in line


async def test_an_insert_that_breaks_a_limit_says_which_one(db):
    with pytest.raises(Exception, match="recipient_has_at_most_21_characters"):
        await db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, $2)",
            "+" + "8" * 21,
            TEMPLATE,
        )


async def test_messages_of_several_apps_go_each_its_own_way(db, workers, provide):
    sims = {name: await provide() for name in ("one", "two", "three")}
    ids = {name: await insert(db, 700, app=name) for name in sims}
    await workers.start(
        {name: app_at(sim.url, sender=f"{SENDER}{name}"[:21]) for name, sim in sims.items()}
    )
    await until(lambda: finished(db))
    for name, sim in sims.items():
        assert sim.ledger.numbers == len(ids[name])
