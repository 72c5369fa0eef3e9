"""`dispatcher check` sends a test report to the public address, and sees it arrive."""

import pytest
from support.provider import app_at
from support.service import command
from support.waiting import until
from test_reports_end_to_end import TOKEN

from dispatcher.bench.ports import free_port


@pytest.fixture
def reporting(tmp_path) -> dict[str, str]:
    listen = f"127.0.0.1:{free_port()}"
    return {
        "listen": listen,
        "data_dir": str(tmp_path / "data"),
        "report_path_token": TOKEN,
        "callback_url": f"http://{listen}/reports/{TOKEN}",
    }


@pytest.fixture
async def receiver(workers, reporting):
    """Start a receiver with these settings and more."""

    async def start(app: dict, **more: str):
        made = workers.launch(
            {"default": app}, arguments=("--only", "reports"), **(reporting | more)
        )
        await until(
            lambda: any(event.get("event") == "listening" for event in made.events()), deadline=30
        )

    return start


async def check(dsn: str, app: dict, settings: dict[str, str]) -> str:
    """Return the line about reports, without the warning that anybody can post them."""
    environ = {f"DISPATCHER_{name.upper()}": value for name, value in settings.items()}
    environ |= {f"DISPATCHER_APPS__DEFAULT__{k.upper()}": str(v) for k, v in app.items()}
    out = await command("check", dsn=dsn, **environ)
    lines = [line for line in out.splitlines() if "  reports" in line]
    (line,) = [line for line in lines if not line.startswith("warn")]
    assert TOKEN not in line
    return line


async def test_a_signed_test_report_arrives(sim, receiver, db, dsn, reporting):
    app = app_at(sim.url, push_key="push", push_secret="secret")
    await receiver(app)
    line = await check(dsn, app, reporting)
    assert line.startswith("ok")
    assert "a signed test report" in line
    for table in ("report", "report_inbox", "unmatched_report", "event_count"):
        assert await db.fetchval(f"SELECT count(*) FROM dispatcher.{table}") == 0


@pytest.fixture
def other(new_database, template) -> str:
    """Another migrated database."""
    return new_database(template)


@pytest.mark.slow
async def test_what_is_wrong_is_said(sim, receiver, dsn, other, reporting):
    app = app_at(sim.url, push_key="push", push_secret="secret")
    assert "no connection" in await check(dsn, app, reporting)
    await receiver(app)
    assert "signature" in await check(dsn, app | {"push_secret": "wrong"}, reporting)
    wrong = reporting | {"callback_url": reporting["callback_url"] + "x"}
    assert "DISPATCHER_REPORT_PATH_TOKEN" in await check(dsn, app, wrong)
    assert "another database" in await check(other, app, reporting)


@pytest.mark.slow
async def test_a_receiver_that_refuses_this_network_is_not_broken(sim, receiver, dsn, reporting):
    app = app_at(sim.url)
    await receiver(app, report_networks="provider")
    line = await check(dsn, app, reporting)
    assert line.startswith("ok")
    assert "this machine's network; if a proxy is before it, set DISPATCHER_TRUSTED_PROXIES" in line
    line = await check(dsn, app, reporting | {"trusted_proxies": "192.0.2.1/32"})
    assert line.endswith("this machine's network")
