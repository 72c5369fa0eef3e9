"""Campaigns: a list that is watched, stopped, cancelled, requeued and exported."""

import asyncio
import contextlib
import csv
import io
import json
from pathlib import Path

import openpyxl
import pytest

from dispatcher.db import campaigns
from dispatcher.db.database import MAX_TIMEOUT_SECONDS, connect
from dispatcher.db.due_messages import ClaimRequest, take_due
from dispatcher.db.queries import sql
from dispatcher.lists.workbook_parts import unescaped

HEADER = "recipient,template_id,param_1"


def write(path: Path, count: int, *, first: int = 0) -> Path:
    lines = [f"+86131{at:08d},t1,{at}" for at in range(first, first + count)]
    path.write_text("\n".join((HEADER, *lines, "")), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def connected(dsn):
    connection = await connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def claimed(db, limit: int = 100) -> list[int]:
    """Claim as a worker does; return the ids."""
    async with db.transaction():
        taken = await take_due(
            db, ClaimRequest("default"), limit, [0.0] * 10, paused=True, bulk_due=True
        )
    return [row["id"] for row in taken.rows]


@pytest.fixture
async def two(operate, tmp_path):
    """Two lists of three messages each."""
    assert (await operate("enqueue", write(tmp_path / "may.csv", 3))).code == 0
    june = write(tmp_path / "june.csv", 3, first=10)
    assert (await operate("enqueue", june, "--campaign", "June", "--as", "ana")).code == 0


async def test_every_load_is_a_campaign(two, operate, db):
    del two
    listed = json.loads((await operate("campaign", "list", "--json")).out)
    told = [
        (one["name"], one["state"], one["file"], one["imported"], one["waiting"]) for one in listed
    ]
    assert told == [
        ("June", "running", "june.csv", 3, 3),
        ("may.csv", "running", "may.csv", 3, 3),
    ]
    assert listed[0]["created_by"] == "ana"
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign)"
        " VALUES ('+8613100000099', 't1', 'June'), ('+8613100000098', 't1', 'of an app')"
    )
    table = (await operate("campaign", "list")).out
    assert "of an app" in table
    shown = json.loads((await operate("campaign", "show", "June", "--json")).out)
    assert [(one["state"], one["messages"]) for one in shown["states"]] == [("queued", 4)]
    assert (await operate("campaign", "show", "July")).code == 1


async def test_nothing_of_a_paused_campaign_is_claimed(two, operate, db):
    del two
    ended = await operate("campaign", "pause", "may.csv", "--reason", "wrong text")
    assert ended.out == "may.csv is paused: nothing more of it is claimed.\n"
    ids = await claimed(db)
    names = await db.fetch("SELECT campaign FROM dispatcher.message WHERE id = ANY ($1)", ids)
    assert [row[0] for row in names] == ["June"] * 3
    assert "paused (wrong text)" in (await operate("campaign", "list")).out
    assert (await operate("campaign", "resume", "may.csv")).code == 0
    assert len(await claimed(db)) == 3
    rows = await db.fetch("SELECT action, target, detail, result FROM dispatcher.audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("pause", "campaign may.csv", "wrong text", "paused"),
        ("resume", "campaign may.csv", "", "running"),
    ]


async def test_a_cancelled_campaign_is_cancelled_for_good(two, operate, db, tmp_path):
    del two
    ended = await operate("campaign", "cancel", "may.csv")
    assert ended.out == (
        "may.csv is cancelled: nothing more of it is claimed. Its outcomes follow.\n"
        "3 messages cancelled.\n"
    )
    states = await db.fetch(
        "SELECT campaign, state FROM dispatcher.message_status WHERE state <> 'queued'"
    )
    assert [tuple(row) for row in states] == [("may.csv", "cancelled")] * 3
    assert "cancelled for good" in (await operate("campaign", "resume", "may.csv")).line
    more = write(tmp_path / "more.csv", 1, first=50)
    assert (await operate("enqueue", more, "--campaign", "may.csv")).code == 2
    # The corrected list has the same name, and is a campaign of its own.
    ended = await operate("enqueue", write(tmp_path / "may.csv", 4))
    assert ended.out == "4 messages enqueued.\nCampaign: may.csv (2)\n"
    assert len(await claimed(db)) == 7


async def test_what_comes_back_of_a_stopped_campaign_stays(two, operate, db):
    del two
    ids = await claimed(db, 2)
    await operate("campaign", "cancel", "may.csv")
    await db.execute(
        sql("return_claimed"), "default", ids, [5, 5], [None, None], [0.0, 0.0], [1, 1],
        [False, False], [None, None], [None, None], [0, 0],
    )  # fmt: skip
    assert len(await claimed(db)) == 3  # those of June
    assert await db.fetchval("SELECT dispatcher.cancel_campaign_step()") == 2


async def test_a_cancel_waits_for_what_was_claimed_before(two, db, dsn):
    del two
    async with contextlib.AsyncExitStack() as stack:
        worker, operator = [await stack.enter_async_context(connected(dsn)) for _ in range(2)]
        claim = worker.transaction()
        await claim.start()  # claims, and commits only after the cancel
        rows = await worker.fetch(
            sql("claim"), "default", 100, 0, 9, None, [0.0] * 10, True, None, False
        )
        ids = sorted(row["id"] for row in rows)
        await campaigns.cancel(operator, "ana", "may.csv", "")
        waiting = asyncio.create_task(campaigns.settled(operator, "may.csv", seconds=20))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await worker.execute(
            "INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, bytes)"
            " VALUES ('t', 'default', 1, $1, $2, 1)",
            ids,
            [1] * len(ids),
        )
        await claim.commit()
        await asyncio.sleep(0.3)
        assert not waiting.done()  # its request is open
        await db.execute("UPDATE dispatcher.batch SET state = 'closed', closed_at = now()")
        assert await waiting == (0, 0)
        await db.execute("UPDATE dispatcher.batch SET state = 'open', closed_at = NULL")
        assert await campaigns.settled(operator, "may.csv", seconds=0) == (3, 0)


async def test_a_cancel_waits_a_little_for_what_is_held(two, db, dsn):
    del two
    async with connected(dsn) as operator:
        await campaigns.cancel(operator, "ana", "may.csv", "")
        async with db.transaction():
            await db.execute("SELECT FROM dispatcher.queue WHERE campaign = 'may.csv' FOR UPDATE")
            assert await campaigns.cancel_all(operator, "may.csv", held_seconds=0.1) == 0
            waiting = asyncio.create_task(
                campaigns.cancel_all(operator, "may.csv", held_seconds=60)
            )
            await asyncio.sleep(0.2)
        assert await waiting == 3


async def test_a_claim_that_does_not_end_is_told(two, db, dsn, monkeypatch):
    del two
    assert campaigns.MAX_CLAIM_SECONDS >= MAX_TIMEOUT_SECONDS
    monkeypatch.setattr(campaigns, "MAX_CLAIM_SECONDS", 0.1)
    async with connected(dsn) as operator, db.transaction():
        await db.fetch(sql("claim"), "default", 1, 0, 9, None, [0.0] * 10, True, None, False)
        await campaigns.cancel(operator, "ana", "may.csv", "")
        assert await campaigns.settled(operator, "may.csv", seconds=0) == (0, 1)


async def test_a_move_ends_when_its_own_campaign_has_moved(two, operate, db):
    del two
    await db.execute("INSERT INTO dispatcher.campaign (name, first_id) VALUES ('A', 1)")
    for name in ("June", "A"):  # A has no message
        await db.execute("SELECT dispatcher.move_campaign($1, priority => 0)", name)
    ended = await operate("campaign", "move", "may.csv", "--priority", "1")
    assert ended.out.splitlines()[1:] == ["3 messages moved."]
    states = await db.fetch("SELECT DISTINCT state FROM dispatcher.campaign")
    assert [row[0] for row in states] == ["running"]


async def test_a_move_that_cannot_go_on_is_told(two, db, dsn):
    del two
    async with connected(dsn) as operator:
        async with db.transaction():
            await db.fetch(sql("claim"), "default", 1, 0, 9, None, [0.0] * 10, True, None, False)
            await campaigns.move(operator, "ana", "may.csv", None, priority=1)
            assert await campaigns.move_all(operator, "may.csv", idle_seconds=0.1) == (0, True)
        assert await campaigns.move_all(operator, "may.csv") == (2, False)


async def test_a_campaign_is_moved_as_a_whole(two, operate, db):
    del two
    ended = await operate(
        *("campaign", "move", "may.csv", "--send-at", "2036-05-01 09:00", "--zone", "UTC"),
        *("--spread", "3h", "--priority", "1"),
    )
    assert ended.out == (
        "may.csv is being moved: nothing of it is claimed until all has moved.\n3 messages moved.\n"
    )
    rows = await db.fetch(
        "SELECT due_at AT TIME ZONE 'UTC' AS due, priority FROM dispatcher.queue"
        " WHERE campaign = 'may.csv' ORDER BY id"
    )
    assert [(f"{row['due']:%Y-%m-%d %H:%M}", row["priority"]) for row in rows] == [
        (f"2036-05-01 {hour}:00", 1) for hour in ("09", "10", "11")
    ]
    assert len(await claimed(db)) == 3  # those of June
    shown = (await operate("campaign", "show", "may.csv")).out
    assert "The last message that waits is due 2036-05-01 11:00:00" in shown
    assert (await operate("campaign", "move", "may.csv", "--send-at", "now")).code == 0
    assert "waits is due" not in (await operate("campaign", "show", "may.csv")).out
    assert len(await claimed(db)) == 3
    audit = "SELECT target, detail FROM dispatcher.audit WHERE action = 'move' ORDER BY id"
    told = [tuple(row) for row in await db.fetch(audit)]
    assert {target for target, _ in told} == {"campaign may.csv"}
    assert told[0][1] == "to 2036-05-01 09:00:00 UTC, 3600 s apart, priority 1"
    for wrong in (
        [],
        ["--spread", "1h", "--priority", "3"],
        ["--send-at", "2036-05-01 09:00"],
        ["--send-at", "9999-12-31T23:00+00:00"],
        ["--send-at", "9999-12-31T23:00-05:00"],
    ):
        assert (await operate("campaign", "move", "may.csv", *wrong)).code == 2
    assert (await operate("campaign", "move", "July", "--send-at", "now")).code == 1


async def test_nothing_of_a_campaign_is_claimed_while_it_is_moved(two, operate, db):
    del two
    await db.execute("SELECT dispatcher.move_campaign('may.csv', priority => 0)")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step(2)") == 2
    assert len(await claimed(db)) == 3  # those of June
    assert (await operate("campaign", "resume", "may.csv")).code == 1
    assert await db.fetchval("SELECT dispatcher.move_campaign_step(2)") == 1
    assert await db.fetchval("SELECT dispatcher.move_campaign_step(2)") == 0
    assert len(await claimed(db)) == 3
    await operate("campaign", "pause", "June", "--reason", "wrong text")
    await db.execute("SELECT dispatcher.move_campaign('June', priority => 0)")
    assert await db.fetchval("SELECT dispatcher.move_campaign_step()") == 0
    shown = "SELECT state, reason FROM dispatcher.campaign WHERE name = 'June'"
    assert tuple(await db.fetchrow(shown)) == ("paused", "wrong text")


async def reject_all(db) -> list[int]:
    """Let what is due be rejected; return the ids."""
    ids = await claimed(db)
    await db.executemany(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, code)"
        " VALUES ($1, 'rejected', 1, 'E000510')",
        [(one,) for one in ids],
    )
    return ids


async def test_a_campaign_is_requeued(two, operate, db):
    del two
    await reject_all(db)
    assert (await operate("campaign", "requeue", "June")).out == "3 messages waiting again.\n"
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue WHERE campaign = 'June'") == 3
    assert (await operate("campaign", "requeue", "July")).code == 1


async def test_nothing_of_a_cancelled_campaign_is_requeued(two, operate, db):
    """It was cancelled at once, and its code and reason were lost."""
    del two
    ids = await reject_all(db)
    await operate("campaign", "cancel", "June")
    ended = await operate("campaign", "requeue", "June")
    assert (ended.code, ended.line) == (1, "dispatcher: campaign June is cancelled for good.")
    ended = await operate("requeue", ids[-1])
    assert (ended.code, ended.out) == (1, "0 messages waiting again.\n")
    assert f"{ids[-1]}: its campaign is cancelled for good" in ended.line
    assert (await operate("requeue", "--code", "E000510")).out == "3 messages waiting again.\n"
    left = "SELECT state, code FROM dispatcher.message_status WHERE campaign = 'June'"
    assert [tuple(row) for row in await db.fetch(left)] == [("rejected", "E000510")] * 3


async def test_the_rate_of_a_young_campaign_is_over_its_age(two, operate, db):
    del two
    await operate("cost", "--price", "CN=0.05CNY")
    await db.execute(
        "UPDATE dispatcher.campaign SET created_at = now() - interval '2 min'"
        " WHERE name = 'may.csv'"
    )
    ids = (await claimed(db))[:3]
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, provider_id, segments)"
        " SELECT id, 'accepted', 1, id, 1 FROM unnest($1::bigint[]) AS u (id)",
        ids[:2],
    )
    out = (await operate("campaign", "show", "may.csv")).out
    assert "1 accepted a minute, over the last 2 min" in out
    assert "2 segments so far: 0.00 CNY." in out  # nothing is delivered yet


async def test_an_export_has_results_and_masked_numbers(two, operate, db, tmp_path):
    del two
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, campaign, reference)"
        " VALUES ('+8613112345678', 't1', 'June', '=1+1')"
    )
    (last,) = (await claimed(db))[-1:]
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, provider_id, segments)"
        " VALUES ($1, 'accepted', 1, 'p1', 2)",
        last,
    )
    await db.execute(
        "INSERT INTO dispatcher.report (provider_id, status, state)"
        " VALUES ('p1', 'DELIVRD', 'delivered')"
    )
    await operate("cost", "--price", "CN=0.05CNY")
    out = (await operate("campaign", "export", "June")).out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 4
    assert (rows[-1]["recipient"], rows[-1]["reference"]) == ("+86131****5678", "'=1+1")
    assert (rows[-1]["state"], rows[-1]["cost"], rows[-1]["currency"]) == (
        "delivered",
        "0.10",
        "CNY",
    )
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit WHERE action = 'export'") == 0
    ended = await operate("export", tmp_path / "x.xlsx", "--state", "delivered", "--full")
    assert ended.out == f"1 message in {tmp_path / 'x.xlsx'}.\n"
    sheet = openpyxl.load_workbook(tmp_path / "x.xlsx").active
    assert [row[3].value for row in sheet.rows] == ["recipient", "+8613112345678"]
    assert await db.fetchval("SELECT target FROM dispatcher.audit WHERE action = 'export'") == (
        "state=delivered"
    )
    lines = (await operate("export", "--app", "default", "--json")).out.splitlines()
    assert [json.loads(line)["campaign"] for line in lines] == ["may.csv"] * 3 + ["June"] * 4
    assert (await operate("export")).code == 2
    assert (await operate("export", "--campaign", "July")).code == 1
    assert (await operate("export", tmp_path / "x.pdf", "--campaign", "June")).code == 2


@pytest.mark.parametrize("form", ["csv", "json", "xlsx"])
async def test_an_export_keeps_every_text_as_it_is(operate, db, tmp_path, form):
    texts = ["a\tb\\c", 'd"<e>&,;', "f\ng\r\nh\\n", " i ", "\x01j", "\\N", "短信", "12", "_x0041_"]
    await db.executemany(
        "INSERT INTO dispatcher.message (recipient, template_id, reference)"
        " VALUES ('+8613112345678', 't1', $1)",
        [(text,) for text in texts],
    )
    file = tmp_path / f"x.{form}"
    assert (await operate("export", file, "--app", "default")).code == 0
    if form == "xlsx":
        texts[4] = "j"  # no sheet holds such a character
        sheet = openpyxl.load_workbook(file).active
        read = [unescaped(row[5].value) for row in sheet.rows][1:]  # as Excel reads it
    elif form == "json":
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        read = [row["reference"] for row in rows]
        assert rows[0]["queued_at"][:2] == "20"
        assert (rows[0]["code"], rows[0]["id"] > 0) == (None, True)
    else:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            read = [row["reference"] for row in csv.DictReader(stream)]
    assert [text.replace("\r", "") for text in read] == [text.replace("\r", "") for text in texts]


async def test_messages_are_found_by_what_is_known(two, operate, db):
    del two
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, reference)"
        " VALUES ('+8613112345678', 't1', 'order-1')"
    )
    wanted = await db.fetchval("SELECT max(id) FROM dispatcher.message")
    for text in ("131 1234 5678", "+8613112345678", "order-1", str(wanted)):
        found = json.loads((await operate("find", text, "--json")).out)
        assert [(one["id"], one["recipient"]) for one in found] == [(wanted, "+86131****5678")]
        assert "template_id" not in found[0]  # it was always null
    assert "+86131****5678" in (await operate("find", "order-1")).out
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, reference)"
        " VALUES ('+8613112345679', 't1', 'order-1 ')"
    )
    found = json.loads((await operate("find", "order-1 ", "--json")).out)
    assert [one["recipient"] for one in found] == ["+86131****5679"]
    assert (await operate("find", "order-2")).code == 1
    await db.execute(  # no phone has this number, and a row may have it
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+15550100', 't1')"
    )
    assert len(json.loads((await operate("find", "+15550100", "--json")).out)) == 1


async def test_a_line_may_name_its_campaign(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(
        "手机号,模板,活动\n13100000001,t1,June\n13100000002,t1,\n13100000003,t1,May\n",
        encoding="utf-8",
    )
    assert (await operate("enqueue", file)).code == 0
    rows = await db.fetch("SELECT campaign FROM dispatcher.message ORDER BY id")
    assert [row[0] for row in rows] == ["June", "x.csv", "May"]
    assert (await operate("campaign", "cancel", "May")).code == 0
    ended = await operate("enqueue", file, "--again")
    assert (ended.code, "campaign May is cancelled for good" in ended.line) == (2, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 3


@pytest.mark.parametrize("option", [("--spread", "1s"), ("--per-hour", "14400")])
async def test_a_list_is_spread_by_parts_of_a_second(operate, db, tmp_path, option):
    assert (await operate("enqueue", write(tmp_path / "x.csv", 4), *option)).code == 0
    waits = await db.fetch(
        "SELECT send_at - min(send_at) OVER () FROM dispatcher.message ORDER BY id"
    )
    assert [row[0].total_seconds() for row in waits] == [0, 0.25, 0.5, 0.75]


async def test_the_rest_of_a_list_is_spread_over_the_whole_time(operate, db, tmp_path):
    assert (await operate("enqueue", write(tmp_path / "x.csv", 30))).code == 0
    file = write(tmp_path / "y.csv", 32)
    assert (await operate("enqueue", file, "--rest", "--unique", "--spread", "2h")).code == 0
    waits = await db.fetch(
        "SELECT send_at - min(send_at) OVER () FROM dispatcher.message WHERE campaign = 'y.csv'"
    )
    assert [row[0].total_seconds() / 60 for row in waits] == [0, 60]


@pytest.mark.parametrize("option", [("--spread", "2h"), ("--per-hour", "2")])
async def test_a_list_is_spread_over_hours(operate, db, tmp_path, option):
    file = write(tmp_path / "x.csv", 4)
    assert (await operate("enqueue", file, *option)).code == 0
    waits = await db.fetch(
        "SELECT send_at - min(send_at) OVER () FROM dispatcher.message ORDER BY id"
    )
    assert [row[0].total_seconds() / 60 for row in waits] == [0, 30, 60, 90]
    assert (await operate("enqueue", file, "--spread", "2h", "--per-hour", "3")).code == 2
    assert (await operate("enqueue", file, "--spread", "soon")).code == 2


@pytest.mark.parametrize("option", [("--spread", "4h"), ("--per-hour", "2")])
async def test_a_list_is_spread_to_no_time_that_cannot_be_read(operate, db, tmp_path, option):
    file = write(tmp_path / "x.csv", 8)
    late = ("--send-at", "9999-12-30T20:30Z")
    ended = await operate("enqueue", file, *late, *option)
    last = await db.fetchval("SELECT max(send_at) FROM dispatcher.message")
    assert (ended.code, last.isoformat()[:13]) == (1, "9999-12-30T23")
    shown = (await operate("campaign", "show", "x.csv")).out
    assert "The last message that waits is due 9999-12-30 23:30:00" in shown


async def test_a_message_is_shown_for_programs(two, operate, db):
    del two
    wanted = await db.fetchval("SELECT min(id) FROM dispatcher.message")
    shown = json.loads((await operate("show", wanted, "--json")).out)
    assert (shown["message"]["recipient"], "params" in shown["message"]) == (
        "+86131****0000",
        False,
    )
    assert shown["message"]["state"] == "queued"
    full = json.loads((await operate("show", wanted, "--json", "--full")).out)
    assert (full["message"]["recipient"], full["message"]["params"]) == ("+8613100000000", ["0"])


async def test_a_campaign_with_too_many_failures_pauses_by_itself(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", 300)
    assert (await operate("enqueue", file, "--stop-at", "5%")).code == 0
    audit = "SELECT target, detail FROM dispatcher.audit WHERE action = 'stop-at'"
    assert tuple(await db.fetchrow(audit)) == ("campaign x.csv", "5.0% failed")
    ids = await claimed(db, 199)
    states = ["rejected"] * 9 + ["accepted"] * 190
    await db.executemany(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts, provider_id)"
        " VALUES ($1, $2, 1, $1::bigint::text)",
        list(zip(ids, states, strict=True)),
    )
    assert await db.fetchval("SELECT dispatcher.stop_campaigns()") == 0  # 4.5%
    await db.execute(
        "INSERT INTO dispatcher.report (provider_id, status, state)"
        " VALUES ($1, 'X', 'undelivered')",
        str(ids[-1]),
    )
    assert await db.fetchval("SELECT dispatcher.stop_campaigns(200)") == 0  # too few
    assert await db.fetchval("SELECT dispatcher.stop_campaigns()") == 1
    assert await claimed(db) == []
    shown = (await operate("campaign", "show", "x.csv")).out
    assert "paused (10 of 199 finished messages were rejected or undelivered" in shown
    assert (await operate("enqueue", file, "--stop-at", "5")).code == 2

    # What failed before a person resumed it counts no more.
    assert (await operate("campaign", "resume", "x.csv")).code == 0
    assert await db.fetchval("SELECT dispatcher.stop_campaigns(1)") == 0
    ids = await claimed(db)
    states = ["rejected"] * 5 + ["accepted"] * 95
    await db.executemany(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, $2, 1)",
        list(zip(ids, states, strict=True)),
    )
    assert await db.fetchval("SELECT dispatcher.stop_campaigns()") == 1
    shown = (await operate("campaign", "show", "x.csv")).out
    assert "paused (5 of 100 finished messages were rejected or undelivered" in shown


async def test_stop_at_holds_for_the_campaigns_of_a_column(operate, db, tmp_path):
    header = "recipient,template_id,campaign\n"
    rows = [f"+861310000000{at},t1,{name}\n" for at, name in enumerate(("May", "June", "", "May"))]
    first, file = tmp_path / "first.csv", tmp_path / "x.csv"
    first.write_text(f"{header}+8613100000009,t1,July\n", encoding="utf-8")
    assert (await operate("enqueue", first)).code == 0
    file.write_text(header + "".join(rows) + "+8613100000009,t1,July\n", encoding="utf-8")
    assert (await operate("enqueue", file, "--stop-at", "5%", "--rest")).code == 0
    stops = await db.fetch("SELECT name, stop_at FROM dispatcher.campaign")
    shares = {"May": 0.05, "June": 0.05, "x.csv": 0.05, "first.csv": None, "July": None}
    assert dict(map(tuple, stops)) == shares
