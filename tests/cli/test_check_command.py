"""``dispatcher check`` finds mistakes before the first message."""

import json
import re
from time import time
from urllib.parse import urlsplit, urlunsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dispatcher.db.database import connect
from dispatcher.db.dsn import read_address
from dispatcher.simulator import Simulator


def app(url: str, secret: str = "secret") -> dict[str, str]:
    return {
        "APPS__DEFAULT__ENDPOINT": url,
        "APPS__DEFAULT__APP_KEY": "key",
        "APPS__DEFAULT__APP_SECRET": secret,
    }


async def test_all_is_well_and_nothing_was_sent(operate):
    async with Simulator({"key": "secret"}) as sim:
        ended = await operate("check", **app(sim.url))
        assert (ended.code, ended.err) == (0, ""), ended.out
        assert all(line.startswith("ok") for line in ended.out.splitlines())
        assert sim.ledger.numbers == 0


async def test_a_receiver_that_verifies_nothing_is_a_warning(operate):
    receiver = {"REPORT_PATH_TOKEN": "a-token-that-nobody-guesses"}
    async with Simulator({"key": "secret"}) as sim:
        open_ = await operate("check", **receiver, **app(sim.url))
        told = json.loads((await operate("check", "--json", **receiver, **app(sim.url))).out)
        closed = await operate("check", REPORT_NETWORKS="provider", **receiver, **app(sim.url))
    (warned,) = [line for line in open_.out.splitlines() if not line.startswith("ok")]
    assert warned.startswith("warn  reports       not verified")
    assert open_.code == closed.code == 0
    assert "warn" not in closed.out
    assert [(one["good"], one["subject"]) for one in told if one["warning"]] == [(True, "reports")]


async def test_words_and_countries_are_shown_as_they_are_read(operate):
    receiver = {"REPORT_PATH_TOKEN": "a-token-that-nobody-guesses", "REPORT_NETWORKS": "provider"}
    told = {**receiver, "UNSUBSCRIBE_WORDS": 'R、"STOP ALL"', "APPS__DEFAULT__COUNTRIES": "+65,cn"}
    async with Simulator({"key": "secret"}) as sim:
        shown = (await operate("check", **app(sim.url), **told)).out
        none = (await operate("check", **app(sim.url), **receiver, UNSUBSCRIBE_WORDS="none")).out
    assert "ok    replies       what unsubscribes: R, STOP ALL\n" in shown
    assert "sends to any number, of CN, SG alone\n" in shown
    assert "ok    replies       no reply unsubscribes\n" in none


async def test_a_wrong_secret_is_found_and_never_shown(operate):
    async with Simulator({"key": "secret"}) as sim:
        ended = await operate("check", **app(sim.url, "hunter2"))
    assert ended.code == 1
    (failed,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert "app default" in failed
    assert "hunter2" not in ended.out


@pytest.mark.parametrize("signed", [False, True])
async def test_a_login_in_the_callback_address_is_neither_shown_nor_part_of_the_host(
    operate, signed
):
    came = []

    async def take(request: web.Request) -> web.Response:
        came.append(dict(request.headers))
        return web.Response(status=404)

    served = web.Application()
    served.router.add_post("/{rest:.*}", take)
    keys = {f"APPS__DEFAULT__PUSH_{name}": "push" for name in ("KEY", "SECRET")} if signed else {}
    async with Simulator({"key": "secret"}) as sim, TestServer(served) as server:
        host = f"127.0.0.1:{server.port}"
        url = f"http://amy:hunter2@{host}/reports/a-token-that-nobody-guesses"
        ended = await operate("check", **app(sim.url), **keys, CALLBACK_URL=url)
    (failed,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert f" http://{host}: 404" in failed
    assert "hunter2" not in ended.out + ended.err
    (headers,) = came
    assert headers["Host"] == host
    assert headers["Authorization"].startswith("SDK-HMAC-SHA256 " if signed else "Basic ")


@pytest.mark.parametrize("cache", [0, 100])
async def test_the_address_of_workers_is_tried_where_commands_use_another(operate, dsn, cache):
    addresses = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "DATABASE_DIRECT_URL": dsn}
    ended = await operate("check", STATEMENT_CACHE=cache, **addresses)
    (failed,) = [line for line in ended.out.splitlines() if line.startswith("FAIL  pooler")]
    assert "No PostgreSQL answers at 127.0.0.1:1/x" in failed
    assert "pooler" not in (await operate("check", STATEMENT_CACHE=cache)).out


async def test_every_problem_is_reported(command, empty_dsn):
    ended = await command("check", DATABASE_URL=empty_dsn, **app("http://127.0.0.1:1"))
    assert ended.code == 1
    failed = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2, ended.out
    assert "run `dispatcher migrate`" in failed[0]
    assert "no connection" in failed[1]


async def test_an_unreachable_database_does_not_hide_the_provider(command):
    async with Simulator({"key": "secret"}) as sim:
        ended = await command("check", DATABASE_URL="postgresql://127.0.0.1:1/x", **app(sim.url))
    assert ended.code == 1
    assert "No PostgreSQL answers at 127.0.0.1:1/x" in ended.out
    assert "knows the key key" in ended.out


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("dispatcher_worker", None),
        ("dispatcher_owner", None),
        ("dispatcher_reader", "denies user"),  # it may not see what a worker needs
        ("dispatcher_app", "denies user"),
    ],
)
async def test_a_user_without_the_rights_of_a_worker_is_named(operate, dsn, role, words):
    async with Simulator({"key": "secret"}) as sim:
        ended = await operate("check", **app(sim.url), DATABASE_URL=f"{dsn}&role={role}")
    failed = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert [words in line and "dispatcher_worker" in line for line in failed] == [True] * bool(
        words
    )


async def test_a_right_that_was_revoked_is_named(operate, db, dsn):
    await db.execute("REVOKE UPDATE ON dispatcher.batch FROM dispatcher_worker")
    await db.execute("REVOKE EXECUTE ON FUNCTION dispatcher.expire FROM dispatcher_worker")
    async with Simulator({"key": "secret"}) as sim:
        ended = await operate("check", **app(sim.url), DATABASE_URL=f"{dsn}&role=dispatcher_worker")
    (failed,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert "(FUNCTION dispatcher.expire, dispatcher.batch): GRANT dispatcher_worker" in failed


async def test_a_clock_that_is_off_is_found_before_it_matters(operate):
    async with Simulator({"key": "secret"}, wall=lambda: time() + 600) as sim:
        ended = await operate("check", **app(sim.url))
    assert ended.code == 1
    (failed,) = [line for line in ended.out.splitlines() if line.startswith("FAIL")]
    assert re.search(r"clock +-\d{3}\.\d s from the provider's: set the clock", failed)


async def test_what_the_server_would_refuse_later_is_found(operate, db, dsn):
    name = read_address(dsn).database
    await db.execute(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on;"
        "SET default_transaction_read_only = off;"
        "INSERT INTO dispatcher.worker (id, host, pid, version, apps, lease)"
        " VALUES (9, 'host', 1, '1', '{}', '1 min')"
    )
    ended = await operate("check", DATA_DIR="/proc/1/nowhere", **app("http://127.0.0.1:1"))
    assert ended.code == 1
    assert "default_transaction_read_only is on" in ended.out
    assert "sequences     behind their rows: dispatcher.worker_id_seq" in ended.out
    assert "FAIL  spool" in ended.out


async def test_a_database_that_is_not_utf8_is_named(command, server):
    connection = await connect(server)
    await connection.execute(
        "CREATE DATABASE in_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    )
    try:
        dsn = urlunsplit(urlsplit(server)._replace(path="/in_latin1"))
        ended = await command("check", DATABASE_URL=dsn, **app("http://127.0.0.1:1"))
        assert ended.code == 1
        assert "has the encoding LATIN1, and must have UTF8" in ended.out
    finally:
        await connection.execute("DROP DATABASE in_latin1 WITH (FORCE)")
        await connection.close()
