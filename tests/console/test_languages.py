"""Pages are in the language that the reader chose, else in the one that the browser asks for."""

import html
import re

import pytest
from test_odd_input import NAME, PAGES, STORED

from dispatcher.core.report_status import report_status

CHINESE = {"Accept_Language": "zh-CN,zh;q=0.9"}


async def test_a_page_is_in_the_language_of_the_browser(client):
    chinese = await client.get("/console/login", **CHINESE)
    assert '<html lang="zh-CN">' in chinese.text
    assert "<h1>登录</h1>" in chinese.text
    assert chinese.headers["Content-Language"] == "zh-CN"
    # the same connection: the next request starts anew
    english = await client.get("/console/login")
    assert '<html lang="en">' in english.text
    assert "<h1>Log in</h1>" in english.text


async def test_a_chosen_language_stays_and_keeps_the_page(operator):
    page = "/console/messages?state=queued"
    choice = await operator.get("/console/language/zh-CN", Referer=operator.url + page)
    assert (choice.status, choice.headers["Location"]) == (303, page)
    assert '<html lang="zh-CN">' in (await operator.get(page, Accept_Language="en")).text
    await operator.get("/console/language/en")
    assert '<html lang="en">' in (await operator.get(page, **CHINESE)).text


async def test_a_choice_leads_to_pages_of_the_console_only(client):
    for referer in ("https://example.org/", "https://example.org//evil", "//console", "", "x:/"):
        choice = await client.get("/console/language/zh-CN", Referer=referer)
        assert choice.headers["Location"] == "/console", referer


async def test_an_unknown_language_changes_nothing(client):
    choice = await client.get("/console/language/tlh")
    assert "Set-Cookie" not in choice.headers
    page = await client.get("/console/login", Cookie="dispatcher_language=../../etc")
    assert '<html lang="en">' in page.text


async def test_a_code_is_found_by_words_of_both_languages(operator):
    for words in ("变量与模板不符", "variables%20do%20not%20fit"):
        found = await operator.get(f"/console/codes?q={words}", **CHINESE)
        assert "E200028" in found.text, words


async def test_what_an_action_stores_is_english(operator, db):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    form = {"form_token": (await operator.get("/console/search")).form_token}
    await operator.post("/console/message-action", {**form, "action": "cancel"}, **CHINESE)
    assert await db.fetchval("SELECT filter FROM dispatcher.message_action") == "all messages"
    page = await operator.get(
        f"/console/message-action/{await db.fetchval('SELECT id FROM dispatcher.message_action')}",
        **CHINESE,
    )
    assert "全部短信。" in page.text


async def test_the_audit_says_why_an_app_was_paused_in_ones_language(operator, db):
    why = (
        "This may be a restored backup: no worker was here since 2026-03-01 09:30 UTC, and messages"
        " wait since before then. They may have been sent after the backup was made: cancel those,"
        " then resume."
    )
    await db.execute("SELECT dispatcher.pause('shop', $1, 'dispatcher run')", why)
    for path in ("/console/audit", "/console/rules"):
        chinese = (await operator.get(path, **CHINESE)).text
        assert "自 2026-03-01 09:30 UTC 以来没有工作进程" in chinese
        assert "restored" not in chinese
    assert why in (await operator.get("/console/audit")).text


@pytest.mark.parametrize(
    ("state", "english", "chinese"),
    [
        ("open", "on its way", "发送中"),
        ("unsure", "unsure", "结果未知"),
        ("closed", "closed", "已结束"),
    ],
)
async def test_the_state_of_a_request_has_a_word_of_its_own(operator, db, state, english, chinese):
    await db.execute(
        "INSERT INTO dispatcher.batch"
        " (token, app, worker, message_ids, attempts, state, bytes, unsure_at)"
        " VALUES (repeat('a', 32), 'shop', 1, '{1}', '{1}', $1, 1, now())",
        state,
    )
    path = f"/console/batch/{'a' * 32}"
    for page, word in (
        (await operator.get(path), english),
        (await operator.get(path, **CHINESE), chinese),
    ):
        assert f'<span class="state state-{state}">{word}</span>' in page.text


async def test_a_suppressed_message_says_why_in_ones_language(operator, db):
    await db.execute("""
        INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't');
        DELETE FROM dispatcher.queue;
        INSERT INTO dispatcher.outcome (message_id, state, attempts, code)
            VALUES (1, 'rejected', 1, 'suppressed');
        INSERT INTO dispatcher.suppression (recipient, reason, source)
            VALUES ('+8613112345678', '', 'report');
    """)
    meaning = report_status("MK:0012").meaning
    await db.execute("UPDATE dispatcher.suppression SET reason = $1", f"MK:0012: {meaning}")
    page = html.unescape((await operator.get("/console/message/1")).text)
    assert f"Why it is there: MK:0012: {meaning}" in page
    assert ".." not in page
    chinese = (await operator.get("/console/message/1", **CHINESE)).text
    assert meaning not in html.unescape(chinese)
    assert chinese.count("MK:0012：") == 2


@pytest.mark.slow
async def test_no_english_is_left_on_a_chinese_page(operator, db):
    await db.execute(STORED.replace("left(EVIL, 32)", "'t-1'").replace("EVIL", "'ana-1'"))
    await db.execute("UPDATE dispatcher.app SET paused_by = 'worker'")
    await db.execute("UPDATE dispatcher.batch SET state = 'closed', settled_by = 'its worker'")
    asked = [page.replace(NAME, "ana-1") for page in PAGES]
    for page in [*asked, "/actions/requeue?ids=1", "/actions/price?country=CN&price=0.045"]:
        answer = await operator.get(f"/console{page}", **CHINESE)
        assert answer.status == 200, page
        assert _mixed(answer.text) == [], page


def _mixed(text: str) -> list[str]:
    """Return the lines with English words, or without a blank between Chinese and Latin letters."""
    parts = re.split(
        r"</?(?:t[dhr]|p|h\d|li|d[tdl]|div|section|option|label|a|button)\b[^>]*>", text
    )
    attributes = re.findall(r'(?:aria-label|title|placeholder|data-label)="([^"]*)"', text)
    without_code = (re.sub(r"<code>[^<]*</code>", "`", part) for part in parts)
    lines = [html.unescape(re.sub(r"<[^>]*>", "", part)) for part in without_code] + attributes
    blank = "[\u4e00-\u9fff][A-Za-z0-9(]|[A-Za-z0-9)%][\u4e00-\u9fff]|[a-z]{3,} [a-z]{3,}"
    return [line.strip() for line in lines if re.search(blank, line)]
