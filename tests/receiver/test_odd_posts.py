"""Posts that are odd as HTTP, or are of another API: each is kept, or refused with its reason."""

import gzip
import json

import pytest
from receiving_end import FORM, TOKEN, form, receiver, stored


@pytest.mark.parametrize(
    ("content_type", "headers", "path"),
    [
        ("application/x-www-form-urlencoded;charset=GBK", {}, ""),
        ("text/plain", {}, ""),
        ("application/octet-stream", {}, ""),
        ("application/json", {}, ""),  # what it is says the body
        (FORM, {"Content-Encoding": "gzip"}, ""),
        (FORM, {"Expect": "100-continue"}, ""),
        (FORM, {"Authorization": "SDK-HMAC-SHA256 Access=x,SignedHeaders=y,Signature=z"}, ""),
        (FORM, {}, "?x=1"),
    ],
)
async def test_a_report_is_kept_however_it_is_labelled(  # noqa: PLR0917
    dsn, db, tmp_path, content_type, headers, path
):
    body = gzip.compress(form()) if "Content-Encoding" in headers else form()
    async with receiver(dsn, tmp_path) as receives:
        posted = await receives.post(body, content_type, path=f"/reports/{TOKEN}{path}", **headers)
    assert posted == (200, "Success")
    assert await stored(db) == [("p1", 1, "DELIVRD")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/reports/{TOKEN}?smsMsgId=p1&status=DELIVRD", 405),
        ("PUT", f"/reports/{TOKEN}", 405),
        ("POST", f"/reports/{TOKEN}/", 404),
        ("POST", "/reports", 404),
        ("GET", f"/replies/{TOKEN}?from=%2B8615512345678&body=R", 405),
    ],
)
async def test_what_is_no_post_to_the_address_is_refused(  # noqa: PLR0917
    dsn, db, tmp_path, method, path, status
):
    async with (
        receiver(dsn, tmp_path) as receives,
        receives.session.request(method, receives.url + path, data=form()) as answer,
    ):
        assert answer.status == status
    assert await stored(db) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (
            b'--x\r\nContent-Disposition: form-data; name="smsMsgId"\r\n\r\np1\r\n--x--',
            "multipart/form-data; boundary=x",
        ),
        (json.dumps({"SmsMsgId": "p1", "Status": "DELIVRD"}).encode(), "application/json"),
        (b"", FORM),
    ],
)  # fmt: skip
async def test_a_post_of_another_api_is_kept_as_it_came(dsn, db, tmp_path, body, content_type):
    async with receiver(dsn, tmp_path) as receives:
        assert (await receives.post(body, content_type))[0] == 200
    assert await stored(db) == []
    assert await db.fetchval("SELECT body FROM dispatcher.unreadable_push") == body


async def test_a_code_of_the_platform_in_another_field_is_undelivered(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        await receives.post(b"smsMsgId=p1&status=RTE_ERR&orgCode=E200027")
    row = await db.fetchrow("SELECT status, state, org_code FROM dispatcher.report")
    assert tuple(row) == ("RTE_ERR", "undelivered", "E200027")
