"""Spooled reports reach the database, whatever their files are like."""

import asyncio
import fcntl

import pytest
from receiving_end import form, receiver, stored
from support.waiting import until
from test_inbox import SwitchedDatabase, one

from dispatcher.db.spool import Spool, orphaned_files
from dispatcher.receiver.intake import SPOOL_KIND, Intake, NotStored, Stored


@pytest.fixture
def folder(tmp_path):
    """The folder of the spool."""
    return tmp_path / "spool"


@pytest.fixture
def database(database) -> SwitchedDatabase:
    """The test's database, with a switch."""
    return SwitchedDatabase(database.dsn, database.pool)


async def spooled(database, folder, *names: str) -> Intake:
    """Return an intake that has kept reports of these names on disk, each in one record."""
    database.away = True
    intake = Intake(database, folder)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        for name in names:
            assert await intake.keep([one(name)]) == Stored()
        running.cancel()
    database.away = False
    return intake


async def test_a_record_that_nobody_understands_takes_nobody_with_it(database, folder):
    dead = await spooled(database, folder, "p1")
    dead._spool.append([b'{"of": "another release"}', b"no JSON"])
    dead._spool.close()
    await Intake(database, folder).replay_spool()
    assert await database.stored() == ["p1"]
    (aside,) = folder.iterdir()
    assert aside.name.endswith(f".{SPOOL_KIND}.damaged")
    await Intake(database, folder).replay_spool()  # and is not looked at again


async def test_what_follows_a_record_that_cannot_be_cut_off_is_read(folder, monkeypatch):
    """A disk that fails a write, and then its truncation, spoils only that file."""
    spool = Spool(folder, SPOOL_KIND)
    spool.append([b"first"])
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise OSError(5, "Input/output error")

        broken.setattr("dispatcher.db.spool.os.fsync", fail)
        broken.setattr(Spool, "_cut", fail)
        with pytest.raises(OSError, match="Input/output"):
            spool.append([b"half"])
    (damaged,) = folder.iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    spool.append([b"second"])
    spool.close()
    with orphaned_files(folder, SPOOL_KIND) as files:
        kept = [record for file in files for record in file.records]
    assert sorted(kept) == [b"first", b"second"]


async def test_what_is_behind_damage_is_set_aside_and_not_thrown_away(
    database, folder, monkeypatch
):
    monkeypatch.setattr("dispatcher.receiver.intake.REPLAY_INTERVAL_SECONDS", 600.0)
    dead = await spooled(database, folder, "p1", "p2", "p3")
    dead._spool.close()
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"p2"', b'"pX"'))
    await Intake(database, folder).replay_spool()
    assert await database.stored() == ["p1"]
    (aside,) = folder.iterdir()
    assert b'"p3"' in aside.read_bytes()


async def test_a_long_outage_makes_many_files_and_all_are_taken_up(database, folder, monkeypatch):
    monkeypatch.setattr("dispatcher.db.spool.MAX_FILE_BYTES", 600)
    names = [f"p{number:02}" for number in range(20)]
    dead = await spooled(database, folder, *names)
    dead._spool.close()
    written = len(list(folder.iterdir()))
    assert written > 4
    for file in folder.iterdir():
        (folder / f"again.{file.name}").write_bytes(file.read_bytes())
    with orphaned_files(folder, SPOOL_KIND, most=600) as files:
        assert 0 < len(files) < written  # never more in memory than asked for
        assert not any(file.damaged for file in files)
    await Intake(database, folder).replay_spool()
    assert await database.stored() == names
    assert list(folder.iterdir()) == []


async def test_two_receivers_may_share_a_folder(database, folder, monkeypatch):
    monkeypatch.setattr("dispatcher.receiver.intake.RETRY_SECONDS", 0.0)
    first = await spooled(database, folder, "p1", "p2")
    second = await spooled(database, folder, "p3")
    await asyncio.gather(first.replay_spool(), second.replay_spool())
    await asyncio.gather(first.replay_spool(), second.replay_spool())
    assert await database.stored() == ["p1", "p2", "p3"]
    assert list(folder.iterdir()) == []


def test_a_file_taken_over_before_it_was_locked_is_left(folder, monkeypatch):
    """Two share a folder; one looks for files at the very moment the other has made its own."""
    really = fcntl.flock
    looked: list[int] = []

    def flock(file, how):
        if how == fcntl.LOCK_EX and not looked:
            looked.append(1)
            with orphaned_files(folder, SPOOL_KIND) as [left]:
                assert left.records == []
        really(file, how)

    monkeypatch.setattr("dispatcher.db.spool.fcntl.flock", flock)
    spool = Spool(folder, SPOOL_KIND)
    spool.append([b"kept"])
    spool.close()
    with orphaned_files(folder, SPOOL_KIND) as [left]:
        assert left.records == [b"kept"]


async def test_on_a_full_disk_nothing_is_answered_as_kept(database, folder, monkeypatch):
    dead = await spooled(database, folder, "p1")

    def full(_file, _record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dispatcher.db.spool._write", full)
    database.away = True
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(dead.run())
        refused = await dead.keep([one("p2")])
        assert isinstance(refused, NotStored)
        assert refused.status == 503
        monkeypatch.undo()
        assert await dead.keep([one("p3")]) == Stored()
        running.cancel()
    dead._spool.close()
    database.away = False
    await Intake(database, folder).replay_spool()
    assert await database.stored() == ["p1", "p3"]


async def test_reports_on_disk_come_in_by_themselves_after_a_restart(dsn, db, folder, database):
    dead = await spooled(database, folder, "p1")
    dead._spool.close()
    async with receiver(dsn, folder.parent) as receives:
        assert (await receives.post(form("p2")))[0] == 200

        async def both() -> bool:
            return len(await stored(db)) == 2

        await until(both, what="the one on disk is stored too")
