"""An interrupted import continues; a complete one is not repeated by accident."""

import asyncio
import csv
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.waiting import until

from dispatcher.db import file_import
from dispatcher.db.file_import import Progress

GOOD = "+8613112345678"


def bad(number: int) -> bool:
    return number % 1_000 == 7


def write(path: Path, lines: int, *, salt: str = "") -> Path:
    """Write a file whose line n is refused if `bad(n)`; the header is line 1."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("recipient,template_id,param_1\n")
        for number in range(2, lines + 2):
            recipient = f"bad {number}" if bad(number) else f"+86131{number:08d}"
            stream.write(f"{recipient},t1,{number}{salt}\n")
    return path


def refused(path: Path) -> list[int]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [int(row["line"]) for row in csv.DictReader(stream)]


async def is_whole(db, lines: int) -> bool:
    """Whether every good line is there once."""
    good = [n for n in range(2, lines + 2) if not bad(n)]
    there = await db.fetch("SELECT params[1]::int FROM dispatcher.message ORDER BY 1")
    queued = await db.fetchval(
        "SELECT count(*) FROM dispatcher.message_status WHERE state = 'queued'"
    )
    return [row[0] for row in there] == good and queued == len(good)


@pytest.mark.slow
async def test_a_killed_import_continues_without_duplicates(
    operate, environment, db, dsn, tmp_path
):
    lines = 60_000
    file = write(tmp_path / "big.csv", lines)
    # No load may come to its end before it is killed.
    await db.execute(
        """
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.lines > 40000 THEN
                PERFORM pg_sleep(60);
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER hold BEFORE UPDATE ON dispatcher.file_import
        FOR EACH ROW EXECUTE FUNCTION hold();
        """
    )
    for seen in (5_000, 15_000, 25_000):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dispatcher", "enqueue", str(file)),
            env=environment(DATABASE_URL=dsn),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        query = "SELECT coalesce(max(lines), 0) > $1 FROM dispatcher.file_import"
        await until(
            lambda query=query, seen=seen: db.fetchval(query, seen),
            deadline=60,
            what="some batches in",
        )
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert not await is_whole(db, lines)
    await db.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    await db.execute("DROP TRIGGER hold ON dispatcher.file_import")
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out.splitlines()[0]) == (1, "59,940 messages enqueued.")
    assert await is_whole(db, lines)
    assert refused(tmp_path / "big.rejects.csv") == [n for n in range(2, lines + 2) if bad(n)]


async def test_rejects_of_a_batch_that_was_not_written_come_only_once(operate, db, tmp_path):
    await db.execute(
        """
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.lines > 5001 THEN
                RAISE EXCEPTION 'cut' USING ERRCODE = 'admin_shutdown';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER cut BEFORE UPDATE ON dispatcher.file_import
        FOR EACH ROW EXECUTE FUNCTION cut();
        """
    )
    file = write(tmp_path / "x.csv", 12_000)
    ended = await operate("enqueue", file)
    assert ended.code == 1
    assert "run the same command again" in ended.err
    rejects = tmp_path / "x.rejects.csv"
    await db.execute("DROP TRIGGER cut ON dispatcher.file_import")
    assert not rejects.exists()
    await operate("enqueue", file)
    assert await is_whole(db, 12_000)
    assert refused(rejects) == [n for n in range(2, 12_002) if bad(n)]


@pytest.mark.slow
async def test_a_file_that_is_in_is_loaded_again_only_when_it_is_meant(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", 3)
    assert (await operate("enqueue", file)).code == 0
    copy = tmp_path / "copy.csv"
    copy.write_bytes(file.read_bytes())
    for same in (file, copy):
        ended = await operate("enqueue", same)
        assert ended.code == 1
        assert "is in already" in ended.err
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 3
    assert (await operate("enqueue", file, "--again")).code == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 6
    assert (await operate("enqueue", write(tmp_path / "y.csv", 3, salt="0"))).code == 0


async def test_a_dry_run_finds_the_bad_lines_and_leaves_nothing(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", 2_000)
    ended = await operate("enqueue", file, "--dry-run")
    assert (ended.code, ended.out.splitlines()[0]) == (1, "1,998 messages would be enqueued.")
    assert refused(tmp_path / "x.rejects.csv") == [7, 1007]
    for table in ("message", "queue", "file_import"):
        assert await db.fetchval(f"SELECT count(*) FROM dispatcher.{table}") == 0
    assert await db.fetchval("SELECT last_value FROM dispatcher.message_id") == 1
    assert (await operate("enqueue", file)).out.startswith("1,998 messages enqueued.\n")


@pytest.mark.slow
async def test_lost_rejects_are_written_anew_when_a_load_goes_on(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", 6_000)
    assert (await operate("enqueue", file)).code == 1
    await db.execute("UPDATE dispatcher.file_import SET finished_at = NULL")
    rejects = tmp_path / "x.rejects.csv"
    rejects.unlink()
    assert (await operate("enqueue", file, "--dry-run")).code == 1  # changes nothing of it
    ended = await operate("enqueue", file)
    assert "An interrupted load went on after line 6,001." in ended.out
    assert refused(rejects) == [n for n in range(2, 6_002) if bad(n)]
    assert await is_whole(db, 6_000)


async def test_two_loads_of_one_file_do_not_both_go_on(db, database):
    before = await file_import.begin_import(db, "digest", "x.csv")
    assert await file_import.begin_import(db, "digest", "x.csv") == before
    async with database.pool.acquire() as other:
        await file_import.record_import(other, "digest", before, Progress(5, 5, 5))
    await file_import.make_survey(db)
    texts = ("default", None, GOOD, "t1", None, None, None, None)
    line = (1, 1, *texts, [], 5, datetime.now(UTC), None)
    await file_import.add_to_survey(db, [line], [])

    async def go_on() -> None:
        async with db.transaction():
            assert await file_import.insert_lines(db, 1, 5, "x.csv", 0, 0) == (1, {})
            await file_import.record_import(db, "digest", before, Progress(5, 5, 5))

    with pytest.raises(file_import.TakenOverError):
        await go_on()
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0


async def test_two_that_replace_one_load_are_one_load(db):
    await file_import.begin_import(db, "digest", "x.csv")
    for at in (1, 2):
        replaced = await file_import.known_import(db, "digest")
        begun = await file_import.begin_import(db, "digest", "x.csv", replaced=replaced)
        assert begun.started_at > replaced.started_at
        assert await file_import.begin_import(db, "digest", "x.csv", replaced=replaced) == begun
        await file_import.record_import(db, "digest", begun, Progress(5, 5, 5))
        # Only what put something in stays known.
        assert await db.fetchval("SELECT count(*) FROM dispatcher.file_import") == at


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
async def test_the_encoding_is_detected(operate, db, tmp_path, encoding):
    file = tmp_path / "x.csv"
    rows = "".join(f"{GOOD},t1,第{number}位顾客您好\n" for number in range(20))
    file.write_text("recipient,template_id,param_1\n" + rows, encoding=encoding)
    assert (await operate("enqueue", file)).code == 0
    assert await db.fetchval("SELECT params[1] FROM dispatcher.message LIMIT 1") == "第0位顾客您好"


async def test_an_encoding_can_be_given(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(f"recipient,template_id,param_1\n{GOOD},t1,Grüße\n", encoding="latin-1")
    assert (await operate("enqueue", file, "--encoding", "latin-1")).code == 0
    assert await db.fetchval("SELECT params[1] FROM dispatcher.message") == "Grüße"
    ended = await operate("enqueue", file, "--encoding", "klingon")
    assert (ended.code, "there is no encoding 'klingon'" in ended.line) == (2, True)
