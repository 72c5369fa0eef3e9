"""Without the console's token, no request shows or changes anything."""

import asyncio
import gzip
import hashlib
import re
import time
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import quote, urlencode

import pytest
from client import ACTOR, TOKEN, Client
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode, base64_encode
from yarl import URL

from dispatcher.console import closed_console_routes
from dispatcher.console.auth import SESSION_LIFETIME_SECONDS, Sessions
from dispatcher.service.http import serving

PAGES = [
    "",
    "/live",
    "/chart",
    "/problems",
    "/fresh",
    "/messages",
    "/message-action/1",
    "/codes",
    "/audit",
    "/audit.csv",
    "/nowhere",
    "/search",
    "/message/1",
    "/batch/" + "0" * 32,
    "/rules",
    "/actions",
    "/campaigns",
    "/campaign?name=x",
    "/campaign.csv?name=x",
    "/lists",
    "/lists/1",
    "/delivery",
    "/problems/unreadable",
    "/actions/pause?app=default",
]
FORMS = [
    ("/actions/pause", {"app": "default"}),
    ("/actions/resume", {"app": "default"}),
    ("/actions/cancel", {"ids": "1"}),
    ("/actions/requeue", {"ids": "1"}),
    ("/actions/settle", {"token": "0" * 32, "how": "sent"}),
    ("/actions/template", {"template_id": "t", "text": "${NUM_6}"}),
    ("/actions/template-remove", {"template_id": "t"}),
    ("/actions/limits", {"app": "default", "per_day": "1"}),
    ("/actions/price", {"country": "CN", "price": "1"}),
    ("/actions/suppress", {"numbers": "+8613112345678"}),
    ("/actions/unsuppress", {"numbers": "+8613112345678"}),
    ("/actions/campaign-cancel", {"campaign": "x"}),
    ("/rules", {"number": "+8613112345678"}),
    ("/lists/1", {"action": "load"}),
    ("/lists/1/rejects.csv", {}),
    ("/campaign.csv?name=x", {}),
    ("/messages/columns", {"state": "yes"}),
    ("/search", {"text": "+8613112345678"}),
    ("/messages", {"number": "+8613112345678"}),
    ("/message-action", {"action": "cancel"}),
    ("/message-action/1", {}),
    ("/message/1", {}),
    ("/logout", {}),
]


@pytest.fixture
async def waiting(db) -> int:
    """A queued message in an app that is not paused."""
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    return await db.fetchval(
        "INSERT INTO dispatcher.message (recipient, template_id, params)"
        " VALUES ('+8613112345678', 'tpl', '{837465}') RETURNING id"
    )


async def untouched(db) -> bool:
    return await db.fetchval(
        "SELECT (SELECT count(*) FROM dispatcher.queue) = 1"
        " AND (SELECT paused_at IS NULL FROM dispatcher.app)"
        " AND NOT EXISTS (SELECT FROM dispatcher.audit)"
    )


@pytest.mark.usefixtures("waiting")
async def test_without_a_login_no_page_is_shown(client):
    for path in PAGES:
        page = await client.get("/console" + path)
        to = f"?{urlencode({'to': '/console' + path})}" if path else ""
        seen = (page.status, page.headers.get("Location"), page.text)
        assert seen == (303, "/console/login" + to, ""), path
        raw = await client.get("/console" + path, Accept="*/*")
        assert (raw.status, raw.text) == (401, "log in first\n"), path


@pytest.mark.usefixtures("waiting")
async def test_without_a_login_no_form_has_an_effect(client, db):
    for path, form in FORMS:
        answer = await client.post("/console" + path, {**form, "form_token": "0" * 64})
        assert answer.status == 401, path
        assert await untouched(db), path


async def test_a_login_leads_to_the_page_that_was_asked_for(client):
    page = "/console/messages?state=rejected&code=E200028"
    asked = await client.get(page)
    login = await client.get(asked.headers["Location"])
    assert f'name="to" value="{page}"' in unescape(login.text)
    form = {"token": "wrong", "actor": "Ana", "to": page}
    assert f'value="{page}"' in unescape((await client.post("/console/login", form)).text)
    done = await client.post("/console/login", {**form, "token": TOKEN})
    assert (done.status, done.headers["Location"]) == (303, page)
    again = await client.get(asked.headers["Location"])  # in another tab
    assert (again.status, again.headers["Location"]) == (303, page)


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/console", "//evil.example/console", "/\\evil.example", "/consolex",
        "/console/a\r\nSet-Cookie: a=b", "/console/\u202e", "javascript:alert(1)",
        "/console?" + "a" * 2000, "console", "", "/reports/x",
    ],
)  # fmt: skip
async def test_a_login_leads_to_pages_of_the_console_only(client, to):
    done = await client.post("/console/login", {"token": TOKEN, "actor": "Ana", "to": to})
    assert (done.status, done.headers["Location"]) == (303, "/console")
    there = await client.get(f"/console/login?to={quote(to)}")
    assert (there.status, there.headers["Location"]) == (303, "/console")


async def test_a_link_from_another_site_keeps_the_login(operator):
    page = "/console/messages?state=rejected"
    client, cookies = operator, operator.session.cookie_jar
    kept = [*cookies]
    cookies.clear()  # as browsers do: the cookie is for requests of the console's own pages
    answer = await client.get(page, Sec_Fetch_Site="cross-site")
    assert answer.status == 200
    (onward,) = re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    login = await client.get(unescape(onward), Sec_Fetch_Site="same-origin")
    assert "<h1>Log in</h1>" in login.text  # without one
    for cookie in kept:
        cookies.update_cookies({cookie.key: cookie.value}, URL(client.url))
    led = await client.get(unescape(onward), Sec_Fetch_Site="same-origin")
    assert (led.status, led.headers["Location"]) == (303, page)


ORIGIN = {"Sec_Fetch_Site": "same-origin"}
SUPPRESS = {
    "numbers": "+8613112345678\r\n+8613112345679",
    "reason": '<asked> "twice"',
    "ask": "yes",
}


async def test_a_form_after_the_end_of_a_login_keeps_its_content(client, db):
    client.headers |= {"Sec-Fetch-Site": "same-origin"}
    ended = await client.post("/console/actions/suppress", {**SUPPRESS, "form_token": "old"})
    assert ended.status == 401
    assert "Your login has ended" in ended.text
    assert hidden_fields(ended.text) == {**SUPPRESS, "form_token": ""}
    await client.log_in()
    refused = await client.post("/console/actions/suppress", hidden_fields(ended.text))
    assert refused.status == 403
    assert "send it again" in refused.text
    asked = await client.post("/console/actions/suppress", hidden_fields(refused.text))
    assert (asked.status, "Suppress 2 numbers?" in asked.text) == (200, True)
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 0
    done = await client.post("/console/actions/suppress", hidden_fields(asked.text))
    assert done.status == 303
    assert await db.fetchval("SELECT count(*) FROM dispatcher.suppression") == 2


def hidden_fields(text: str) -> dict[str, str]:
    """Return the hidden fields of the last form of a page."""
    form = text.rsplit('<form method="post" action="/console/actions/', 1)[1].partition("</form>")[
        0
    ]
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


LONG_FORMS = [
    ("a=&" * 60_000, {}),
    ("&".join(f"a{number}=1" for number in range(20_000)), {}),
    ("&".join(f"a{number}=1" for number in range(1_000)), {}),
    ("a=" + "x" * 20_000, {}),
    (gzip.compress(b"a=" + b"x" * 200_000), {"Content-Encoding": "gzip"}),
]


@pytest.mark.parametrize(("form", "headers"), LONG_FORMS, ids=range(len(LONG_FORMS)))
async def test_no_login_keeps_no_long_form(client, form, headers):
    """It would be read and written into a page for any client."""
    form_type = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    asked = {**client.headers, **form_type, "Sec-Fetch-Site": "same-origin"}
    for path, status in (("actions/suppress", 401), ("login", 403)):
        address = f"{client.url}/console/{path}"
        async with client.session.post(address, data=form, headers=asked) as answer:
            assert answer.status == status
            assert len(await answer.read()) < 8_000


async def test_a_form_of_too_many_fields_is_not_kept(operator):
    form = {"form_token": "old", **{f"a{number}": "1" for number in range(31)}}
    answer = await operator.post("/console/actions/pause", form, **ORIGIN)
    assert (answer.status, 'name="a1"' in answer.text) == (403, False)


async def test_a_kept_form_shows_no_number_and_no_text(client):
    """It may be on the screen for long; what is sent again stays in hidden fields."""
    client.headers |= {"Sec-Fetch-Site": "same-origin"}
    form = {
        "numbers": "+8613112345678\r\n+8613112345679\r\n13112345670",
        "number": "+8613112345671",
        "text": "Your code is 4711",
        "reason": "asked from 13112345672",
        "template_id": "tpl-1",
    }
    ended = await client.post("/console/actions/suppress", form)
    assert hidden_fields(ended.text) == {**form, "form_token": ""}
    shown = ended.text.partition("<dl")[2].partition("</dl>")[0]
    assert not re.search("1311234|4711", shown)
    for part in ("3 lines", "1 line", "asked from …", "tpl-1"):
        assert part in shown, part


async def test_nothing_is_kept_of_a_form_of_another_site(client, operator):
    for headers in (*FOREIGN, {}):  # without a word of the browser it may be one
        for form_token in ("", (await operator.get("/console/search")).form_token):
            form = {**SUPPRESS, "form_token": form_token if headers else ""}
            answer = await operator.post("/console/actions/suppress", form, **headers)
            assert (answer.status, "13112345678" in answer.text) == (403, False), headers
    client.session.cookie_jar.clear()
    for headers in (*FOREIGN, {}):
        answer = await client.post("/console/actions/suppress", SUPPRESS, **headers)
        assert (answer.status, "13112345678" in answer.text) == (401, False), headers


async def test_a_head_of_a_page_is_answered_like_the_page(console, operator):
    for path in ("", "/", "/messages", "/rules", "/audit"):
        async with operator.session.head(f"{console}/console{path}") as answer:
            assert answer.status == 200, path


async def test_a_wrong_token_does_not_log_in(client):
    for token in ("", "a", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 9, "\0"):
        answer = await client.log_in(token)
        assert answer.status == 403, token
        assert "Set-Cookie" not in answer.headers, token
        assert TOKEN not in answer.text, token


async def test_a_token_that_is_no_text_does_not_log_in(client):
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=raw_unicode_escape"}
    async with client.session.post(
        f"{client.url}/console/login", data=b"token=\\ud800&actor=Ana", headers=form
    ) as answer:
        assert answer.status == 403
        assert "This is not the token" in await answer.text()


async def test_wrong_tokens_are_limited_per_minute(client):
    for number in range(20):
        assert (await client.log_in(f"guess {number}")).status == 403
    assert (await client.log_in()).status == 429


async def test_a_login_needs_a_name(client):
    for actor in ("", "   ", "x" * 41, "a\x07b"):
        answer = await client.log_in(actor=actor)
        assert answer.status == 400, actor
        assert "Set-Cookie" not in answer.headers, actor


async def test_the_cookie_is_limited_to_the_console(client):
    plain = (await client.log_in()).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= {*plain.split("; ")}
    assert "Secure" not in plain
    https = (await client.log_in(X_Forwarded_Proto="https")).headers["Set-Cookie"]
    assert "Secure" in https.split("; ")


def forge(signed: str, **changes: str) -> str:
    """Return *signed* with another payload or timestamp, and the old signature."""
    payload, timestamp, signature = signed.rsplit(".", 2)
    return ".".join([changes.get("payload", payload), changes.get("at", timestamp), signature])


async def test_only_an_unchanged_cookie_is_a_session(client, monkeypatch):
    sessions = Sessions(TOKEN)
    good = sessions.new_cookie("Ana")
    session = sessions.read_cookie(good, now=time.time())
    root = base64_encode(base64_decode(good.split(".")[0]).replace(b"Ana", b"Root")).decode()
    later = base64_encode((session.expires_at + 60).to_bytes(4, "big")).decode()
    sha1 = URLSafeTimedSerializer(TOKEN, salt="dispatcher console: session")
    others = [
        forge(good, payload=root),
        forge(good, at=later),
        good[:-2] + ("0" if good[-2] != "0" else "1") + good[-1],
        Sessions("another-console-token").new_cookie("Ana"),
        *(
            sessions._cookies.dumps(each)
            for each in ([], ["Ana", "n"], ["Ana", "n", None, 1], "Ana")
        ),
        sessions.form_token(session),  # signed with the same token, for another purpose
        sha1.dumps(["Ana", session.nonce]),
        ".",
        "..",
        "x",
        "é.é",
        "a" * 5000,
    ]
    with monkeypatch.context() as patch:
        expired = int(time.time()) - SESSION_LIFETIME_SECONDS
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: expired)
        others.append(sessions.new_cookie("Ana"))
    cookie = f"dispatcher_session={good}"
    assert (await client.get("/console/search", Cookie=cookie)).status == 200
    for other in others:
        answer = await client.get("/console/search", Cookie=f"dispatcher_session={other}")
        assert answer.status in (303, 400), other[:80]


def test_cookies_and_form_tokens_expire():
    sessions, signed_at = Sessions(TOKEN), time.time()
    cookie = sessions.new_cookie("Ana")
    took = time.time() - signed_at
    session = sessions.read_cookie(cookie, now=signed_at)
    form_token = sessions.form_token(session)
    assert session.actor == ACTOR
    assert 0 <= session.expires_at - signed_at - SESSION_LIFETIME_SECONDS + 1 <= 2 + took
    for now, valid in ((session.expires_at - 1, True), (session.expires_at + 2, False)):
        assert (sessions.read_cookie(cookie, now=now) is not None) == valid
        assert sessions.is_form_token(session, form_token, now=now) == valid


def test_a_signature_is_sha256_of_a_key_of_its_own():
    sessions = Sessions(TOKEN)
    cookie = sessions.new_cookie("Ana")
    session = sessions.read_cookie(cookie, now=time.time())
    for signed in (cookie, sessions.form_token(session)):
        signature = base64_decode(signed.rsplit(".", 1)[1])
        assert len(signature) == hashlib.sha256().digest_size
    assert not sessions.is_form_token(session, cookie, now=time.time())
    assert sessions.read_cookie(cookie, now=time.time()).nonce == session.nonce
    assert sessions.read_cookie(sessions.new_cookie("Ana"), now=time.time()).nonce != session.nonce


FOREIGN = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
]


async def test_a_form_of_another_origin_is_refused(operator, db, waiting):
    for headers in FOREIGN:
        answer = await operator.act("cancel", {"ids": str(waiting)}, **headers)
        assert answer.status == 403, headers
        assert "Nothing was done" in answer.text, headers
        assert await untouched(db), headers


async def test_a_login_of_another_origin_is_refused(client):
    for headers in FOREIGN:
        answer = await client.log_in(**headers)
        assert answer.status == 403, headers
        assert "Set-Cookie" not in answer.headers, headers


async def test_a_form_of_an_earlier_login_is_refused(operator, db, waiting):
    stale = (await operator.get("/console/search")).form_token
    await operator.log_in(actor="Ben")
    for token in (stale, "", "0" * 64, "é"):
        form = {"ids": str(waiting), "form_token": token}
        answer = await operator.post("/console/actions/cancel", form)
        assert answer.status == 403
        assert "Nothing was done" in answer.text
    without = await operator.post("/console/actions/cancel", {"ids": str(waiting)})
    assert without.status == 403
    assert await untouched(db)


async def test_a_logout_ends_the_session(operator):
    form_token = (await operator.get("/console/search")).form_token
    assert (await operator.post("/console/logout", {"form_token": form_token})).status == 303
    assert (await operator.get("/console/search")).status == 303


async def test_every_answer_has_the_protective_headers(operator):
    for path in [*PAGES, "/login", "/static/console.css", "/static/none", "/message/9"]:
        if path == "/live":
            continue
        answer = await operator.get("/console" + path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == (
            "private, max-age=86400" if path.endswith(".css") else "no-store"
        )


async def test_pages_use_no_inline_scripts_or_other_servers(operator):
    for path in ["", "/problems", "/search", "/actions", "/actions/pause?app=default"]:
        text = (await operator.get("/console" + path)).text
        assert re.findall(r"<script(?![^>]* src=)", text) == []
        assert re.findall(r'\s(?:on\w+|style)="', text) == []
        sources = re.findall(r'\s(?:src|href|action)="([^"]*)"', text)
        assert [each for each in sources if not each.startswith(("/console", "#main"))] == []


async def test_without_a_token_the_console_stays_closed(client):
    async with serving("127.0.0.1", 0, closed_console_routes()) as (host, port):
        closed = Client(f"http://{host}:{port}", client.session)
        for path in ["", "/", "/login", "/search", "/static/console.css"]:
            answer = await closed.get("/console" + path)
            assert answer.status == 503
            assert "set DISPATCHER_CONSOLE_TOKEN" in answer.text
            assert "secrets.token_urlsafe()" in answer.text
        chinese = await closed.get("/console", Accept_Language="zh-CN")
        assert (chinese.status, chinese.headers["Content-Language"]) == (503, "zh-CN")
        assert "控制台未开放：请设置 DISPATCHER_CONSOLE_TOKEN" in chinese.text
        assert "secrets.token_urlsafe()" in chinese.text


async def test_a_form_that_does_not_arrive_is_not_waited_for(client, monkeypatch):
    async def content() -> AsyncIterator[bytes]:
        yield b"token="
        await asyncio.sleep(60)

    monkeypatch.setattr("dispatcher.console.forms.FORM_SECONDS", 0.1)
    async with asyncio.timeout(20):
        answer = await client.post(
            "/console/login", content(), Content_Type="application/x-www-form-urlencoded"
        )
    assert answer.status == 403
