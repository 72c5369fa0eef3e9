"""No number, variable or secret in a log line, a metric, an error or a masked page."""

import json

import aiohttp
import pytest
from support.service import app_settings, command, running, until

from dispatcher.simulator import Simulator, read_faults

NUMBERS = [f"+861310{number:07d}" for number in range(300)]
PARAM = "var-8d2f"
SECRET = "app-secret-5b7e"
CONSOLE, REPORTS = "console-token-91c4", "report-token-c0ffee22"
FAULTS = [
    {"fault": "cut", "accept": True, "nth": [2]},
    {"fault": "half-answer", "nth": [3]},
    {"fault": "http", "status": 502, "nth": [4]},
    {"fault": "number-code", "code": "E200028", "prefix": "+86131000000"},
    {"fault": "number-code", "code": "E200015", "prefix": "+86131000001", "times": 1},
    {"fault": "code", "code": "E000503", "nth": [6]},
]
INSERT = """
    INSERT INTO dispatcher.message (recipient, template_id, params, reference)
    SELECT unnest($1::text[]), 'tpl', ARRAY[$2], 'order'
"""


@pytest.mark.slow
async def test_a_run_with_faults_logs_no_number_variable_or_secret(db, dsn):
    faults = read_faults(json.dumps(FAULTS).encode())
    async with Simulator({"key": SECRET}, faults=faults) as sim:
        settings = app_settings(sim.url, app_secret=SECRET)
        settings |= {
            "DISPATCHER_CONSOLE_TOKEN": CONSOLE,
            "DISPATCHER_REPORT_PATH_TOKEN": REPORTS,
            "DISPATCHER_LOG_LEVEL": "debug",
        }
        async with running(dsn, **settings) as service:
            await db.execute(INSERT, NUMBERS, PARAM)
            quiet = (
                "SELECT NOT EXISTS (SELECT FROM dispatcher.batch WHERE state = 'open') AND"
                " (SELECT count(*) FROM dispatcher.outcome) >= 100 AND"
                " NOT EXISTS (SELECT FROM dispatcher.queue WHERE due_at <= now()) AND"
                " NOT EXISTS (SELECT FROM dispatcher.bulk WHERE due_at <= now())"
            )
            await until(lambda: db.fetchval(quiet), what="an end of it")
            await push_reports(service.url, str(NUMBERS[5]))
            listed = "SELECT count(*) = 2 FROM dispatcher.unmatched_report"
            await until(lambda: db.fetchval(listed), what="the reports are listed")
            _, metrics = await service.get("/metrics")
            pages = await masked_pages(service.url, db)
            told = [await command(*words, dsn=dsn) for words in COMMANDS]
            unknown = await command("show", "1", dsn=dsn)
    said = "\n".join([*service.log, metrics, *pages, *told, unknown])
    assert len(service.log) > 5
    assert "batch sent" in said
    for secret in (*NUMBERS, *(n.lstrip("+") for n in NUMBERS), PARAM, SECRET, CONSOLE, REPORTS):
        lines = [line for line in said.splitlines() if secret in line]
        assert lines == [], secret


COMMANDS = [("status",), ("status", "--json"), ("reports",), ("check",)]


async def push_reports(url: str, number: str) -> None:
    """Push reports that fit nothing, and some that are none."""
    async with aiohttp.ClientSession() as session:
        for form in (
            {"smsMsgId": "none_1", "status": "DELIVRD", "to": number, "extend": "0" * 32},
            {"status": number},
            {"smsMsgId": number * 9, "status": "X" * 999},
        ):
            for token in (REPORTS, "wrong"):
                async with session.post(f"{url}/reports/{token}", data=form) as answer:
                    await answer.read()


async def masked_pages(url: str, db) -> list[str]:
    pages = ["", "/problems", "/search", "/actions"]
    ids = await db.fetch("SELECT message_id FROM dispatcher.outcome LIMIT 3")
    tokens = await db.fetch("SELECT token FROM dispatcher.batch LIMIT 3")
    pages += [f"/message/{row[0]}" for row in ids] + [f"/batch/{row[0]}" for row in tokens]
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        form = {"actor": "Ana", "token": CONSOLE}
        async with session.post(f"{url}/console/login", data=form) as answer:
            assert answer.status == 200
        texts = []
        for page in pages:
            async with session.get(f"{url}/console{page}") as answer:
                assert answer.status == 200
                texts.append(await answer.text())
    return texts
