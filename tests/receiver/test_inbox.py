"""What is answered 200 is kept, whatever fails."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from support.patient import PatientDatabase

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report import Report
from dispatcher.db.spool import orphaned_files
from dispatcher.receiver.intake import SPOOL_KIND, Intake, NotStored, Stored


def one(provider_id: str, **fields) -> Report:
    return Report(provider_id, 1, 1, "DELIVRD", "delivered", **fields)


class SwitchedDatabase(PatientDatabase):
    """The test's database, which a test can make unavailable."""

    def __init__(self, dsn, pool) -> None:
        super().__init__(dsn, pool, retry_refusals=True)
        self.away = False
        self.calls = 0

    @asynccontextmanager
    async def acquire(self, **more):
        self.calls += 1
        if self.away:
            raise DatabaseUnavailable("it is away")
        async with super().acquire(**more) as connection:
            yield connection

    async def stored(self) -> list[str]:
        rows = await self.pool.fetch("SELECT provider_id FROM dispatcher.report ORDER BY 1")
        return [row["provider_id"] for row in rows]


@pytest.fixture
def database(database) -> SwitchedDatabase:
    return SwitchedDatabase(database.dsn, database.pool)


@pytest.fixture
async def intake(database, tmp_path):
    """A running intake."""
    intake = Intake(database, tmp_path / "spool")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        yield intake
        running.cancel()


def spooled(folder) -> int:
    """Count the files that anybody has left or holds."""
    return len(list((folder / "spool").glob(f"*.{SPOOL_KIND}")))


async def test_reports_go_to_disk_and_later_into_the_database(
    intake, database, tmp_path, monkeypatch
):
    monkeypatch.setattr("dispatcher.receiver.intake.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("dispatcher.receiver.intake.REPLAY_INTERVAL_SECONDS", 0.05)
    database.away = True
    assert await intake.keep([one("p1"), one("p2")]) == Stored()
    assert await intake.keep([one("p3")]) == Stored()
    assert spooled(tmp_path) >= 1
    assert await database.stored() == []
    database.away = False
    async with asyncio.timeout(60):
        while spooled(tmp_path):  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.01)
    assert await database.stored() == ["p1", "p2", "p3"]


async def test_only_if_both_fail_a_report_is_refused(database, tmp_path):
    (tmp_path / "spool").write_text("this is no folder")
    database.away = True
    intake = Intake(database, tmp_path / "spool")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        result = await intake.keep([one("p1")])
        assert isinstance(result, NotStored)
        assert result.status == 503
        running.cancel()


async def test_an_unavailable_database_is_not_tried_for_each_post(intake, database, monkeypatch):
    monkeypatch.setattr("dispatcher.receiver.intake.RETRY_SECONDS", 600.0)
    database.away = True
    for number in range(20):
        assert await intake.keep([one(f"p{number}")]) == Stored()
    assert database.calls == 1


async def test_a_commit_that_takes_long_does_not_hold_up_the_next(intake, database, monkeypatch):
    monkeypatch.setattr("dispatcher.receiver.intake.SLOW_COMMIT_SECONDS", 0.0)
    async with database.pool.acquire() as other, other.transaction():
        await other.execute(
            "INSERT INTO dispatcher.report (provider_id, status, state)"
            " VALUES ('p1', 'x', 'interim')"
        )
        held = asyncio.create_task(intake.keep([one("p1")]))
        async with asyncio.timeout(60):
            while database.calls < 1:  # noqa: ASYNC110 - the database sets no event
                await asyncio.sleep(0.01)
            assert await intake.keep([one("p2")]) == Stored()
        assert not held.done()
    assert await held == Stored()


async def test_a_refused_report_does_not_stop_the_others(intake, database):
    bad = one("bad", raw='{"a": "\\u0000"}')
    fates = await asyncio.gather(
        *(intake.keep([one(f"p{number}")]) for number in range(5)), intake.keep([bad])
    )
    assert fates[:5] == [Stored()] * 5
    assert fates[5] == Stored()
    assert await database.stored() == [f"p{number}" for number in range(5)]
    kept = await database.pool.fetchrow("SELECT body, reason FROM dispatcher.unreadable_push")
    assert (kept["body"], "refuses" in kept["reason"]) == (b'{"a": "\\u0000"}', True)


async def test_what_a_dead_receiver_left_on_disk_is_taken_up(database, tmp_path):
    database.away = True
    dead = Intake(database, tmp_path / "spool")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dead.run())
        assert await dead.keep([one("p1")]) == Stored()
        running.cancel()
    dead._spool.close()  # what the kernel does for a process that was killed
    database.away = False
    await Intake(database, tmp_path / "spool").replay_spool()
    assert await database.stored() == ["p1"]
    with orphaned_files(tmp_path / "spool", SPOOL_KIND) as files:
        assert files == []


async def test_what_is_on_disk_stays_there_while_the_database_is_away(database, tmp_path):
    database.away = True
    dead = Intake(database, tmp_path / "spool")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dead.run())
        await dead.keep([one("p1")])
        running.cancel()
    dead._spool.close()
    await Intake(database, tmp_path / "spool").replay_spool()
    assert spooled(tmp_path) == 1
    assert await database.stored() == []


async def test_a_spool_cut_off_in_a_record_keeps_the_others(database, tmp_path):
    database.away = True
    dead = Intake(database, tmp_path / "spool")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dead.run())
        await dead.keep([one("p1")])
        running.cancel()
    dead._spool.close()
    (file,) = (tmp_path / "spool").glob(f"*.{SPOOL_KIND}")
    with file.open("ab") as end:
        end.write(b"\x00\x00\x00\x99half a rec")
    database.away = False
    await Intake(database, tmp_path / "spool").replay_spool()
    assert await database.stored() == ["p1"]
