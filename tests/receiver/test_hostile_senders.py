"""What anybody on the internet may try: none of it takes the receiver down, or costs it much."""

import asyncio
import gzip
import resource
import zlib
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from receiving_end import FORM, TOKEN, form, receiver, stored

from dispatcher.service.http import serving

PATH = f"/reports/{TOKEN}".encode()
HEAD = b"Host: x\r\nContent-Type: " + FORM.encode() + b"\r\n"
MEGABYTES = 10


async def said(url: str, *parts: bytes) -> bytes:
    """Send *parts* as they are, and return the first line of the answer; empty if there is none."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def chunked(*chunks: bytes) -> bytes:
    """Encode a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def post(body: bytes, *headers: bytes, path: bytes = PATH) -> bytes:
    """Return a whole request."""
    more = b"".join(header + b"\r\n" for header in headers)
    return b"POST " + path + b" HTTP/1.1\r\n" + HEAD + more + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


GOOD = form()
BOMB = gzip.compress(b"a" * (MEGABYTES << 20))
HEADLESS = zlib.compress(b"a" * (MEGABYTES << 20))[2:-4]
DEFLATED = zlib.compress(b"a" * (MEGABYTES << 20))
CASES = {
    "chunks are taken": (post(chunked(GOOD[:7], GOOD[7:]), CHUNKED), b"200"),
    "chunks of one byte": (
        post(chunked(*(bytes([one]) for one in GOOD)), CHUNKED),
        b"200",
    ),
    "ten megabytes in chunks": (post(chunked(*[b"a" * 65536] * 160), CHUNKED), b"413"),
    "ten megabytes in chunks of a byte": (post(b"1\r\na\r\n" * 300_000, CHUNKED), b"413"),
    "a chunk of no size": (post(b"zz\r\nabc\r\n", CHUNKED), b"400"),
    "a chunk of a negative size": (post(b"-5\r\nabc\r\n", CHUNKED), b"400"),
    "a chunk that is cut": (post(b"fff\r\nabc", CHUNKED, b"Connection: close"), None),
    "both lengths": (post(chunked(GOOD), CHUNKED, b"Content-Length: 5"), b"400"),
    "two lengths": (post(GOOD, sized(GOOD), b"Content-Length: 5"), b"400"),
    "a length of nonsense": (post(GOOD, b"Content-Length: -1"), b"400"),
    "a bomb in gzip": (post(BOMB, sized(BOMB), b"Content-Encoding: gzip"), b"413"),
    "a bomb in deflate": (post(DEFLATED, sized(DEFLATED), b"Content-Encoding: deflate"), b"413"),
    "a bomb in deflate without a head": (
        post(HEADLESS, sized(HEADLESS), b"Content-Encoding: deflate"),
        b"413",
    ),
    "gzip that is none": (post(GOOD, sized(GOOD), b"Content-Encoding: gzip"), b"200"),
    "a long header": (post(GOOD, sized(GOOD), b"X: " + b"a" * 100_000), b"400"),
    "many headers": (post(GOOD, sized(GOOD), *[b"X%d: a" % n for n in range(30_000)]), b"400"),
    "a path of bytes": (post(GOOD, sized(GOOD), path=b"/reports/\xff\xfe\x80"), None),
    "a path of a lone surrogate": (post(GOOD, sized(GOOD), path=b"/reports/%ED%A0%80"), b"404"),
    "a path that leaves": (post(GOOD, sized(GOOD), path=PATH + b"/../x"), b"404"),
    "a slash in the token": (post(GOOD, sized(GOOD), path=b"/reports/a%2Fb"), b"404"),
    "a long path": (post(GOOD, sized(GOOD), path=b"/reports/" + b"a" * 7000), b"404"),
    "another method": (b"PUT " + PATH + b" HTTP/1.1\r\n" + HEAD + b"\r\n", b"405"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, None),
    "another version": (b"POST " + PATH + b" HTTP/9.9\r\n\r\n", b"400"),
}


CUT = "a chunk that is cut"  # ends when the receiver gives up waiting for the rest, after 15 s


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == CUT else case for case in CASES]
)
async def test_it_is_refused_and_the_next_is_served(dsn, db, tmp_path, case):
    request, status = CASES[case]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with receiver(dsn, tmp_path) as receives:
        line = await said(receives.url, request)
        assert not line.split()[1:2] or line.split()[1] < b"500"
        if status is not None:
            assert line.split()[1:2] == [status], line
        assert (await receives.post(form("after")))[0] == 200
    expected = [("after", 1, "DELIVRD")] + ([("p1", 1, "DELIVRD")] if status == b"200" else [])
    assert await stored(db) == expected
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (MEGABYTES << 10) * 3


async def test_who_sends_no_request_does_not_stay(dsn, tmp_path, monkeypatch):
    monkeypatch.setattr("dispatcher.service.http.SILENT_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("dispatcher.service.http.SWEEP_INTERVAL_SECONDS", 0.05)
    async with receiver(dsn, tmp_path) as receives:
        at = urlsplit(receives.url)
        silent = await asyncio.open_connection(at.hostname, at.port)
        slow = await asyncio.open_connection(at.hostname, at.port)
        slow[1].write(b"POST /reports/x HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        for reader, writer in (silent, slow):
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()
        assert (await receives.post(form()))[0] == 200


async def test_who_reads_no_answer_does_not_hold_it_for_ever(monkeypatch):
    monkeypatch.setattr("dispatcher.service.http.UNREAD_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("dispatcher.service.http.SWEEP_INTERVAL_SECONDS", 0.05)
    ended = asyncio.Event()

    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(bytes(64 << 20))
        finally:
            ended.set()
        return response

    async def short(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="short\n")

    routes = [web.get("/long", long), web.get("/short", short)]
    async with serving("127.0.0.1", 0, routes) as (host, port):
        stays = await asyncio.open_connection(host, port)
        _reader, unread = await asyncio.open_connection(host, port)
        for _again in range(2):
            stays[1].write(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(20):
                await stays[0].readuntil(b"short\n")
                unread.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
                await ended.wait()
        for writer in (stays[1], unread):
            writer.close()


async def test_who_has_been_answered_may_stay(dsn, tmp_path, monkeypatch):
    monkeypatch.setattr("dispatcher.service.http.SILENT_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("dispatcher.service.http.SWEEP_INTERVAL_SECONDS", 0.02)
    async with receiver(dsn, tmp_path) as receives:
        at = urlsplit(receives.url)
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        for name in ("p1", "p2"):
            writer.write(post(form(name), sized(form(name))))
            async with asyncio.timeout(20):
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b"}")
            other = await asyncio.open_connection(at.hostname, at.port)
            async with asyncio.timeout(20):  # until one that came later had to go
                assert await other[0].read() == b""
            other[1].close()
        writer.close()
