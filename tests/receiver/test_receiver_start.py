"""A receiver listens at once, whatever the database is doing: nobody sends a report again."""

import socket

import aiohttp
import pytest
from receiving_end import FORM, TOKEN, form, stored
from support.waiting import until

from dispatcher.db.database import connect
from dispatcher.db.migrate import LOCK_KEY, migrate


@pytest.fixture
async def start(workers):
    """Start a receiver on a database, and wait until it listens; return it and its address."""

    async def launch(dsn: str, **shared: str):
        given = {"report_path_token": TOKEN, **shared}
        made = workers.launch({}, dsn=dsn, arguments=("--only", "reports"), **given)

        def said():
            return next((e for e in made.events() if e.get("event") == "listening"), None)

        at = await until(said, deadline=30, what="it listens")
        return made, f"http://{at['host']}:{at['port']}/reports/{TOKEN}"

    return launch


async def post(url: str, name: str) -> int:
    headers = {"Content-Type": FORM}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=form(name), headers=headers) as answer,
    ):
        return answer.status


@pytest.mark.slow
async def test_reports_are_accepted_while_another_process_migrates(empty_dsn, start):
    db = await connect(empty_dsn)
    await db.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
    receiver, url = await start(empty_dsn)
    assert await post(url, "p1") == 200  # there is no table yet
    assert await db.fetchval("SELECT to_regclass('dispatcher.report') IS NULL")
    await db.execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")

    async def there() -> bool:
        await migrate(empty_dsn)
        return await stored(db) == [("p1", 1, "DELIVRD")]

    await until(there, deadline=30, what="the report is in the table that was made meanwhile")
    await db.close()
    receiver.terminate()
    assert await receiver.ended() == 0


@pytest.mark.slow
async def test_a_database_that_answers_nothing_holds_up_nobody(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and says nothing
        host, port = silent.getsockname()
        receiver, url = await start(f"postgresql://nobody@{host}:{port}/none")
        assert await post(url, "p1") == 200
        assert list((tmp_path / "data" / "spool").glob("*.reports"))
        receiver.terminate()
        assert await receiver.ended() == 0


async def test_a_receiver_starts_without_the_secrets_of_workers(start, dsn):
    """The settings of operations.md, OpenID Connect, in a file that both read."""
    receiver, _ = await start(
        dsn,
        console_proxies="127.0.0.1/32",
        console_user_header="X-Forwarded-Email",
        console_roles="*=see",
    )
    receiver.terminate()
    assert await receiver.ended() == 0
