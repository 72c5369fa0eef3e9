"""Replies over real HTTP: kept before they are answered, once, and obeyed within a second."""

import asyncio
import json
from itertools import pairwise
from urllib.parse import urlencode

import pytest
from receiving_end import APP, FORM, SIGNED, TOKEN, receiver, signature, stripped
from structlog.testing import capture_logs
from support.service import app_settings, running
from support.waiting import until
from test_inbox import SwitchedDatabase

from dispatcher.core.reply import read_replies
from dispatcher.core.templates import Template
from dispatcher.db import operator, replies
from dispatcher.db.database import connect
from dispatcher.db.events import place
from dispatcher.db.reports import replay_unreadable
from dispatcher.receiver.intake import Intake, Stored
from dispatcher.simulator import ReportOptions, Simulator

PATH = f"/replies/{TOKEN}"
NUMBER = "+8615512345678"


def reply(
    number: str = NUMBER, text: str = "R", word: str = "a", channel: str = "10690001"
) -> bytes:
    return urlencode({"from": number, "to": channel, "body": text, "smsMsgId": word}).encode()


async def stored(db) -> list[tuple]:
    rows = await db.fetch(
        "SELECT number, app, text, unsubscribed FROM dispatcher.reply ORDER BY id"
    )
    return [tuple(row) for row in rows]


async def suppressed(db) -> list[tuple]:
    rows = await db.fetch(
        "SELECT recipient, app, promotional, source FROM dispatcher.suppression ORDER BY 1, 2"
    )
    return [tuple(row) for row in rows]


async def test_a_reply_is_in_the_database_when_it_is_answered(dsn, db, tmp_path):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    async with receiver(dsn, tmp_path) as receives:
        for _ in range(2):  # a repeated push is one reply
            assert await receives.post(reply(), path=PATH) == (200, "Success")
        assert await stored(db) == [(NUMBER, "shop", "R", True)]
        await receives.post(reply(text="When?", word="b"), path=PATH)
    assert (await stored(db))[1:] == [(NUMBER, "shop", "When?", False)]
    assert await suppressed(db) == [(NUMBER, "shop", True, "reply")]


@pytest.mark.parametrize(("app", "belongs"), [("", "bank"), ("default",) * 2, ("shop",) * 2])
async def test_plain_replies_do_not_pass_through_aiohttp(dsn, db, tmp_path, app, belongs):
    await db.execute(f"{APPS}, ('default', NULL)")
    address = f"/replies/{TOKEN}/{app}".rstrip("/")
    environ = stripped(app_settings("http://127.0.0.1:1"))
    headers = {"Content-Type": FORM}
    async with (
        receiver(dsn, tmp_path, **environ) as receives,
        receives.session.post(receives.url + address, data=reply(), headers=headers) as answer,
    ):
        assert answer.status == 200
        # Those of an app that this receiver does not know are aiohttp's, and are kept too.
        assert ("Server" in answer.headers) == (app == "shop")
    ((number, stored_app, *_),) = await stored(db)
    assert (number, stored_app) == (NUMBER, belongs)


async def test_each_reply_is_in_the_feed_once(dsn, db, database, tmp_path):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    (message,) = [
        await db.fetchval(
            "INSERT INTO dispatcher.message (recipient, template_id, reference)"
            " VALUES ('+8615512345678', 't', 'mine') RETURNING id"
        )
    ]
    await db.execute("SELECT dispatcher.cancel(ARRAY[$1::bigint])", message)
    async with receiver(dsn, tmp_path) as receives:
        for word in "aab":
            await receives.post(reply(word=word, text=word), path=PATH)
        await receives.post(reply(word="c"), path=PATH)
    await place(database)
    rows = await db.fetch("SELECT * FROM dispatcher.events()")
    assert [(row["event"], row["code"], row["message_id"]) for row in rows] == [
        ("cancelled", "", message),
        ("replied", "", None),
        ("replied", "", None),
        ("replied", "unsubscribed", None),
    ]
    assert [row["reference"] for row in rows] == ["mine", None, None, None]
    assert all(after["position"] == before["position"] + 1 for before, after in pairwise(rows))
    ids = [row["reply_id"] for row in rows if row["reply_id"] is not None]
    told = await db.fetch("SELECT * FROM dispatcher.replies($1)", ids)
    assert [(row["number"], row["text"]) for row in told] == [
        (NUMBER, "a"),
        (NUMBER, "b"),
        (NUMBER, "R"),
    ]
    app = await connect(f"{dsn}{'&' if '?' in dsn else '?'}role=dispatcher_app")
    assert len(await app.fetch("SELECT * FROM dispatcher.replies($1)", ids)) == 3
    await app.close()


APPS = """
    INSERT INTO dispatcher.app (name, sender) VALUES
        ('bank', '10690001'), ('shop', '106900012'), ('one', '7'), ('other', '7')
"""


@pytest.mark.parametrize(
    "case",
    [
        (PATH, "10690001", "bank"),
        (PATH, "106900012", "shop"),
        (PATH, "1069000199", "bank"),  # an extension of the carrier, or a message's own sender
        (PATH, "1069000123", "shop"),  # the longest beginning
        (PATH, "7", ""),  # of two apps
        (PATH, "8", ""),
        (f"{PATH}/other", "10690001", "other"),
        (f"{PATH}/Other", "8", "other"),
        (f"{PATH}/misspelt", "8", ""),
        (f"{PATH}/%20'", "8", ""),
    ],
)
async def test_a_reply_is_for_the_app_that_was_answered(dsn, db, tmp_path, case):
    path, channel, app = case
    await db.execute(APPS)
    async with receiver(dsn, tmp_path) as receives:
        assert (await receives.post(reply(channel=channel), path=path))[0] == 200
    assert await stored(db) == [(NUMBER, app, "R", app != "")]
    assert await suppressed(db) == ([(NUMBER, app, True, "reply")] if app else [])


@pytest.mark.parametrize(
    "case",
    [
        ("('{default}', now(), NULL), ('{old}', now() - interval '1 day', now())", "default"),
        ("('{default}', now(), NULL), ('{default}', now(), now())", "default"),
        ("('{default}', now(), now())", "default"),  # it restarts
        ("('{default}', now(), NULL), ('{old,default}', now(), NULL)", ""),
    ],
)
@pytest.mark.parametrize("verified", [False, True])
async def test_a_row_of_an_app_that_no_worker_has_stops_no_unsubscription(
    dsn, db, tmp_path, case, verified
):
    workers, app = case
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default'), ('old')")
    await operator.pause(db, "Ana", "defualt", "")
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, lease, apps, heartbeat_at, stopped_at)"
        " SELECT '', 1, '', '1 min', apps::text[], at, stopped::timestamptz"
        f" FROM (VALUES {workers}) AS w (apps, at, stopped)"
    )
    environ = {"REPORT_NETWORKS": "127.0.0.0/8"} if verified else {}
    async with receiver(dsn, tmp_path, **environ) as receives:
        await receives.post(reply(), path=PATH)
    # One that is verified may be for any of the apps that there were.
    app = "" if verified else app
    assert await stored(db) == [(NUMBER, app, "R", verified or app != "")]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("channel", ["8", "1069000199"])
async def test_a_verified_reply_to_no_app_counts_for_all(dsn, db, tmp_path, signed, channel):
    await db.execute(APPS)
    body = reply(channel=channel)
    environ = stripped(SIGNED) if signed else {"REPORT_NETWORKS": "127.0.0.0/8"}
    headers = signature(body, path=PATH) if signed else {}
    async with receiver(dsn, tmp_path, **environ) as receives:
        await receives.post(body, FORM, path=PATH, **headers)
    assert await stored(db) == [(NUMBER, "", "R", True)]
    assert await suppressed(db) == [(NUMBER, "", True, "reply")]


@pytest.mark.parametrize("verified", [False, True])
async def test_a_kept_push_counts_as_it_would_have(db, verified):
    await db.execute(APPS)
    await db.execute(
        "INSERT INTO dispatcher.unreadable_push (digest, body, content_type, path, reason)"
        " VALUES ('d', $1, '', 'replies', '')",
        reply(channel="8"),
    )
    assert await replay_unreadable(db, words=["R"], verified=verified) == (1, 1)
    assert await suppressed(db) == ([(NUMBER, "", True, "reply")] if verified else [])


@pytest.mark.parametrize("networks", ["", "127.0.0.0/8"])
async def test_unverified_replies_to_several_apps_are_a_warning(dsn, tmp_path, networks):
    apps = {
        f"APPS__{app}__{name}": APP[name]
        for app in ("SHOP", "BANK")
        for name in ("ENDPOINT", "APP_KEY", "APP_SECRET")
    }
    with capture_logs() as logs:
        async with receiver(dsn, tmp_path, REPORT_NETWORKS=networks, **apps):
            pass
    warned = [each for each in logs if each["event"].endswith("is not known stops no promotion")]
    assert len(warned) == (0 if networks else 1)


async def test_without_the_token_no_reply_is_taken(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for path in ("/replies/guessed", "/replies/guessed/shop"):
            assert (await receives.post(reply(), path=path))[0] == 404
    assert await stored(db) == []


async def test_a_signed_reply_is_verified(dsn, db, tmp_path):
    public = f"https://sms.example.com/sms/reports/{TOKEN}"
    environ = stripped(SIGNED) | {"CALLBACK_URL": public}
    body = reply()
    async with receiver(dsn, tmp_path, **environ) as receives:
        assert (await receives.post(body, path=PATH))[0] == 401
        for path in (PATH, f"/sms{PATH}"):  # with and without a proxy that changes the path
            headers = signature(body, path=path)
            assert (await receives.post(body, FORM, path=PATH, **headers))[0] == 200
        assert (await receives.post(body, path=PATH, **signature(b"other", path=PATH)))[0] == 401
    assert len(await stored(db)) == 1


async def test_what_cannot_be_read_is_kept_and_read_later(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(b"body=R", path=f"{PATH}/shop") == (200, "Success")
    row = await db.fetchrow("SELECT body, path, reason FROM dispatcher.unreadable_push")
    assert (row["body"], row["path"]) == (b"body=R", "replies/shop")
    assert "no number" in row["reason"]
    # A later release reads it.
    await db.execute("UPDATE dispatcher.unreadable_push SET body = $1", reply())
    await db.execute(APPS)
    assert await replay_unreadable(db, words=["R"]) == (1, 1)
    assert await suppressed(db) == [(NUMBER, "shop", True, "reply")]


async def test_replies_wait_on_disk_while_the_database_is_away(db, database, tmp_path):
    await db.execute(APPS)
    switched = SwitchedDatabase(database.dsn, database.pool)
    switched.away = True
    intake = Intake(switched, tmp_path / "spool", verified=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(intake.run())
        assert await intake.keep_replies(read_replies(reply()).replies, "shop") == Stored()
        unknown = read_replies(reply(channel="8", word="b")).replies
        assert await intake.keep_replies(unknown, "") == Stored()
        assert await intake.keep_unreadable(b"body=R", FORM, "no number", "replies") == Stored()
        running.cancel()
    assert await stored(db) == []
    intake._spool.close()
    switched.away = False
    for _ in range(2):
        await Intake(switched, tmp_path / "spool").replay_spool()
        assert sorted(await stored(db)) == [(NUMBER, "", "R", True), (NUMBER, "shop", "R", True)]
    kept = "SELECT count(*) FROM dispatcher.unreadable_push WHERE path = 'replies'"
    assert await db.fetchval(kept) == 1


REFUSE_ODD = {
    "constraint": "ALTER TABLE dispatcher.reply ADD CONSTRAINT odd CHECK (text <> 'odd')",
    "trigger": "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
    " CREATE TRIGGER refuse BEFORE INSERT ON dispatcher.reply FOR EACH ROW"
    " WHEN (NEW.text = 'odd') EXECUTE FUNCTION public.refuse()",
}


@pytest.mark.parametrize("by", REFUSE_ODD)
async def test_one_reply_that_the_database_refuses_costs_no_other(dsn, db, tmp_path, by):
    await db.execute(REFUSE_ODD[by])
    async with receiver(dsn, tmp_path) as receives:
        bodies = [reply(text="odd" if n == 7 else "x", word=str(n)) for n in range(20)]
        answers = await asyncio.gather(*(receives.post(body, path=PATH) for body in bodies))
    assert {status for status, _ in answers} == {200}
    assert len(await stored(db)) == 19
    body = await db.fetchval("SELECT body FROM dispatcher.unreadable_push")
    assert json.loads(body)["body"] == "odd"


async def test_replies_leave_with_their_person_and_with_time(dsn, db, tmp_path):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    async with receiver(dsn, tmp_path) as receives:
        await receives.post(reply(number="15512345678"), path=PATH)
        await receives.post(reply(number="+8613800000000", word="b"), path=PATH)
        await receives.post(reply(number="+8613800000001", word="c"), path=PATH)
    exported = await operator.export(db, NUMBER)
    assert [next(iter(json.loads(text))) for text in exported] == ["reply", "suppression"]
    await operator.forget(db, "Ana", NUMBER)
    assert [row[0] for row in await stored(db)] == ["+8613800000000", "+8613800000001"]
    await db.execute(
        "UPDATE dispatcher.reply SET received_at = now() - interval '2 days'"
        " WHERE number = '+8613800000000'"
    )
    await db.fetchval("SELECT dispatcher.prune('1 day')")
    assert [row[0] for row in await stored(db)] == ["+8613800000001"]
    (left,) = await replies.of_number(db, "+8613800000001", limit=5)
    assert left.unsubscribed


@pytest.mark.slow
async def test_an_unsubscribe_is_obeyed_within_a_second(dsn, db):
    """Promotion ends at once, codes of the same app still go out."""
    await operator.define_template(db, "Ana", Template("ad", [], promotional=True), "")
    numbers = [f"+861551234{n:04d}" for n in range(40)]
    insert = (
        "INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT n, $2 FROM unnest($1::text[]) AS n"
    )
    done = "SELECT count(*) = $1 FROM dispatcher.outcome"
    environ = {"DISPATCHER_REPORT_PATH_TOKEN": TOKEN}
    async with (
        Simulator({"key": "secret"}) as sim,
        running(dsn, **app_settings(sim.url), **environ) as service,
    ):
        sim.reports.options = ReportOptions(
            reply_url=f"{service.url}{PATH}", replies=1.0, reply_extension="77"
        )
        await db.execute(insert, numbers, "ad")
        await until(lambda: db.fetchval(done, 40), what="the promotion is out")
        await asyncio.wait_for(sim.until(lambda: sim.reports.replies["200"] == 40), 20)
        await asyncio.sleep(1.0)  # the promise: from then on
        await db.execute(insert, numbers, "ad")
        await db.execute(insert, numbers, "code")
        await until(lambda: db.fetchval(done, 120), what="all outcomes")
    rows = await db.fetch(
        "SELECT m.template_id, coalesce(o.code, o.state), count(*) FROM dispatcher.outcome o"
        " JOIN dispatcher.message m ON m.id = o.message_id GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        ("ad", "accepted", 40),
        ("ad", "unsubscribed", 40),
        ("code", "accepted", 40),
    ]
    assert {app for _, app, _, _ in await suppressed(db)} == {"default"}
