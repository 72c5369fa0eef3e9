"""`dispatcher forget`: exports and erases the data of one person, and of no other."""

import json
import stat
from functools import partial

import pytest
from support.messages import insert

NUMBER = "+8613800000001"


@pytest.fixture
def forget(operate):
    return partial(operate, "forget")


async def test_without_yes_nothing_is_erased_but_exported(db, forget, tmp_path):
    await insert(db, 3)
    file = tmp_path / "person.json"
    ended = await forget(NUMBER, "--export", str(file))
    assert ended.code == 0, ended.err
    assert "nothing was erased, because --yes was not given" in ended.out
    (kept,) = json.loads(file.read_text())
    assert kept["message"]["params"] == ["062569"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message WHERE recipient = '0'") == 0


async def test_with_yes_a_person_is_erased_and_messages_cancelled(db, forget):
    await insert(db, 3)
    ended = await forget(NUMBER, "--yes")
    assert (ended.code, ended.out) == (0, "1 message erased.\n"), ended.err
    rows = await db.fetch("SELECT recipient, state FROM dispatcher.message_status ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("+8613800000000", "queued"),
        ("0", "cancelled"),
        ("+8613800000002", "queued"),
    ]


async def test_limit_counts_are_erased_and_suppression_stays(db, forget, tmp_path):
    await insert(db, 1, first=1)
    await db.execute(
        "INSERT INTO dispatcher.recipient_usage (message_id, app, recipient, text)"
        " VALUES (1, 'default', $1, 7), (2, 'default', '+8613800000002', 7)",
        NUMBER,
    )
    await db.execute(
        "INSERT INTO dispatcher.suppression (recipient, reason) VALUES ($1, 'Anna Bauer called')",
        NUMBER,
    )
    file = tmp_path / "person.json"
    ended = await forget(NUMBER, "--export", str(file), "--yes")
    assert ended.code == 0, ended.err
    assert "The number stays suppressed" in ended.out
    assert json.loads(file.read_text())[1]["suppression"]["reason"] == "Anna Bauer called"
    rows = await db.fetch("SELECT recipient, reason FROM dispatcher.suppression")
    assert [tuple(row) for row in rows] == [(NUMBER, "")]
    rows = await db.fetch("SELECT recipient FROM dispatcher.recipient_usage")
    assert [row["recipient"] for row in rows] == ["+8613800000002"]


async def test_messages_in_open_requests_are_left_and_reported(db, forget):
    (message,) = await insert(db, 1, first=1)
    await db.execute("DELETE FROM dispatcher.queue")
    await db.execute(
        "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
        " VALUES ('t', 'default', 1, ARRAY[$1::bigint], '{1}', 1)",
        message,
    )
    ended = await forget(NUMBER, "--yes")
    assert ended.code == 1
    assert "1 message left, because they may be on their way" in ended.err


async def test_an_existing_file_is_kept_and_nothing_is_erased(db, forget, tmp_path):
    await insert(db, 2)
    file = tmp_path / "person.json"
    file.write_text("mine")
    ended = await forget(NUMBER, "--export", str(file), "--yes")
    assert ended.code == 1
    assert "Nothing was erased" in ended.err
    assert file.read_text() == "mine"
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message WHERE recipient = '0'") == 0


async def test_what_is_no_number_is_refused(forget):
    assert (await forget("Anna")).code == 2


async def test_a_doubtful_number_that_rows_have_is_erased(db, forget, operate):
    await db.execute("INSERT INTO dispatcher.suppression (recipient) VALUES ('+86447911123456')")
    ended = await forget("447911123456", "--yes")
    assert ended.code == 0, ended.err
    assert "The number stays suppressed" in ended.out
    ended = await operate("suppress", "--remove", "447911123456")
    assert (ended.code, ended.out) == (0, "1 number sent to again.\n"), ended.err
    ended = await forget("447911123456", "--yes")
    assert ended.code == 2
    assert "doubtful" in ended.err
