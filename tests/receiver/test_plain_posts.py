"""Plain posts are answered without aiohttp; everything else is aiohttp's."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from dispatcher.receiver import plain_posts as module
from dispatcher.receiver.plain_posts import Answer, DirectRoute, read_headers
from dispatcher.service.http import serving

PATH = "/reports/secret"
HEADERS = b"Host: x\r\nContent-Type: text/plain\r\n"


def post(body: bytes, headers: bytes = HEADERS, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"POST {PATH} HTTP/1.1\r\n".encode() + headers + b"Content-Length: %d\r\n\r\n" % size + body
    )


class Echo:
    """Answers each post with the start of its body; some only once they are released."""

    def __init__(self) -> None:
        self.direct: list[bytes] = []
        self.begun = asyncio.Event()
        self.released = asyncio.Event()

    async def answer(self, request) -> Answer:
        self.direct.append(request.body)
        self.begun.set()
        if request.body.startswith(b"wait"):
            await self.released.wait()
        if request.body == b"fail":
            raise ZeroDivisionError
        return Answer(200, b'{"%s"}' % request.body[:20])

    async def otherwise(self, request: web.Request) -> web.Response:
        return web.Response(body=b'{"aiohttp %s"}' % await request.read())


@asynccontextmanager
async def server(echo: Echo):
    route = DirectRoute([PATH], echo.answer, otherwise=web.post("/reports/{t}", echo.otherwise))
    async with serving("127.0.0.1", 0, [route]) as (host, port):
        yield host, port


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status and the body of the next answer."""
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split()[1], await reader.readuntil(b"}")


async def test_plain_posts_do_not_pass_through_aiohttp():
    echo = Echo()
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        for body in (b"1", b"22"):
            writer.write(post(body))
            assert await answer(reader) == (b"200", b'{"%s"}' % body)
        writer.close()
    assert echo.direct == [b"1", b"22"]


async def test_an_answer_is_whole_http():
    async with server(Echo()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"1"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        writer.close()
    assert head[0] == "HTTP/1.1 200 OK"
    assert {"Content-Type: application/json", "Content-Length: 5"} < set(head)
    assert any(line.startswith("Date: ") and line.endswith(" GMT") for line in head)


async def test_a_body_may_come_after_its_head(monkeypatch):
    monkeypatch.setattr(module, "BODY_WAIT_SECONDS", 60.0)
    echo = Echo()
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"", length=6))
        for part in (b"ab", b"cd", b"ef"):
            await asyncio.sleep(0.02)  # another segment of TCP, as a client in Java sends it
            writer.write(part)
        assert await answer(reader) == (b"200", b'{"abcdef"}')
        writer.close()
    assert echo.direct == [b"abcdef"]


async def test_posts_that_come_together_are_answered_in_order():
    echo = Echo()
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"wait 1") + post(b"2") + post(b"3"))
        async with asyncio.timeout(20):
            await echo.begun.wait()
        assert echo.direct == [b"wait 1"]
        echo.released.set()
        assert [(await answer(reader))[1] for _ in range(3)] == [b'{"wait 1"}', b'{"2"}', b'{"3"}']
        writer.close()


async def test_an_odd_request_is_handed_over_from_its_first_byte():
    echo = Echo()
    chunked = (
        f"POST {PATH} HTTP/1.1\r\n".encode()
        + HEADERS
        + b"Transfer-Encoding: chunked\r\n\r\n3\r\nodd\r\n0\r\n\r\n"
    )
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"1") + chunked + post(b"2"))
        bodies = [(await answer(reader))[1] for _ in range(3)]
        writer.close()
    assert bodies == [b'{"1"}', b'{"aiohttp odd"}', b'{"aiohttp 2"}']


async def test_another_path_is_handed_over():
    async with server(Echo()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"1").replace(b"secret", b"secreT"))
        assert (await answer(reader))[1] == b'{"aiohttp 1"}'
        writer.close()


def noted(monkeypatch, name: str) -> asyncio.Event:
    """Return an event that is set once a connection has done this."""
    done, really = asyncio.Event(), getattr(module.DirectConnection, name)

    def note(self, *arguments):
        really(self, *arguments)
        done.set()

    monkeypatch.setattr(module.DirectConnection, name, note)
    return done


async def test_a_body_that_does_not_come_is_handed_over(monkeypatch):
    monkeypatch.setattr(module, "BODY_WAIT_SECONDS", 0.05)
    handed = noted(monkeypatch, "_hand_over")
    echo = Echo()
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"ab", length=4))
        await handed.wait()
        writer.write(b"cd")
        assert (await answer(reader))[1] == b'{"aiohttp abcd"}'
        writer.close()


async def test_a_post_that_fails_is_no_success():
    async with server(Echo()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"fail"))
        assert (await answer(reader))[0] == b"500"
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"1"))
        assert (await answer(reader))[0] == b"200"
        writer.close()


async def test_a_stop_waits_for_the_post_that_is_stored(monkeypatch):
    monkeypatch.setattr("dispatcher.service.http.DRAIN_TIMEOUT_SECONDS", 60.0)
    echo = Echo()
    async with asyncio.timeout(90):
        async with server(echo) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            idle, idle_writer = await asyncio.open_connection(host, port)
            writer.write(post(b"wait"))
            await echo.begun.wait()
            asyncio.get_running_loop().call_later(0.2, echo.released.set)
        assert await answer(reader) == (b"200", b'{"wait"}')
        assert await reader.read() == b""
        assert await idle.read() == b""
        writer.close()
        idle_writer.close()


async def test_who_does_not_wait_for_answers_is_not_read():
    echo = Echo()
    many = 150  # of 64 KiB: more than the buffers of both sockets
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"wait") + post(b"a" * 65_536) * many)
        await asyncio.sleep(0.5)
        unread = writer.transport.get_write_buffer_size()
        assert unread > 65_536 * many // 4
        echo.released.set()
        async with asyncio.timeout(60):
            for _ in range(many + 1):
                assert (await answer(reader))[0] == b"200"
        writer.close()


async def test_posts_are_not_read_faster_than_they_are_answered():
    echo, made = Echo(), 0
    answered = 150

    async def some(_request) -> Answer:
        nonlocal made
        made += 1
        if made == answered:
            echo.begun.set()
            await echo.released.wait()
        return Answer(200, b"{}")

    echo.answer = some
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        one = post(b"a" * 1000)
        many = 42_000_000 // len(one)
        writer.write(one * many)
        async with asyncio.timeout(20):
            await echo.begun.wait()
        await asyncio.sleep(0.2)
        assert writer.transport.get_write_buffer_size() > 24_000_000  # sockets take up to 10 MB
        echo.released.set()
        async with asyncio.timeout(60):
            for _ in range(1000):
                assert (await answer(reader))[0] == b"200"
        writer.transport.abort()


async def test_the_largest_posts_that_come_together_are_answered():
    async with server(Echo()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"a" * module.MAX_PLAIN_BODY_BYTES) * 20)
        async with asyncio.timeout(20):
            for _ in range(20):
                assert (await answer(reader))[0] == b"200"
        writer.close()


BIG = b'{"%s"}' % (b"a" * 65_536)
MANY = 400  # answers of 64 KiB: more than the buffers of both sockets


async def big_answer(_request) -> Answer:
    return Answer(200, BIG)


async def test_answers_that_are_not_read_do_not_gather():
    echo, made = Echo(), 0

    async def count(request) -> Answer:
        nonlocal made
        made += 1
        return await big_answer(request)

    echo.answer = count
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"") * MANY)
        seen = -1
        while seen != made:
            seen = made
            await asyncio.sleep(0.2)
        assert 0 < made < MANY // 2
        async with asyncio.timeout(60):
            for _ in range(MANY):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                await reader.readexactly(len(BIG))
        assert made == MANY
        writer.close()


async def test_who_reads_no_answers_for_long_is_cut_off(monkeypatch):
    monkeypatch.setattr(module, "UNREAD_ANSWERS_SECONDS", 0.1)
    echo = Echo()
    echo.answer = big_answer
    async with server(echo) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(post(b"") * MANY)
        for _ in range(100):  # the server has its turns, also on a machine that stood still
            await asyncio.sleep(0.01)
        got = 0
        with suppress(ConnectionResetError):
            async with asyncio.timeout(20):
                while data := await reader.read(1 << 20):
                    got += len(data)
        assert got < MANY * len(BIG)
        writer.close()


@pytest.mark.parametrize("seconds", [10.0, 1.0])
async def test_a_stop_waits_for_a_body_on_its_way(monkeypatch, seconds):
    monkeypatch.setattr(module, "BODY_WAIT_SECONDS", seconds)
    monkeypatch.setattr("dispatcher.service.http.DRAIN_TIMEOUT_SECONDS", 60.0)
    read = noted(monkeypatch, "data_received")
    async with asyncio.timeout(90):
        async with server(Echo()) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(post(b"ab", length=4))
            await read.wait()
            asyncio.get_running_loop().call_later(0.2, writer.write, b"c")
            asyncio.get_running_loop().call_later(1.5, writer.write, b"d")
        assert await answer(reader) == (b"200", b'{"abcd"}')
        assert await reader.read() == b""
        writer.close()


async def test_a_silent_connection_is_closed(monkeypatch):
    monkeypatch.setattr("dispatcher.service.http.SILENT_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("dispatcher.service.http.SWEEP_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 3.0)
    loop = asyncio.get_running_loop()
    async with server(Echo()) as (host, port):
        silent, silent_writer = await asyncio.open_connection(host, port)
        reader, writer = await asyncio.open_connection(host, port)
        began = loop.time()
        writer.write(post(b"1"))
        assert (await answer(reader))[0] == b"200"
        async with asyncio.timeout(20):
            assert await silent.read() == b""
            assert await reader.read() == b""
        assert loop.time() - began >= 2.9  # the one that was answered may stay longer
        writer.close()
        silent_writer.close()


PLAIN = b"Host: x\r\nContent-Length: 5\r\n"


def test_a_plain_head_is_read():
    head = PLAIN + b"X-Sdk-Date: \t20261129T120000Z \r\nEmpty:\r\nconnection: Keep-Alive\r\n"
    assert read_headers(head) == {
        "host": "x",
        "content-length": "5",
        "x-sdk-date": "20261129T120000Z",
        "empty": "",
        "connection": "Keep-Alive",
    }


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        PLAIN + b"Content-Length: 5\r\n",
        PLAIN + b"content-length: 6\r\n",
        PLAIN + b"Transfer-Encoding: chunked\r\n",
        PLAIN + b"transfer-encoding: identity\r\n",
        PLAIN + b"Content-Encoding: gzip\r\n",
        PLAIN + b"Expect: 100-continue\r\n",
        PLAIN + b"Upgrade: h2c\r\n",
        PLAIN + b"Connection: close\r\n",
        PLAIN + b"Connection: keep-alive, upgrade\r\n",
        PLAIN + b"X: a\r\n folded\r\n",
        PLAIN + b"X : a\r\n",
        PLAIN + b": a\r\n",
        PLAIN + b"X\r\n",
        PLAIN + b"X: a\nTransfer-Encoding: chunked\r\n",
        PLAIN + b"X: a\rTransfer-Encoding: chunked\r\n",
        PLAIN + b"X: \0\r\n",
        PLAIN + "X: é\r\n".encode(),
        PLAIN + b"X: a",
        b"Host: x\r\nContent-Length: -5\r\n",
        b"Host: x\r\nContent-Length: +5\r\n",
        b"Host: x\r\nContent-Length: 5, 5\r\n",
        b"Host: x\r\nContent-Length: 0x5\r\n",
        b"Host: x\r\nContent-Length: 262145\r\n",
        b"Host: x\r\nContent-Length: 00000000005\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_aiohttp(head):
    assert read_headers(head) is None
