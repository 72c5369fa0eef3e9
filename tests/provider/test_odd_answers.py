"""Answers that are odd as HTTP: whatever is whole is read, and nothing is posted twice."""

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from dispatcher.core.message import NoReply, Reply
from dispatcher.core.signing import AppKey
from dispatcher.provider.client import Account, Client

NUMBER = "+8613112345678"
TAKEN = {"originTo": NUMBER, "status": "000000", "smsMsgId": "id_1"}
BODY = json.dumps({"code": "000000", "description": "Success", "result": [TAKEN]}).encode()
PACKED = gzip.compress(BODY)


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
async def answering(answer: bytes):
    """Give the address of a server that answers each request so, and how many there were."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        requests.append(await reader.readexactly(length))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", requests


async def posted(answer: bytes):
    async with answering(answer) as (url, requests):
        account = Account(url, AppKey("key", "secret"), timeout=5.0, connect_timeout=5.0)
        async with Client(account, clock=lambda: datetime.now(UTC), nonce=lambda: "n") as client:
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
