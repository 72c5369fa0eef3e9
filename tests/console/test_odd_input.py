"""Anything in an address, a form or a cookie: the console says what is wrong, and does not fail."""

import asyncio
from itertools import islice
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

ODD = (
    "\x00", "a\x00b", "\uff11\uff12\uff13", "\u00b2", "9" * 18, "9" * 40, "-1", "0", "1e9", "NaN",
    "%", "\\", "'", "<b>", "\u202e", "\u200b", "0001-01-01T00:00", "9999-12-31T23:59",
    "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "2026-02-30T00:00", "2026-W01-1",
    "2026-11-29", "+", "+86", "131", "a" * 300, "0" * 32, "{", "名" * 120, "1.2.3", "5.",
    "99999999999999999999.0",
)  # fmt: skip
RAW = ("%ff", "%ed%a0%80", "%00", "%")  # of an address; not UTF-8
READ = {
    "messages": (
        "state", "code", "app", "template", "campaign", "same_number_as", "reference", "prefix",
        "last_digits", "since", "until", "position",
    ),
    "audit": ("actor", "action", "target", "since", "until", "before"),
    "audit.csv": ("actor", "since"),
    "campaigns": ("before", "name"),
    "campaign": ("name",),
    "campaign.csv": ("name",),
    "codes": ("q",),
    "lists": ("as",),
    "rules": ("template", "app", "q"),
    "done": ("result",),
    "login": ("to",),
    "": ("all",),
    "chart": ("app", "span"),
    "actions/pause": ("app",),
    "actions/campaign-cancel": ("campaign",),
    "actions/cancel": ("ids",),
    "actions/settle": ("token", "how"),
    "actions/limits": ("app",),
}  # fmt: skip
PATHS = ("message/", "batch/", "message-action/", "lists/", "actions/", "language/", "static/", "")
FORMS = {
    "search": ("text",),
    "messages": ("number", "state"),
    "messages/columns": ("state",),
    "message-action": ("since", "app", "code", "reference", "prefix", "campaign"),
    "rules": ("number",),
    "actions/pause": ("app", "reason"),
    "actions/resume": ("app",),
    "actions/cancel": ("ids",),
    "actions/settle": ("token",),
    "actions/campaign-pause": ("campaign", "reason"),
    "actions/template": ("template_id", "text", "kinds", "note", "promotional"),
    "actions/template-remove": ("template_id",),
    "actions/limits": (
        "app", "per_minute", "per_day", "same_per_hour", "daily_limit", "quiet_from", "quiet_until",
    ),
    "actions/price": ("country", "price", "currency"),
    "actions/suppress": ("numbers", "reason", "app", "promotional"),
    "actions/unsuppress": ("numbers",),
}  # fmt: skip
# What the other fields of a form are, so that the odd one is what decides.
USUAL = {
    "actions/messages": {},
    "message-action": {"action": "cancel"},
    "actions/settle": {"how": "sent"},
    "actions/template": {"template_id": "t", "text": "a"},
    "actions/limits": {"app": "shop", "per_day": "1"},
    "actions/price": {"country": "CN", "price": "1", "currency": "CNY"},
    "actions/suppress": {"numbers": "+8613112345678"},
}


@pytest.fixture
async def answered(console, operator):
    """Ask for addresses, sixteen at a time; return those that failed."""

    async def all_of(asked) -> list[str]:
        failed = []
        asked = iter(asked)
        while piece := list(islice(asked, 16)):
            found = await asyncio.gather(
                *(_ask(operator.session, console, *each) for each in piece)
            )
            failed += [each for each in found if each]
        return failed

    return all_of


async def _ask(session, console, address: str, form=None) -> str | None:
    try:
        async with session.request(
            "GET" if form is None else "POST",
            URL(f"{console}/console/{address}", encoded=True),
            data=form,
            headers={"Accept": "text/html"},
            allow_redirects=False,
        ) as answer:
            await answer.read()
            return f"{answer.status} {address} {form or ''}" if answer.status >= 500 else None
    except aiohttp.ClientError as error:
        return f"{error!r} {address} {form or ''}"


@pytest.mark.slow
async def test_no_address_makes_a_page_fail(db, answered):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't')"
    )
    odd = [*map(quote, ODD), *RAW]
    asked = [
        (f"{page}?{name}={each}",) for page, names in READ.items() for name in names for each in odd
    ]
    asked += [(f"{path}{each}",) for path in PATHS for each in odd]
    assert await answered(asked) == []


@pytest.mark.slow
async def test_no_form_makes_a_page_fail(db, operator, answered):
    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('shop')")
    token = (await operator.get("/console/search")).form_token
    asked = [
        (page, {"form_token": token, **USUAL.get(page, {}), **ask, name: each})
        for page, names in FORMS.items()
        for name in names
        for each in ODD
        for ask in ({}, {"ask": "yes"})
    ]
    assert await answered(asked) == []


@pytest.mark.parametrize("cookie", ["dispatcher_language", "dispatcher_columns", "other"])
async def test_no_cookie_makes_a_page_fail(console, operator, cookie):
    for each in ODD:
        headers = {"Cookie": f"{cookie}={quote(each)}", "Accept": "text/html"}
        async with operator.session.get(f"{console}/console/messages", headers=headers) as answer:
            assert answer.status < 500, each


@pytest.mark.parametrize(
    "address",
    ["messages?app=%00", "campaign?name=a%00b", "message/%00", "codes?q=%00"],
)
async def test_an_address_with_a_nul_has_no_page(operator, address):
    assert (await operator.get(f"/console/{address}")).status == 404


async def test_a_form_with_a_nul_does_nothing(operator, db):
    answer = await operator.act("pause", {"app": "shop", "reason": "a\x00b"})
    assert answer.status == 403
    assert await db.fetchval("SELECT count(*) FROM dispatcher.audit") == 0


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00+14:00", "9999-12-31T23:59", "9999-12-31T23:59-14:00"]
)
async def test_a_time_beyond_calendars_is_refused(operator, time):
    for page in ("messages", "audit"):
        answer = await operator.get(f"/console/{page}?since={quote(time)}")
        assert answer.status == 400
        assert "Write times as" in answer.text


EVIL = "<img/src=x/onerror=alert(1)>`<b>\"'"
STORED = """
    INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code, pause_reason)
        VALUES ('shop', now(), EVIL, EVIL, EVIL);
    INSERT INTO dispatcher.message (recipient, template_id, params, reference, campaign, app)
        VALUES ('+8613112345678', left(EVIL, 32), ARRAY[EVIL], EVIL, EVIL, 'shop');
    INSERT INTO dispatcher.message (recipient, template_id, signature, sender, reference)
        VALUES ('+8613112345679', 't', left(EVIL, 32), '<b>', EVIL);
    UPDATE dispatcher.campaign
        SET file = EVIL, created_by = EVIL, changed_by = EVIL, changed_at = now(), reason = EVIL;
    INSERT INTO dispatcher.batch (token, app, worker, message_ids, attempts, state, bytes,
        unsure_at, code, description) VALUES ('00000000000000000000000000000000',
        'shop', 1, '{2}', '{1}', 'unsure', 1, now(), EVIL, EVIL);
    INSERT INTO dispatcher.event_count (minute, app, event, code, count)
        VALUES (date_trunc('minute', now()), 'shop', 'rejected', EVIL, 100);
    INSERT INTO dispatcher.report (provider_id, status, state, recipient)
        VALUES (EVIL, EVIL, 'delivered', EVIL);
    INSERT INTO dispatcher.unmatched_report (provider_id, segment, reason) VALUES (EVIL, 1, EVIL);
    INSERT INTO dispatcher.unreadable_push (digest, reason, content_type, body)
        VALUES ('d', EVIL, EVIL, '');
    INSERT INTO dispatcher.template (template_id, kinds, note, text)
        VALUES (left(EVIL, 32), '{NUM_6}', EVIL, EVIL);
    INSERT INTO dispatcher.suppression (recipient, reason, source)
        VALUES ('+8613112345678', EVIL, EVIL);
    INSERT INTO dispatcher.price VALUES ('CN', 1, left(EVIL, 8));
    INSERT INTO dispatcher.audit (actor, action, target, detail, result)
        VALUES (EVIL, EVIL, EVIL, EVIL, EVIL);
    INSERT INTO dispatcher.worker (host, pid, version, apps, lease)
        VALUES (EVIL, 1, EVIL, ARRAY[EVIL], '1 minute');
    INSERT INTO dispatcher.list_upload (created_by, name, options, state, error)
        VALUES (EVIL, EVIL, '{}', 'failed', EVIL);
    INSERT INTO dispatcher.message_action
        (created_by, action, filter, address, counts, messages, targets, started_by, started_at)
        VALUES (EVIL, 'cancel', EVIL, EVIL, '[]', 0, '{}', EVIL, now());
"""
NAME = quote(EVIL)
PAGES = (
    "", "/problems", "/problems/unreadable", "/messages", "/campaigns", f"/campaign?name={NAME}",
    f"/messages?app={NAME}&reference={NAME}&template={NAME}", f"/codes?q={NAME}", "/rules",
    f"/rules?template={NAME}&app={NAME}", "/actions", f"/audit?actor={NAME}", "/lists", "/lists/1",
    "/message/1", "/message/2", f"/batch/{'0' * 32}", "/message-action/1", "/delivery",
    f"/actions/pause?app=shop&reason={NAME}", f"/actions/campaign-cancel?campaign={NAME}",
)  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh-CN"])
async def test_no_stored_text_becomes_markup(operator, db, language):
    literal = await db.fetchval("SELECT quote_literal($1::text)", EVIL)
    await db.execute(STORED.replace("EVIL", literal))
    for page in PAGES:
        answer = await operator.get(f"/console{page}", **{"Accept-Language": language})
        assert answer.status == 200, page
        assert "<img" not in answer.text, page
        assert "<b>" not in answer.text, page
    unknown = await operator.get(f"/console/actions/pause?app={NAME}")
    assert (unknown.status, "<img" in unknown.text) == (400, False)
    page = await operator.get("/console/message/1")
    revealed = await operator.post(
        "/console/message/1", {"form_token": page.form_token, "raw": "yes"}
    )
    assert "<img" not in revealed.text


@pytest.mark.parametrize(
    ("action", "form"),
    [
        ("campaign-pause", {"campaign": "x" * 101}),
        ("settle", {"token": "0" * 65, "how": "sent"}),
        ("template-remove", {"template_id": "x" * 33}),
        ("limits", {"app": "x" * 64}),
    ],
)
async def test_a_name_that_is_too_long_is_no_address(operator, action, form):
    token = (await operator.get("/console/search")).form_token
    for ask in ({}, {"ask": "yes"}):
        sent = {"form_token": token, **form, **ask}
        answer = await operator.post(f"/console/actions/{action}", sent)
        assert (answer.status, "has more than" in answer.text) == (400, True)


async def test_the_longest_names_have_a_result(operator):
    token = (await operator.get("/console/search")).form_token
    for action, form in (
        ("campaign-pause", {"campaign": "\U0001f600" * 100}),
        ("settle", {"token": "0" * 64, "how": "sent"}),
        ("template-remove", {"template_id": "名" * 32}),
    ):
        answer = await operator.post(f"/console/actions/{action}", {"form_token": token, **form})
        assert (answer.status, len(answer.headers["Location"]) < 2000) == (303, True)
        assert (await operator.get(answer.headers["Location"])).status == 200
