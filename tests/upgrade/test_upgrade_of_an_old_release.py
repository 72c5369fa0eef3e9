"""From an older release itself, its workers and all, to this one under load.

The release is taken from the history of this repository: the oldest whose migrations are, to the
byte, the first of today's. Where the history is cut short (a shallow clone) there is nothing to
take, and `test_upgrade_under_load`, which speaks to the first schema as workers did, has to do.
"""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from test_upgrade_under_load import ENQUEUE, INSERT, inserting
from world.messages import finished
from world.provider import app_at
from world.waiting import until
from world.worker import ROOT, environment

from dispatcher.db.database import connect
from dispatcher.db.migrate import status

OLD = "9fd99f45a1381080e276bd57432aee98fd0919cf"


@pytest.fixture
def old_release(tmp_path) -> Path:
    """A folder with the package and the migrations of the old release."""
    command = ["git", "-C", ROOT, "archive", OLD, "dispatcher", "migrations"]
    try:
        packed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the history does not go back to the old release")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


@pytest.fixture
def old_workers(old_release, tmp_path):
    """Starts workers of the old release; gives the process and its log."""
    started = []

    def start(dsn: str, url: str) -> tuple[subprocess.Popen, Path]:
        log = tmp_path / f"old-{len(started)}.log"
        settings = {"data_dir": tmp_path / f"old-{len(started)}"}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "dispatcher", "run"],
                cwd=old_release,
                env=environment(dsn, {"default": app_at(url)}, settings),
                stdout=file,
                stderr=file,
            )
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_old_workers_and_new_ones_take_turns_and_nothing_is_lost_or_doubled(
    empty_dsn, old_workers, workers, sim
):
    dsn = empty_dsn
    crew = [old_workers(dsn, sim.url), old_workers(dsn, sim.url)]
    db = await connect(dsn)
    there = "SELECT to_regclass('dispatcher.worker') IS NOT NULL"
    await until(lambda: db.fetchval(there), deadline=30, what="the old release has migrated")
    two = "SELECT count(*) = 2 FROM dispatcher.worker"
    await until(lambda: db.fetchval(two), deadline=30, what="both old workers work")
    stop = asyncio.Event()
    sent = "SELECT count(*) FROM dispatcher.outcome"

    async def more(what: str) -> None:
        before = await db.fetchval(sent)
        await until(
            lambda: db.fetchval(f"SELECT ({sent}) > $1", before + 100), deadline=30, what=what
        )

    async with asyncio.TaskGroup() as load:
        applications = [
            load.create_task(inserting(dsn, INSERT, "13100000131", stop)),
            load.create_task(inserting(dsn, INSERT, "13100000132", stop)),
            load.create_task(inserting(dsn, ENQUEUE, "13100000133", stop)),
        ]
        await more("the old release works")
        assert not all(standing.applied for standing in await status(dsn))
        await asyncio.to_thread(migrate, dsn)
        assert all(standing.applied for standing in await status(dsn))
        await more("old workers work with the new tables")
        for process, log in crew:  # one after the other, as the page says
            await workers.start({"default": app_at(sim.url)}, dsn=dsn)
            process.terminate()
            assert await asyncio.to_thread(process.wait, 60) == 0, log.read_text()[-2000:]
        await more("new workers work")
        stop.set()
    await until(lambda: finished(db), deadline=60, what="everything has its end")
    inserted = sum(task.result() for task in applications)
    told = "SELECT state, count(*) FROM dispatcher.message_status GROUP BY state"
    assert dict(await db.fetch(told)) == {"accepted": inserted}
    assert await db.fetchval(sent) == inserted == sim.ledger.numbers
    assert not sim.ledger.repeated()
    assert not [log.read_text() for _, log in crew if "Traceback" in log.read_text()]
    await db.close()


def migrate(dsn: str) -> None:
    """Migrate as an operator does."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
    subprocess.run(
        [sys.executable, "-m", "dispatcher", "migrate"],
        cwd=ROOT,
        env=environ | {"DISPATCHER_DATABASE_URL": dsn},
        check=True,
        capture_output=True,
        timeout=60,
    )
