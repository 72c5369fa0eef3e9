"""Answers that are odd as HTTP: whatever is whole is read, and nothing is posted twice."""

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import pytest

from dispatcher.core.message import Answer, NoReply, Reply
from dispatcher.core.signing import AppKey
from dispatcher.provider.client import Account, Client

NUMBER = "+8613112345678"
TAKEN = {"originTo": NUMBER, "status": "000000", "smsMsgId": "id_1"}
BODY = json.dumps({"code": "000000", "description": "Success", "result": [TAKEN]}).encode()
PACKED = gzip.compress(BODY)
AT_ONCE = 32


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, length, b"", body])


READ = {
    "gzip": whole(PACKED, b"Content-Encoding: gzip"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(BODY), BODY),
    "HTTP/1.0 without a length": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(BODY),
    "called HTML in GBK": whole(BODY, b"Content-Type: text/html;charset=GBK"),
    "202": whole(BODY, status=b"202 Accepted"),
    "500 with results": whole(BODY, status=b"500 Internal Server Error"),
}
UNREAD = {
    "20 bytes missing": whole(BODY)[:-20],
    "says gzip and is plain": whole(BODY, b"Content-Encoding: gzip"),
    "not HTTP": b"ICY 200 OK\r\n\r\n" + BODY,
    "nothing": b"",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a header of 20 KB": whole(BODY, b"X: " + b"x" * 20_000),
    "half a status line": b"HTTP/1.1 2",
}


@asynccontextmanager
async def answering(*answers: bytes):
    """Give the address of a server that answers with these in turn, and the heads of requests.

    The last answer is repeated.
    """
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        requests.append(head)
        writer.write(answers[min(len(requests), len(answers)) - 1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", requests


def client_of(url: str, **more) -> Client:
    account = Account(url, AppKey("key", "secret"), timeout=60.0, connect_timeout=60.0, **more)
    return Client(account, clock=lambda: datetime.now(UTC), nonce=lambda: "n")


async def posted(answer: bytes):
    async with answering(answer) as (url, requests), client_of(url) as client:
        result = await client.post(b"{}", may_try=lambda: True)
    assert len(requests) == 1
    return result.answer


@pytest.mark.parametrize("answer", READ.values(), ids=READ.keys())
async def test_a_whole_answer_is_read_however_it_comes(answer):
    reply = await posted(answer)
    assert isinstance(reply, Reply)
    assert [(one.recipient, one.provider_id) for one in reply.results] == [(NUMBER, "id_1")]


@pytest.mark.parametrize("answer", UNREAD.values(), ids=UNREAD.keys())
async def test_a_damaged_answer_leaves_its_request_unsure(answer):
    reply = await posted(answer)
    assert isinstance(reply, NoReply)
    assert reply.sent


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status):
    async with answering(whole(BODY)) as (elsewhere, requests):
        location = f"Location: {elsewhere}/sms/batchSendDiffSms/v1".encode()
        reply = await posted(whole(b"", location, status=b"%d Moved" % status))
    assert (reply.code, requests) == (f"HTTP {status}", [])


def damaged(dice: Random) -> bytes:
    """Return a whole answer with some bytes gone, changed, repeated or moved."""
    answer = dice.choice(list(READ.values()))
    for _ in range(dice.choice((1, 1, 2, 5))):
        at, size = dice.randrange(len(answer) + 1), dice.choice((1, 1, 4, 30))
        match dice.randrange(5):
            case 0:
                answer = answer[:at]
            case 1:
                answer = answer[:at] + answer[at + size :]
            case 2:
                answer = answer[:at] + dice.randbytes(size) + answer[at + size :]
            case 3:
                answer = answer[:at] + answer[at : at + size] * 3 + answer[at:]
            case _:
                answer = answer[at:] + answer[:at]
    return answer


@pytest.mark.slow
async def test_no_damaged_answer_raises_or_is_asked_for_twice():
    dice = Random(17)
    answers = [damaged(dice) for _ in range(2500)]
    waiting = iter(answers)

    async def post_some(client: Client) -> list[Answer]:
        return [(await client.post(b"{}", may_try=lambda: True)).answer for _ in waiting]

    async with answering(*answers) as (url, requests), client_of(url) as client:
        some = await asyncio.gather(*(post_some(client) for _ in range(AT_ONCE)))
    ended = [answer for each in some for answer in each]
    assert len(requests) == len(ended) == len(answers)
    assert all(one.sent for one in ended if isinstance(one, NoReply))
    read = [one for one in ended if isinstance(one, Reply) and one.results]
    assert len(answers) / 20 < len(read) < len(answers)  # both ways were walked


async def test_only_the_proxy_of_the_settings_is_used(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with answering(whole(BODY)) as (url, requests), client_of(url) as client:
        assert isinstance(await client.probe(), Reply)
    assert requests[0].startswith(b"POST /sms/batchSendDiffSms/v1 HTTP/1.1")
    async with answering(whole(BODY)) as (proxy, requests):
        async with client_of("http://sms.example.com:80", proxy=proxy) as client:
            assert isinstance(await client.probe(), Reply)
        assert requests[0].startswith(b"POST http://sms.example.com/sms/batchSendDiffSms/v1 ")
        assert b"\r\nHost: sms.example.com:80\r\n" in requests[0]  # as it was signed


async def test_an_https_request_asks_the_proxy_for_a_tunnel():
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(whole(b"not to this host", status=b"403 Forbidden"))
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        proxy = f"http://ana:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client_of("https://sms.example.com", proxy=proxy) as client:
            answer = await client.probe()
    assert answer == NoReply(
        "the proxy refuses the connection: HTTP 403", sent=False, code="unreachable"
    )
    assert asked[0].startswith(b"CONNECT sms.example.com:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in asked[0]
    assert b"sms/batchSend" not in asked[0]  # nothing of the request itself
