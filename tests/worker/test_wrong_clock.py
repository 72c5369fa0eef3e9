"""Workers whose clocks are wrong, by less than a signature may be: nothing hangs on them."""

from pathlib import Path

import pytest
from support.fast_forward import let_pass
from support.messages import insert, states
from support.provider import app_at, seen
from support.waiting import until
from support.worker import ROOT

from dispatcher.simulator.faults import Delay

OFF = 600.0  # seconds; AK/SK allows 900
# Python runs this in every process that finds it on its path, before anything else.
WRONG = """
import datetime, os, time
off = float(os.environ["CLOCK_OFF"])
right, true = time.time, datetime.datetime
class Wrong(true):
    @classmethod
    def now(cls, tz=None):
        return true.now(tz) + datetime.timedelta(seconds=off)
time.time = lambda: right() + off
datetime.datetime = Wrong
"""


@pytest.fixture
def clock_of(tmp_path, monkeypatch, workers):
    """Makes the clock of the next worker wrong."""
    workers.forked = False  # a new interpreter reads sitecustomize.py
    folder = Path(tmp_path, "clock")
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG)

    def set_off(off: float) -> None:
        monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
        monkeypatch.setenv("CLOCK_OFF", str(off))

    return set_off


@pytest.mark.slow
async def test_wrong_clocks_change_no_times_and_no_lease(db, workers, sim, clock_of):
    ways = {"ahead": OFF, "behind": -OFF}
    for app in ways:
        await insert(db, 10, app=app, lifetime=OFF / 2)
        await insert(db, 10, app=app, lifetime=0.001, first=100)
        later = await insert(db, 10, app=app, first=200)
        await db.execute(
            "UPDATE dispatcher.queue SET due_at = due_at + make_interval(secs => $1)"
            " WHERE id = ANY ($2)",
            OFF / 2,
            later,
        )
    await db.execute(  # it is night where these go, for as long again as it has been
        "INSERT INTO dispatcher.app_limit (app, quiet_from, quiet_until)"
        " SELECT 'night', (t - off)::time, (t + off)::time"
        " FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Shanghai', make_interval(secs => $1))"
        " AS here (t, off)",
        OFF / 2,
    )
    await insert(db, 10, app="night")
    await sim.faults.arm([Delay(seconds=6.0)])  # longer than the rescue takes for a round
    account = app_at(sim.url, timeout="20s")
    for app, off in ways.items():
        clock_of(off)
        apps = {app: account} | ({"night": account} if app == "ahead" else {})
        await workers.start(apps, lease="31s")
    await seen(sim, lambda: sim.ledger.numbers >= 20)
    for app in ways:
        wanted = {"accepted": 10, "expired": 10, "queued": 10}
        await until(lambda app=app, wanted=wanted: states_are(db, app, wanted))
    assert await states(db, "night") == {"queued": 10}
    assert (
        await db.fetchval("SELECT count(*) FROM dispatcher.batch WHERE unsure_at > '-infinity'")
        == 0
    )
    await sim.faults.clear()
    await let_pass(db, OFF / 2 + 1)
    for app in ways:
        wanted = {"accepted": 20, "expired": 10}
        await until(lambda app=app, wanted=wanted: states_are(db, app, wanted))
    assert max(sim.ledger.counts().values()) <= len(ways)  # the same numbers for each app


async def states_are(db, app: str, wanted: dict[str, int]) -> bool:
    return await states(db, app) == wanted
