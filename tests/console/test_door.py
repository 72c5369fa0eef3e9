"""Who has no token is shown nothing and does nothing, whatever he sends."""

import base64
import re
import time

import msgspec
import pytest
from visitor import TOKEN, Visitor

from dispatcher.console import closed_console_routes
from dispatcher.console.auth import LIFETIME, Session, Sessions
from dispatcher.service.http import serving

PAGES = [
    "",
    "/live",
    "/chart",
    "/trouble",
    "/find",
    "/message/1",
    "/batch/" + "0" * 32,
    "/rules",
    "/act",
    "/act/pause?app=default",
]
DEEDS = [
    ("/act/pause", {"app": "default"}),
    ("/act/resume", {"app": "default"}),
    ("/act/cancel", {"ids": "1"}),
    ("/act/requeue", {"ids": "1"}),
    ("/act/settle", {"token": "0" * 32, "how": "sent"}),
    ("/act/template", {"template_id": "t", "text": "${NUM_6}"}),
    ("/act/template-remove", {"template_id": "t"}),
    ("/find", {"text": "+8613112345678"}),
    ("/message/1", {}),
    ("/logout", {}),
]


@pytest.fixture
async def waiting(db) -> int:
    """A message that waits, in an app that runs."""
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
@pytest.mark.parametrize("path", PAGES)
async def test_without_a_login_no_page_is_shown(stranger, path):
    page = await stranger.get("/console" + path)
    assert (page.status, page.headers["Location"], page.text) == (303, "/console/login", "")
    raw = await stranger.get("/console" + path, Accept="*/*")
    assert (raw.status, raw.text) == (401, "log in first\n")


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize(("path", "form"), DEEDS)
async def test_without_a_login_nothing_is_done(stranger, db, path, form):
    answer = await stranger.post("/console" + path, {**form, "form_token": "0" * 64})
    assert answer.status == 401
    assert await untouched(db)


@pytest.mark.parametrize("token", ["", "a", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 9, "\0"])
async def test_a_wrong_token_opens_nothing(stranger, token):
    answer = await stranger.log_in(token)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers
    assert TOKEN not in answer.text


async def test_whoever_guesses_has_to_wait(stranger):
    for number in range(20):
        assert (await stranger.log_in(f"guess {number}")).status == 403
    assert (await stranger.log_in()).status == 429


@pytest.mark.parametrize("who", ["", "   ", "x" * 41, "a\x07b"])
async def test_a_login_says_who_it_is(stranger, who):
    answer = await stranger.log_in(who=who)
    assert answer.status == 400
    assert "Set-Cookie" not in answer.headers


async def test_the_cookie_is_for_nobody_else(stranger):
    plain = (await stranger.log_in()).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= {*plain.split("; ")}
    assert "Secure" not in plain
    https = (await stranger.log_in(X_Forwarded_Proto="https")).headers["Set-Cookie"]
    assert "Secure" in https.split("; ")


def forged(cookie: str, **changes: object) -> str:
    payload, _, signature = cookie.rpartition(".")
    fields = msgspec.json.decode(base64.urlsafe_b64decode(payload)) | changes
    return base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode() + "." + signature


async def test_a_changed_cookie_is_none(stranger):
    session = Session("Ana", int(time.time()) + 60, "nonce")
    good = Sessions(TOKEN).cookie(session)
    others = [
        forged(good, who="Root"),
        forged(good, until=session.until + LIFETIME),
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        Sessions("another-console-token").cookie(session),
        Sessions(TOKEN).cookie(Session("Ana", int(time.time()) - 1, "nonce")),
        ".",
        "x",
        "é.é",
        "a" * 5000,
    ]
    assert (await stranger.get("/console/find", Cookie=f"dispatcher_session={good}")).status == 200
    for cookie in others:
        answer = await stranger.get("/console/find", Cookie=f"dispatcher_session={cookie}")
        assert answer.status in (303, 400), cookie[:80]


FOREIGN = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_form_of_another_origin_does_nothing(operator, db, waiting, headers):
    answer = await operator.act("cancel", {"ids": str(waiting)}, **headers)
    assert answer.status == 403
    assert "Nothing was done" in answer.text
    assert await untouched(db)


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_login_of_another_origin_opens_nothing(stranger, headers):
    answer = await stranger.log_in(**headers)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_a_form_of_an_earlier_login_does_nothing(operator, db, waiting):
    stale = (await operator.get("/console/find")).form_token
    await operator.log_in(who="Ben")
    for token in (stale, "", "0" * 64, "é"):
        form = {"ids": str(waiting), "form_token": token}
        answer = await operator.post("/console/act/cancel", form)
        assert answer.status == 403
        assert "Nothing was done" in answer.text
    without = await operator.post("/console/act/cancel", {"ids": str(waiting)})
    assert without.status == 403
    assert await untouched(db)


async def test_after_a_logout_nothing_is_shown(operator):
    form_token = (await operator.get("/console/find")).form_token
    assert (await operator.post("/console/logout", {"form_token": form_token})).status == 303
    assert (await operator.get("/console/find")).status == 303


async def test_every_answer_is_armoured(operator):
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


async def test_pages_load_nothing_from_elsewhere_and_hold_no_script(operator):
    for path in ["", "/trouble", "/find", "/act", "/act/pause?app=default"]:
        text = (await operator.get("/console" + path)).text
        assert re.findall(r"<script(?![^>]* src=)", text) == []
        assert re.findall(r'\s(?:on\w+|style)="', text) == []
        sources = re.findall(r'\s(?:src|href|action)="([^"]*)"', text)
        assert [each for each in sources if not each.startswith(("/console", "#main"))] == []


async def test_without_a_token_the_console_stays_closed(stranger):
    async with serving("127.0.0.1", 0, closed_console_routes()) as (host, port):
        visitor = Visitor(f"http://{host}:{port}", stranger.session)
        for path in ["", "/", "/login", "/find", "/static/console.css"]:
            answer = await visitor.get("/console" + path)
            assert answer.status == 503
            assert "set DISPATCHER_CONSOLE_TOKEN" in answer.text
