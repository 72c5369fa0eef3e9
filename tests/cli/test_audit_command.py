"""Commands record who did what and when in the audit, as the console does."""

import getpass
import json
import socket

import pytest

NUMBER = "+8613112345678"
INSERT = "INSERT INTO dispatcher.message (recipient, template_id) VALUES ($1, 't') RETURNING id"
ME = f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.fixture
async def message(db) -> int:
    """A message that waits, in an app that runs."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    return await db.fetchval(INSERT, NUMBER)


async def written(db) -> list[tuple[str, ...]]:
    rows = await db.fetch("SELECT actor, action, target, detail, result FROM dispatcher.audit")
    return [tuple(row) for row in rows]


ACTIONS = [
    (("pause", "default", "--reason", "odd"), ("pause", "default", "odd", "paused")),
    (("resume", "default"), ("resume", "default", "", "resumed")),
    (("cancel", "{id}"), ("cancel", "message {id}", "", "1 of 1 cancelled")),
    (("requeue", "{id}"), ("requeue", "message {id}", "", "0 of 1 wait again")),
    (
        ("settle", "token", "sent"),
        ("settle", "batch token", "sent", "not settled: the batch is not unsure, or not any more"),
    ),
    (("show", "{id}", "--full"), ("reveal", "message {id}", "", "")),
    (("suppress", NUMBER, "--reason", "x"), ("suppress", "1 number", "x", "1 number new")),
    (("suppress", NUMBER, "--remove"), ("unsuppress", "1 number", "", "0 numbers freed")),
    (("template", "add", "t", "--kinds", "NUM_6"), ("template", "t", "NUM_6", "defined")),
    (("template", "remove", "t"), ("template", "t", "", "there is no such template")),
    (("limit", "default", "--daily", "9"), ("limit", "default", "9 a day in all", "set")),
    (("cost", "--price", "CN=0.05CNY"), ("price", "CN", "0.05 CNY", "set")),
    (
        ("forget", NUMBER, "--yes"),
        ("forget", "1 message", "{id}", "erased"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "row"), ACTIONS, ids=[" ".join(words) for words, _ in ACTIONS])
async def test_an_action_is_recorded_with_its_actor(operate, db, message, words, row):
    words, row = ([each.format(id=message) for each in some] for some in (words, row))
    await operate(*words, "--as", "Ana  B.")
    assert await written(db) == [("Ana B.", *row)]


async def test_without_a_name_it_is_the_user_of_this_machine(operate, db, message):
    await operate("cancel", message)
    ((who, *_),) = await written(db)
    assert who == ME


@pytest.mark.parametrize("who", ["", " ", "x" * 81, "a\x07b"])
async def test_an_invalid_name_is_refused(operate, db, message, who):
    ended = await operate("cancel", message, "--as", who)
    assert (ended.code, "--as takes a name" in ended.line) == (2, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_showing_a_masked_number_is_not_recorded(operate, db, message):
    await operate("show", message)
    await operate("status")
    assert await written(db) == []


async def test_an_action_that_cannot_be_recorded_is_not_done(operate, db, message):
    await db.execute("ALTER TABLE dispatcher.audit ADD CHECK (actor <> 'Ana')")
    ended = await operate("cancel", message, "--as", "Ana")
    assert ended.code == 1
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 1


async def test_the_audit_is_listed_newest_first(operate, message):
    assert (await operate("audit")).out == "No action is recorded yet.\n"
    await operate("pause", "default", "--reason", "texts look odd", "--as", "Ana")
    await operate("resume", "default", "--as", "Ben")
    lines = (await operate("audit")).out.splitlines()[2:]
    assert [line.split()[2:5] for line in lines] == [
        ["Ben", "resume", "default"],
        ["Ana", "pause", "default"],
    ]
    assert "texts look odd" in lines[1]
    (newest,) = json.loads((await operate("audit", "--json", "--last", "1")).out)
    assert (newest["actor"], newest["action"]) == ("Ben", "resume")
    assert message
