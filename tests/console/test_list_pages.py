"""A list is uploaded, checked, loaded; what is refused comes back as a file."""

import asyncio
import io

import aiohttp
import pytest
from client import ACTOR, Answer

from dispatcher.console.forms import Invalid
from dispatcher.console.list_pages import read_options
from dispatcher.db import console_tokens, list_uploads
from dispatcher.lists import upload_work

LIST = """手机号,模板,变量1
13112345678,tpl,062569
+8613112345679,tpl,1
131123,tpl,2
+8613112345678,tpl,3
"""


async def upload(client, content: bytes, fields: dict[str, str] | None = None, **more) -> Answer:
    """Send the form of an upload, as a browser does."""
    token = more.get("form_token") or (await client.get("/console/search")).form_token
    form = aiohttp.FormData({"form_token": token, **(fields or {})}, quote_fields=False)
    form.add_field("file", io.BytesIO(content), filename=more.get("name", "五月 <b>.csv"))
    return await client.post("/console/lists", form, **more.get("headers", {}))


async def shown(client, path: str, state: str) -> str:
    """Return the page of a list once the list has *state*."""
    async with asyncio.timeout(30):
        while "data-renew" in (page := await client.get(path)).text:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    listed = (await client.get("/console/lists")).text
    assert f'data-label="State">{state}<' in listed, page.text
    return page.text


@pytest.fixture
async def defined(db) -> None:
    """A template whose text is known, and a price."""
    await db.execute(
        "INSERT INTO dispatcher.template (template_id, kinds, text)"
        " VALUES ('tpl', '{NUM_6}', 'Your code is ${NUM_6}.')"
    )
    await db.execute("INSERT INTO dispatcher.price VALUES ('CN', 0.05, 'CNY')")


@pytest.mark.usefixtures("defined")
async def test_a_list_is_checked_first_and_then_loaded(operator, db):
    answer = await upload(operator, LIST.encode("gb18030"))
    path = answer.headers["Location"]
    page = await shown(operator, path, "checked")
    for words in (
        "3 messages would be enqueued. 1 line refused.",
        "1 number without + taken as mainland China (+86).",
        "1 line with the number of an earlier line",
        "+86131****5678",
        "Your code is 062569.",
        "About 0.15 CNY.",
        "五月 &lt;b&gt;.csv",
        "Load 3 messages",
    ):
        assert words in page, words
    assert "13112345678" not in page
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0
    form_token = (await operator.get("/console/search")).form_token
    for _ in range(2):  # a form that is sent twice loads once
        await operator.post(path, {"form_token": form_token, "action": "load"})
    page = await shown(operator, path, "loaded")
    assert "3 messages enqueued." in page
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 3
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload_part") == 0
    campaign = await db.fetchrow("SELECT name, created_by FROM dispatcher.campaign")
    assert tuple(campaign) == ("五月 <b>.csv", ACTOR)
    refused = await operator.post(f"{path}/rejects.csv", {"form_token": form_token})
    assert [line[:2] for line in refused.text.splitlines()[1:]] == ["4,"]
    audit = await db.fetchval("SELECT target FROM dispatcher.audit WHERE action = 'export'")
    assert audit == f"refused lines of list {path.rpartition('/')[2]}"


@pytest.mark.slow
@pytest.mark.usefixtures("defined")
async def test_what_is_in_already_is_loaded_only_when_asked_for(operator, db):
    form_token = (await operator.get("/console/search")).form_token
    first = (await upload(operator, LIST.encode())).headers["Location"]
    await shown(operator, first, "checked")
    await operator.post(first, {"form_token": form_token, "action": "load"})
    await shown(operator, first, "loaded")
    more = LIST + "+8613112345670,tpl,4\n"
    second = (await upload(operator, more.encode())).headers["Location"]
    page = await shown(operator, second, "checked")
    assert "3 messages in already" in page
    assert "Load the others only" in page
    await operator.post(second, {"form_token": form_token, "action": "rest"})
    assert "1 message enqueued." in await shown(operator, second, "loaded")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 4


@pytest.mark.slow
async def test_options_are_kept_for_the_load(operator, db):
    fields = {
        "template": "tpl", "params": "a\nb", "app": "shop", "campaign": "May", "priority": "7",
        "spread": "1h", "stop_at": "5", "recipients_only": "yes", "unique": "yes",
    }  # fmt: skip
    content = b"+8613112345678\n+8613112345679\n+8613112345678\n"
    path = (await upload(operator, content, fields, name="x.txt")).headers["Location"]
    assert "2 messages would be enqueued." in await shown(operator, path, "checked")
    form_token = (await operator.get("/console/search")).form_token
    await operator.post(path, {"form_token": form_token, "action": "load"})
    await shown(operator, path, "loaded")
    rows = await db.fetch(
        "SELECT app, template_id, params, priority, campaign FROM dispatcher.message"
    )
    assert {(row[0], row[1], tuple(row[2]), row[3], row[4]) for row in rows} == {
        ("shop", "tpl", ("a", "b"), 7, "May")
    }
    spread = await db.fetchval("SELECT max(send_at) - min(send_at) FROM dispatcher.message")
    assert spread.total_seconds() > 1000
    assert await db.fetchval("SELECT stop_at FROM dispatcher.campaign") == 0.05


async def test_a_file_that_is_no_list_says_why(operator, db):
    for content, words in ((b"a,b\n1,2\n", "has no column recipient"), (b"\n\n", "is empty")):
        path = (await upload(operator, content)).headers["Location"]
        page = await shown(operator, path, "failed")
        assert words in page
        assert "/dispatcher-list-" not in page
        form_token = (await operator.get("/console/search")).form_token
        await operator.post(path, {"form_token": form_token, "action": "drop"})
        assert (await operator.get(path)).status == 404
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload") == 0


async def test_an_upload_from_elsewhere_keeps_nothing(operator, db, client):
    assert (await upload(operator, b"x", form_token="forged")).status == 403
    foreign = {"Sec_Fetch_Site": "cross-site"}
    assert (await upload(operator, b"x", headers=foreign)).status == 403
    token = await console_tokens.add(db, "Ana", "Ben", "see")
    await client.log_in(token)
    assert (await upload(client, b"x", form_token="any")).status == 403
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload") == 0


async def test_an_upload_that_cannot_be_keeps_its_form(operator, db, monkeypatch):
    monkeypatch.setattr("dispatcher.console.list_pages.MAX_UPLOAD_BYTES", 1024 * 1024)
    for content, fields, words in (
        (b"", {}, "Choose a file that is not empty."),
        (b"x" * (1024 * 1024 + 1), {}, "A list has at most 1 MB here"),
        (LIST.encode(), {"spread": "soon", "template": "t1"}, "Spread takes a time"),
        (LIST.encode(), {"zone": "Moon/Sea", "template": "t1"}, "There is no such time zone"),
        (LIST.encode(), {"params": "x" * 5000}, "could not be read"),
    ):
        answer = await upload(operator, content, fields)
        assert (answer.status, words in answer.text) == (400, True), words
        if "template" in fields:
            assert 'value="t1"' in answer.text
    form_token = (await operator.get("/console/search")).form_token
    assert (await operator.post("/console/lists", {"form_token": form_token})).status == 400
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload") == 0


@pytest.mark.slow
async def test_a_load_whose_process_died_is_taken_up(operator, db):
    path = (await upload(operator, LIST.encode())).headers["Location"]
    await shown(operator, path, "checked")
    upload_id = int(path.rpartition("/")[2])
    options = await db.fetchval("SELECT options::text FROM dispatcher.list_upload")
    assert await list_uploads.ask_to_load(db, upload_id, options)
    assert await list_uploads.begin_work(db, upload_id)  # by a process that dies now
    assert not await list_uploads.begin_work(db, upload_id)
    await db.execute("UPDATE dispatcher.list_upload SET worked_at = now() - interval '1 minute'")
    assert "3 messages enqueued." in await shown(operator, path, "loaded")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 3


async def test_uploads_of_over_a_day_ago_are_deleted(db):
    old = await list_uploads.add(db, "Ana", "old.csv", "{}")
    await list_uploads.add_part(db, old, 0, b"x")
    await db.execute("UPDATE dispatcher.list_upload SET created_at = now() - interval '25 hours'")
    await list_uploads.add(db, "Ana", "new.csv", "{}")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload_part") == 0


def test_what_a_form_says_wrongly_is_refused():
    for fields in (
        {"spread": "4"}, {"per_hour": "0"}, {"per_hour": "9", "spread": "1h"}, {"stop_at": "0"},
        {"stop_at": "101"}, {"campaign": "x" * 101}, {"zone": "../etc"},
    ):  # fmt: skip
        assert isinstance(read_options(fields), Invalid), fields


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a/b\\c.csv", "c.csv"), ("../..", "list"), ("", "list"), ("x" * 300, "x" * 200)],
)
def test_the_name_of_a_file_leads_nowhere(name, plain):
    assert upload_work._file_name(name) == plain
