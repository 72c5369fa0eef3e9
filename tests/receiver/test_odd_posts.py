"""Posts that are odd as HTTP, or are of another API: each is kept, or refused with its reason."""

import asyncio
import gzip
import json
import zlib

import pytest
from receiving_end import FORM, TOKEN, form, receiver, stored

from dispatcher.core.report import MAX_BYTES


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


async def test_fields_in_the_address_are_read_where_the_body_is_empty(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for query in ("smsMsgId=p1&status=DELIVRD", "a=b"):
            path = f"/reports/{TOKEN}?{query}"
            assert await receives.post(b"", path=path) == (200, "Success")
    assert await stored(db) == [("p1", 1, "DELIVRD")]
    assert await db.fetchval("SELECT body FROM dispatcher.unreadable_push") == b"a=b"


async def test_fields_in_the_address_are_read_where_the_body_is_a_line_end(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        for number, body in enumerate((b"\r\n", b" ", b"\0\n")):
            path = f"/reports/{TOKEN}?smsMsgId=p{number}&status=DELIVRD"
            assert await receives.post(body, path=path) == (200, "Success")
        assert (await receives.post(form("body"), path=path))[0] == 200
    assert await stored(db) == [
        ("body", 1, "DELIVRD"), *((f"p{number}", 1, "DELIVRD") for number in range(3)),
    ]  # fmt: skip


PACKED = {
    "gzip": gzip.compress(form()),
    "x-gzip": gzip.compress(form()),
    "GZIP": gzip.compress(form()) + b"\r\n",
    "deflate": zlib.compress(form()),
    "Deflate": zlib.compress(form())[2:-4],  # without its head, as some programs send it
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_packed_report_is_unpacked(dsn, db, tmp_path, encoding, chunked):
    assert await posted_raw(dsn, tmp_path, PACKED[encoding], encoding, chunked=chunked) == b"200"
    assert await stored(db) == [("p1", 1, "DELIVRD")]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "gzip, br", "x"])
async def test_a_plain_report_that_is_labelled_as_packed_is_kept(dsn, db, tmp_path, encoding):
    assert await posted_raw(dsn, tmp_path, form(), encoding) == b"200"
    assert await stored(db) == [("p1", 1, "DELIVRD")]


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", b"\x0b\x02\x80a=b\x03"), ("gzip", gzip.compress(form())[:-9])]
)
async def test_what_cannot_be_unpacked_is_kept_as_it_came(dsn, db, tmp_path, encoding, body):
    assert await posted_raw(dsn, tmp_path, body, encoding) == b"200"
    assert await stored(db) == []
    assert await db.fetchval("SELECT body FROM dispatcher.unreadable_push") == body


async def posted_raw(dsn, folder, body: bytes, encoding: str, *, chunked: bool = False) -> bytes:
    """Post *body* with a label of its encoding; return the status."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    if chunked:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with receiver(dsn, folder) as receives:
        host, port = receives.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /reports/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            f"Content-Encoding: {encoding}\r\n{length}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"}")
        writer.close()
    return answer.split()[1]


async def test_chunks_with_trailers_are_one_report(dsn, db, tmp_path):
    async with receiver(dsn, tmp_path) as receives:
        host, port = receives.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = form()
        writer.write(
            f"POST /reports/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".encode()
            + b"%x;a=b\r\n%s\r\n" % (20, body[:20])
            + b"%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body) - 20, body[20:])
        )
        answer = await reader.readuntil(b"}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert await stored(db) == [("p1", 1, "DELIVRD")]


@pytest.mark.parametrize(("label", "kept"), [(b"caf\xe9/\xff", "caf?/?"), (b"t/\xc3\xa9", "t/é")])
async def test_a_label_in_any_bytes_costs_no_push(dsn, db, tmp_path, label, kept):
    async with receiver(dsn, tmp_path) as receives:
        host, port = receives.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /reports/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n".encode()
        writer.write(head + b"Content-Type: " + label + b"\r\n\r\na=b")
        answer = await reader.readuntil(b"}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    row = await db.fetchrow("SELECT content_type, body FROM dispatcher.unreadable_push")
    assert tuple(row) == (kept, b"a=b")


async def test_thousands_of_tiny_reports_in_one_post_are_kept(dsn, db, tmp_path):
    reports = [{"smsMsgId": f"i{n}", "status": "D"} for n in range(7000)]
    body = json.dumps(reports, separators=(",", ":")).encode()
    assert len(body) < MAX_BYTES
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(body, "application/json") == (200, "Success")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.report") == 7000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/reports/{TOKEN}?smsMsgId=p1&status=DELIVRD", 405),
        ("PUT", f"/reports/{TOKEN}", 405),
        ("HEAD", f"/reports/{TOKEN}", 405),
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
        (json.dumps({"MsgId": "p1", "State": "DELIVRD"}).encode(), "application/json"),
        (b"<report><smsMsgId>p1</smsMsgId><status>DELIVRD</status></report>", "text/xml"),
        (b"smsMsgId=p1&amp;status=DELIVRD", FORM),
        (b"smsMsgId=p1&smsMsgId=p2&status=DELIVRD", FORM),
        (b"smsMsgId=p1&status=DELIVRD&status=UNDELIV", FORM),
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
