"""A list is uploaded, checked, loaded; what is refused comes back as a file."""

import asyncio
import fcntl
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from time import monotonic, sleep
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest
from client import Answer
from support.waiting import until

from dispatcher.console.forms import Invalid
from dispatcher.console.list_pages import ListPages, read_options, written_options
from dispatcher.db import console_tokens, list_uploads
from dispatcher.lists import upload_work
from dispatcher.lists.upload_work import WorkOrder

BEN = "Ben (shared token)"
NUMBER = "+8613112345678"
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
    async with asyncio.timeout(120):
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
    await operator.log_in(await console_tokens.add(db, "Ana", "Eve", "see"))
    page = (await operator.get(path)).text
    assert "3 messages would be enqueued. 1 line refused." in page
    assert "062569" not in page  # a code of a recipient
    await operator.log_in(actor="Ben")  # another operator loads what Ana uploaded
    form_token = (await operator.get("/console/search")).form_token
    for _ in range(2):  # a form that is sent twice loads once
        await operator.post(path, {"form_token": form_token, "action": "load"})
    page = await shown(operator, path, "loaded")
    assert "3 messages enqueued." in page
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 3
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload_part") == 0
    campaign = await db.fetchrow("SELECT name, created_by FROM dispatcher.campaign")
    assert tuple(campaign) == ("五月 <b>.csv", BEN)
    refused = await operator.post(f"{path}/rejects.csv", {"form_token": form_token})
    assert [line[:2] for line in refused.text.splitlines()[1:]] == ["4,"]
    audit = await db.fetch(
        "SELECT actor, action, target, detail, result FROM dispatcher.audit"
        " WHERE action IN ('load', 'export') ORDER BY id"
    )
    list_id = path.rpartition("/")[2]
    assert [tuple(row) for row in audit] == [
        (BEN, "load", f"list {list_id}", "五月 <b>.csv", "all lines"),
        (BEN, "export", f"refused lines of list {list_id}", "", "whole numbers"),
    ]


async def test_refused_lines_have_their_reasons_in_the_language_of_the_reader(operator):
    lines = ['手机号,"模板\n(必填)"', '12,"a\n,b"', f"{NUMBER},t 1", "13112345678,t"]
    answer = await upload(operator, "\n".join(lines).encode())
    path = answer.headers["Location"]
    await shown(operator, path, "checked")
    form = {"form_token": (await operator.get(path)).form_token}
    english = (await operator.post(f"{path}/rejects.csv", form)).text
    await operator.get("/console/language/zh-CN")
    chinese = (await operator.post(f"{path}/rejects.csv", form)).text
    for text, reasons in (
        (english, ("recipient: it is too short: 2 digits", "template_id has a blank in it")),
        (chinese, ("recipient：过短：2 位数字", "template_id 含有空白")),
    ):
        assert text == (
            '\ufeffline,reason,手机号,"模板\n(必填)"\r\n'
            f'3,{reasons[0]},12,"a\n,b"\r\n'
            f'5,{reasons[1]},"=""{NUMBER}""","=""t 1"""\r\n'
        )


async def test_a_check_names_apps_that_nobody_has(operator, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await db.execute("SELECT dispatcher.set_limits('shop', per_day => 7)")
    content = "手机号,模板,应用\n13112345678,t,shop\n13112345679,t,shop\n13112345670,t,sohp\n"
    answer = await upload(operator, content.encode())
    page = await shown(operator, answer.headers["Location"], "checked")
    assert "By app: shop 2, sohp 1." in page
    assert "Apps that no worker has ever had, so that their messages wait: sohp." in page
    assert "Limits of shop: 7 a day to a number. What is over one waits." in page


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


async def test_a_list_that_failed_is_checked_anew_with_its_options(operator, db):
    fields = {
        "template": "tpl", "params": "a\nb", "columns": "recipient=x", "zone": "Asia/Shanghai",
        "campaign": "May", "spread": "1.5h", "stop_at": "2.5", "unique": "yes",
    }  # fmt: skip
    options = read_options(fields)
    upload_id = await db.fetchval(
        "INSERT INTO dispatcher.list_upload (created_by, name, options, state, error)"
        " VALUES ('Ana', 'may.csv', $1, 'failed', $2) RETURNING id",
        msgspec.json.encode(options).decode(),
        "may.csv has several sheets (a, b): name one with --sheet.",
    )
    page = await operator.get(f"/console/lists/{upload_id}")
    assert "name one with “Sheet of an Excel file with several”." in page.text
    chinese = await operator.get(f"/console/lists/{upload_id}", **{"Accept-Language": "zh"})
    assert "请用 “工作表（Excel 文件有多个时）” 指定" in chinese.text
    link = re.search(r'href="(/console/lists\?as=[^"]+)"', page.text)[1]
    form = await operator.get(link)
    for name, value in {**fields, "spread": "90min"}.items():
        assert f'name="{name}" value="{value}"' in form.text or f">{value}</textarea>" in form.text
    assert 'name="unique" value="yes" checked' in form.text
    assert read_options(written_options(options)) == options


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
        (LIST.encode(), {"zone": "Moon/Sea", "template": "t1"}, "There is no time zone"),
        (LIST.encode(), {"zone": "Etc/GMT+8", "template": "t1"}, "has its sign reversed"),
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
    assert await list_uploads.ask_to_load(db, upload_id, "Ana", options, "all lines")
    assert await list_uploads.begin_work(db, upload_id)  # by a process that dies now
    assert not await list_uploads.begin_work(db, upload_id)
    await db.execute(
        "UPDATE dispatcher.list_upload"
        " SET worked_at = now() - interval '1 minute', asked_at = now() - interval '2 minutes'"
    )
    # A worker that sees a restored database ends it; one of the backup is not here any more.
    await db.execute(
        "INSERT INTO dispatcher.worker (host, pid, version, apps, lease, heartbeat_at)"
        " VALUES ('here', 1, '0', '{}', '10 s', now() - interval '20 s')"
    )
    assert "It waits for the next heartbeat" in (await operator.get(path)).text
    assert not await list_uploads.begin_work(db, upload_id)
    # Nor does one that lives, but was here before the load went on, or by a clock ahead.
    for at in ("-90 s", "1 h"):
        await db.execute(
            f"UPDATE dispatcher.worker SET lease = '1 h', heartbeat_at = now() + interval '{at}'"
        )
        assert not await list_uploads.begin_work(db, upload_id), at
    await db.execute("UPDATE dispatcher.worker SET heartbeat_at = now()")
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
        {"zone": "Asia"}, {"zone": "x" * 999},
    ):  # fmt: skip
        assert isinstance(read_options(fields), Invalid), fields


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a/b\\c.csv", "c.csv"), ("../..", "list"), ("", "list"), ("x" * 300, "x" * 200)],
)
def test_the_name_of_a_file_leads_nowhere(name, plain):
    assert upload_work._file_name(name) == plain


async def asked(db, dsn, how: dict[str, bool]) -> int:
    """Keep a list, have it checked, and ask for its load."""
    upload_id = await kept(db)
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    options = msgspec.json.encode(how).decode()
    assert await list_uploads.ask_to_load(db, upload_id, "Ben", options, "lines")
    return upload_id


async def loaded(db, dsn, upload_id: int) -> tuple[str, int]:
    """Let a process do what is asked; return the state, and how many messages there are."""
    await db.execute("UPDATE dispatcher.list_upload SET worked_at = NULL")
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    upload = await list_uploads.find(db, upload_id)
    return upload.state, await db.fetchval("SELECT count(*) FROM dispatcher.message")


@pytest.mark.parametrize("how", [{}, {"again": True}, {"rest": True}])
async def test_a_load_that_was_cut_at_its_end_is_not_repeated(db, dsn, how):
    """Its last line is in, and the process ended before it wrote the result."""
    if how:
        assert await loaded(db, dsn, await asked(db, dsn, {})) == ("loaded", 3)
    expected = {"again": 6}.get(next(iter(how), ""), 3)
    upload_id = await asked(db, dsn, how)
    parts = await list_uploads.content(db, upload_id)
    assert await loaded(db, dsn, upload_id) == ("loaded", expected)
    result = (await list_uploads.find(db, upload_id)).result
    await list_uploads.add_part(db, upload_id, 0, parts[0])
    await db.execute("UPDATE dispatcher.list_upload SET state = 'loading', result = NULL")
    assert await loaded(db, dsn, upload_id) == ("loaded", expected)
    upload = await list_uploads.find(db, upload_id)
    messages = [json.loads(each)["messages"] for each in (upload.result, result)]
    assert (upload.error, messages) == (None, [messages[0]] * 2)


async def test_lines_that_came_in_since_the_check_are_asked_for(operator, db, dsn):
    first, second = await asked(db, dsn, {}), await asked(db, dsn, {})
    assert await loaded(db, dsn, first) == ("loaded", 3)
    assert await loaded(db, dsn, second) == ("checked", 3)
    page = (await operator.get(f"/console/lists/{second}")).text
    assert "May.csv is in already, since " in page
    assert "3 messages in already, from May.csv" in page
    assert "Load the others only" not in page  # there are none
    form_token = (await operator.get("/console/search")).form_token
    await operator.post(f"/console/lists/{second}", {"form_token": form_token, "action": "again"})
    assert "3 messages enqueued." in await shown(operator, f"/console/lists/{second}", "loaded")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 6


async def test_one_line_that_is_in_is_asked_for(db, dsn):
    other = await list_uploads.add(db, "Ana", "other.csv", "{}")
    content = "\n".join((*LIST.splitlines()[:2], *(f"1310000000{at},t,1" for at in range(9)), ""))
    assert await loaded(db, dsn, await asked(db, dsn, {})) == ("loaded", 3)
    await list_uploads.add_part(db, other, 0, content.encode())
    await list_uploads.complete(db, other)
    await upload_work.work(WorkOrder(dsn, other, other_mainland=False))
    result = json.loads((await list_uploads.find(db, other)).result)
    assert (result["messages"], result["left_out"], result["earlier_lines"]) == (9, 1, 1)


async def skip_updates(db) -> None:
    """Have each load find that another process goes on with it, when lock 7 is free."""
    await db.execute(
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(7);
            RETURN NULL;
        END $$;
        CREATE TRIGGER skip BEFORE UPDATE ON dispatcher.file_import
        FOR EACH ROW EXECUTE FUNCTION skip();
        """
    )


async def test_a_load_of_another_process_is_left_to_it(db, dsn):
    upload_id = await asked(db, dsn, {})
    await skip_updates(db)
    await db.execute("SELECT pg_advisory_lock(7)")
    first = asyncio.create_task(upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False)))
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    await until(lambda: db.fetchval(waits), what="the first process came to its first batch")
    await db.execute("UPDATE dispatcher.list_upload SET tries = tries + 1")  # as a second one does
    await db.execute("SELECT pg_advisory_unlock(7)")
    await first
    assert (await list_uploads.find(db, upload_id)).state == "loading"
    await db.execute("DROP TRIGGER skip ON dispatcher.file_import")
    assert await loaded(db, dsn, upload_id) == ("loaded", 3)


async def test_a_load_that_a_command_does_says_so(db, dsn):
    upload_id = await asked(db, dsn, {})
    await skip_updates(db)
    assert await loaded(db, dsn, upload_id) == ("failed", 0)
    error = (await list_uploads.find(db, upload_id)).error
    assert error == "another process is loading the same file: wait for that to end."


async def test_a_load_whose_progress_cannot_be_shown_ends(db, database, dsn, monkeypatch):
    monkeypatch.setattr(upload_work, "PROGRESS_SECONDS", 0.02)
    upload_id = await asked(db, dsn, {})
    find = (
        "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'dispatcher list: progress' AND pid <> $1"
        " AND query LIKE '%progress = $2%'"
    )
    async with database.pool.acquire() as other:
        hold = other.transaction()
        await hold.start()
        await other.execute("LOCK TABLE dispatcher.message IN EXCLUSIVE MODE")
        work = asyncio.create_task(loaded(db, dsn, upload_id))
        pid = 0
        for _ in range(2):  # a new connection shows it when the first is lost
            pid = await until(lambda pid=pid: database.pool.fetchval(find, pid), what="progress")
            await database.pool.execute("SELECT pg_terminate_backend($1)", pid)
        await hold.rollback()
    assert await work == ("loaded", 3)


async def test_a_file_may_have_any_bytes_for_a_name(operator, db):
    token = (await operator.get("/console/search")).form_token
    parts = (
        b'name="form_token"\r\n\r\n' + token.encode(),
        b'name="file"; filename="May \xff.csv"\r\n\r\n' + LIST.encode(),
    )
    form = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts)
    kind = "multipart/form-data; boundary=x"
    answer = await operator.post("/console/lists", form + b"--x--\r\n", Content_Type=kind)
    await shown(operator, answer.headers["Location"], "checked")
    assert await db.fetchval("SELECT name FROM dispatcher.list_upload") == "May ?.csv"


async def kept(db, content: bytes = LIST.encode()) -> int:
    """Keep a list that waits to be checked; return its id."""
    upload_id = await list_uploads.add(db, "Ana", "May.csv", "{}")
    await list_uploads.add_part(db, upload_id, 0, content)
    await list_uploads.complete(db, upload_id)
    return upload_id


async def test_a_list_that_is_being_loaded_is_not_dropped(db):
    upload_id = await kept(db)
    await db.execute("UPDATE dispatcher.list_upload SET state = 'checked'")
    assert await list_uploads.ask_to_load(db, upload_id, "Ben", "{}", "all lines")
    await list_uploads.drop(db, upload_id, "Cem")
    assert await list_uploads.find(db, upload_id)
    await list_uploads.end_work(db, upload_id, "failed", None, "x", None)
    await list_uploads.drop(db, upload_id, "Cem")
    assert await list_uploads.find(db, upload_id) is None
    audit = await db.fetch("SELECT actor, action, target FROM dispatcher.audit ORDER BY id")
    target = f"list {upload_id}"
    assert [tuple(row) for row in audit] == [("Ben", "load", target), ("Cem", "drop", target)]


async def test_a_list_whose_process_died_thrice_is_given_up(db, dsn):
    upload_id = await kept(db)
    for state in ("checking", "checking", "checking", "failed"):
        assert (await list_uploads.find(db, upload_id)).state == "checking"
        await db.execute("UPDATE dispatcher.list_upload SET worked_at = NULL")
        if state == "checking":
            assert await list_uploads.begin_work(db, upload_id)  # by a process that dies now
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    upload = await list_uploads.find(db, upload_id)
    assert (upload.state, "Its process died 3 times" in upload.error) == ("failed", True)


async def test_a_list_that_takes_too_much_memory_says_so(db, dsn, monkeypatch):
    async def too_much(*_arguments) -> None:
        raise MemoryError

    monkeypatch.setattr(upload_work, "_load", too_much)
    upload_id = await kept(db)
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    upload = await list_uploads.find(db, upload_id)
    assert (upload.state, "takes too much memory" in upload.error) == ("failed", True)


async def test_a_list_without_a_folder_for_it_says_so(db, dsn, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    upload_id = await kept(db)
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    upload = await list_uploads.find(db, upload_id)
    assert upload.state == "failed"
    assert "cannot be written to a temporary folder (No such file or directory)" in upload.error


async def test_a_list_of_a_process_that_was_killed_is_removed(db, dsn, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, linked, another = (tmp_path / f"dispatcher-list-{name}" for name in "abc")
    others = tmp_path / "others"
    for folder in (left, others, another):
        folder.mkdir()
        (folder / "May.csv").write_text("+8613112345678")
        os.utime(folder, (1, 1))
    linked.symlink_to(others)
    handle = os.open(another, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # a process works on it
    upload_id = await kept(db)
    await upload_work.work(WorkOrder(dsn, upload_id, other_mainland=False))
    os.close(handle)
    assert {*tmp_path.iterdir()} == {others, linked, another}
    assert [*others.iterdir()]
    assert (await list_uploads.find(db, upload_id)).state in ("checked", "failed")


async def test_what_a_killed_process_left_goes_at_once(operator, monkeypatch, tmp_path):
    """The console looks, not the next list only."""
    code = (
        "import os, signal; from dispatcher.lists.upload_work import _own_folder\n"
        "with _own_folder() as folder:\n"
        "    (folder / 'May.csv').write_text('+8613112345678'); os.utime(folder, (1, 1))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    start, ended = asyncio.create_subprocess_exec, asyncio.Event()

    class Killed:
        async def communicate(self, _order: bytes) -> None:
            process = await start(sys.executable, "-c", code)
            assert await process.wait() == -9
            assert len([*tmp_path.glob("dispatcher-list-*/May.csv")]) == 1
            ended.set()

    async def start_killed(*_arguments, **_more) -> Killed:
        return Killed()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_killed)
    await upload(operator, LIST.encode())
    await ended.wait()
    async with asyncio.timeout(60):
        while [*tmp_path.iterdir()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_process_of_a_list_has_limits():
    command = [sys.executable, "-m", "dispatcher.lists.upload_work"]
    with Popen(command, stdin=PIPE, stderr=DEVNULL) as process:
        limits = Path(f"/proc/{process.pid}/limits")
        end = monotonic() + 90
        while "1800" not in (said := limits.read_text()) and monotonic() < end:
            sleep(0.05)
        process.kill()
    assert re.search(r"Max cpu time +1800 ", said)
    assert re.search(rf"Max address space +{2 << 30} ", said)


async def test_lists_are_worked_on_one_after_the_other(monkeypatch):
    running = most = done = 0

    class Process:
        async def communicate(self, _order: bytes) -> None:
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            done += 1

    async def start(*_arguments, **_more) -> Process:
        return Process()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    pages = ListPages(None, SimpleNamespace(dsn="", other_mainland=False))
    for upload_id in (1, 2, 3, 1):
        pages._work(upload_id)
    async with asyncio.timeout(60):
        while pages._working:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (most, done) == (1, 3)


@pytest.mark.usefixtures("defined")
async def test_a_check_names_the_countries_of_a_list(operator):
    abroad = LIST + "+13055550123,tpl,4\n"
    path = (await upload(operator, abroad.encode())).headers["Location"]
    assert "By country: CN 3, US 1." in await shown(operator, path, "checked")
    path = (await upload(operator, LIST.encode())).headers["Location"]
    assert "By country" not in await shown(operator, path, "checked")


async def test_a_list_that_waits_for_another_says_so(operator, monkeypatch):
    go_on = asyncio.Event()
    start = asyncio.create_subprocess_exec

    class Late:
        async def communicate(self, order: bytes) -> None:
            await go_on.wait()
            work = await start(sys.executable, "-m", "dispatcher.lists.upload_work", stdin=PIPE)
            await work.communicate(order)

    async def start_late(*_arguments, **_more) -> Late:
        return Late()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_late)
    first, second = [(await upload(operator, LIST.encode())).headers["Location"] for _ in "ab"]
    waits = "It waits: another list is being read"
    assert waits not in (await operator.get(first)).text
    assert waits in (await operator.get(second)).text
    go_on.set()
    for path in (first, second):
        assert waits not in await shown(operator, path, "checked")


def form(*fields: tuple[str, str]) -> aiohttp.FormData:
    made = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        made.add_field(name, value, filename="x.csv" if name == "file" else None)
    return made


async def test_a_form_that_is_not_ours_is_not_read_on(operator, db):
    token = ("form_token", (await operator.get("/console/search")).form_token)
    file = ("file", LIST)
    for fields, status in (
        ([("zone", "UTC"), token, file], 403),
        ([file, token], 403),
        ([token, *[("app", "x")] * 40, file], 400),
    ):
        assert (await operator.post("/console/lists", form(*fields))).status == status
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload") == 0


async def slow_upload(operator, seconds: float) -> Answer:
    """Upload a list on a connection of its own, with a pause in the file."""
    token = (await operator.get("/console/search")).form_token

    async def content() -> AsyncIterator[bytes]:
        part = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
        yield (part.format("form_token", "") + token + "\r\n").encode()
        yield part.format("file", '; filename="x.csv"').encode() + b"x" * 100_000
        await asyncio.sleep(seconds)
        yield b"+8613112345670,tpl,4\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with (
        aiohttp.ClientSession(cookie_jar=operator.session.cookie_jar) as session,
        session.post(
            f"{operator.url}/console/lists",
            data=content(),
            headers=headers,
            allow_redirects=False,
        ) as answer,
    ):
        return Answer(answer.status, dict(answer.headers), await answer.text())


@pytest.fixture
def impatient(monkeypatch) -> None:
    """A server that waits a moment only for a first request, as soon as an upload is admitted."""
    keep = ListPages._keep

    async def admitted(*arguments):
        monkeypatch.setattr("dispatcher.service.http.SILENT_TIMEOUT_SECONDS", 0.3)
        return await keep(*arguments)

    monkeypatch.setattr(ListPages, "_keep", admitted)
    monkeypatch.setattr("dispatcher.service.http.SWEEP_INTERVAL_SECONDS", 0.05)


async def test_a_slow_upload_on_a_new_connection_arrives(impatient, operator, monkeypatch):  # noqa: ARG001 - in this order
    monkeypatch.setattr(ListPages, "_work", lambda *_arguments: None)
    assert (await slow_upload(operator, 1.0)).status == 303


async def test_an_upload_that_does_not_end_keeps_nothing(operator, db, monkeypatch):
    monkeypatch.setattr("dispatcher.console.list_pages.UPLOAD_SECONDS", 1.0)
    answer = await slow_upload(operator, 2.0)
    assert (answer.status, "more than half an hour" in answer.text) == (400, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.list_upload") == 0


@pytest.mark.usefixtures("defined")
async def test_a_check_says_when_a_list_is_due(operator):
    fields = {"send_at": "2099-05-01 09:00", "zone": "Asia/Shanghai"}
    path = (await upload(operator, LIST.encode(), fields)).headers["Location"]
    page = await shown(operator, path, "checked")
    assert re.search(r'Due at\s*<time datetime="2099-05-01T01:00', page), page
    path = (await upload(operator, LIST.encode(), fields | {"per_hour": "60"})).headers["Location"]
    page = await shown(operator, path, "checked")
    assert re.search(
        r'from\s*<time datetime="2099-05-01T01:00.+to\s*<time datetime="2099-05-01T01:02', page
    )
    path = (await upload(operator, LIST.encode())).headers["Location"]
    assert "Due " not in await shown(operator, path, "checked")
