"""Why no connection could be made, in words for the one who can mend it."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from tls.authority import Authority

from dispatcher.core.message import NoReply
from dispatcher.core.signing import AppKey
from dispatcher.provider.client import Account, Client


async def reason(url: str, **more) -> str:
    account = Account(url, AppKey("key", "secret"), timeout=60.0, connect_timeout=60.0, **more)
    async with Client(account, clock=lambda: datetime.now(UTC), nonce=lambda: "n") as client:
        answer = await client.probe()
    assert isinstance(answer, NoReply)
    return answer.reason


@asynccontextmanager
async def closing(context: ssl.SSLContext | None = None):
    """Give the port of a server that closes each connection at the first line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path, "ours").make()


@pytest.fixture
def with_certificate(authority, tmp_path) -> ssl.SSLContext:
    """The TLS of a server whose certificate is for localhost, and not for 127.0.0.1."""
    key, certificate = authority.key_for("localhost")
    file = tmp_path / "both.pem"
    file.write_text(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_says_what_is_wrong_with_it(authority, with_certificate):
    trusted = authority.certificate
    async with closing(with_certificate) as port:
        assert await reason(f"https://localhost:{port}") == (
            "no connection: the server's certificate is not trusted"
        )
        assert await reason(f"https://127.0.0.1:{port}", ca_bundle=trusted) == (
            "no connection: the server's certificate is for another host name"
        )
        assert await reason(f"https://localhost:{port}", ca_bundle=trusted) == (
            "the connection was closed without an answer"
        )


async def test_a_server_without_tls_is_named():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await reason(f"https://127.0.0.1:{port}") == (
            "no connection: the server does not speak TLS at this port"
        )


async def test_a_refusal_is_that_of_the_provider_or_of_the_proxy():
    async with closing() as port:
        pass
    nowhere = f"http://127.0.0.1:{port}"
    assert await reason(nowhere) == "no connection: connection refused"
    assert await reason("http://sms.example.com", proxy=nowhere) == (
        "no connection to the proxy: connection refused"
    )
