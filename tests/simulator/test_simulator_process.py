"""The simulator as a process, with the provider's official SDK as its client."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import pytest
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.http_config import HttpConfig
from provider_client import KEY, PATH, SECRET, aksk, body_of

if TYPE_CHECKING:
    from huaweicloudsdksmsapi import v1


@dataclass
class Process:
    running: asyncio.subprocess.Process
    url: str

    async def get(self, path: str) -> dict:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return await response.json()

    async def stop(self, number: int) -> int:
        self.running.send_signal(number)
        async with asyncio.timeout(30):
            return await self.running.wait()


@asynccontextmanager
async def simulate(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatcher", "simulate", "--key", KEY, "--secret", SECRET),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


@pytest.fixture
async def provider() -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    async with AsyncExitStack() as stack:

        async def make(*arguments: str) -> Process:
            running = await stack.enter_async_context(simulate(*arguments))
            async with asyncio.timeout(60):
                url = (await running.stdout.readline()).decode().strip()
            return Process(running, url)

        yield make


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of the test: the SDK writes a file there when it is imported."""
    monkeypatch.setenv("HOME", str(tmp_path))


def send_with_the_sdk(url: str, secret: str) -> "v1.BatchSendDiffSmsResponse":
    """Send with the unmodified official SDK to the simulator's endpoint."""
    from huaweicloudsdksmsapi import v1  # noqa: PLC0415 - see home
    from huaweicloudsdksmsapi.v1.smsapi_credentials import SMSApiCredentials  # noqa: PLC0415

    sdk = (
        v1.SMSApiClient.new_builder()
        .with_http_config(HttpConfig.get_default_config())
        .with_credentials(SMSApiCredentials(KEY, secret))
        .with_endpoint(url)
        .build()
    )
    try:
        content = v1.SmsContent(
            to=["+8615512345678", "13112345678"],
            template_id="abcdefghabcdefghabcdefghabcdefgh",
            template_paras=["062569", "中文"],
        )
        body = v1.BatchSendDiffSmsRequestBody(
            _from="csms100000001", sms_content=[content], extend="from-the-sdk"
        )
        return sdk.batch_send_diff_sms(v1.BatchSendDiffSmsRequest(body=body))
    finally:
        sdk.close()


@pytest.mark.usefixtures("home")
async def test_the_official_sdk_is_accepted(provider):
    process = await provider()
    answer = await asyncio.to_thread(send_with_the_sdk, process.url, SECRET)
    assert (answer.status_code, answer.code) == (200, "000000")
    assert [row.origin_to for row in answer.result] == ["+8615512345678", "13112345678"]
    assert {row.status for row in answer.result} == {"000000"}
    shown = await process.get("/_accepted")
    assert shown["accepted"] == {"+8615512345678": 1, "13112345678": 1}


@pytest.mark.usefixtures("home")
async def test_one_wrong_byte_of_the_secret_refuses_the_sdk(provider):
    process = await provider()
    for at in (0, 10, -1):
        wrong = bytearray(SECRET, "ascii")
        wrong[at] ^= 1
        with pytest.raises(ClientRequestException) as caught:
            await asyncio.to_thread(send_with_the_sdk, process.url, wrong.decode())
        assert caught.value.status_code == 400
        assert "E000045" in caught.value.error_msg  # the SDK does not know the API's error form
    assert (await process.get("/_accepted"))["numbers"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_despite_stalled_requests(provider, number):
    process = await provider("--faults", '{"fault": "stall-after-reading"}')
    writer = await exchange(process.url)
    assert await process.stop(number) == 0
    writer.close()


async def exchange(url: str) -> asyncio.StreamWriter:
    """Send a request and wait until the simulator has it."""
    place = urlsplit(url)
    raw = json.dumps(body_of("+8613800000000")).encode()
    headers = {**aksk(raw, place.netloc), "Content-Length": str(len(raw))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write("\r\n".join(lines).encode() + raw)
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            async with session.get(url + "/_requests") as response:
                if b'"stall-after-reading"' in await response.read():
                    return writer


async def test_connection_faults_work_on_uvloop_too(provider):
    """The process runs on uvloop, whose transports are not those of the other tests."""
    cases = [
        ({"fault": "reset"}, aiohttp.ClientOSError, 0),
        ({"fault": "cut"}, aiohttp.ServerDisconnectedError, 1),
        ({"fault": "cut", "reset": True}, aiohttp.ClientOSError, 1),
        ({"fault": "half-answer"}, aiohttp.ClientPayloadError, 1),
        ({"fault": "stall-before-reading", "seconds": 0.1}, aiohttp.ClientOSError, 0),
        ({"fault": "stall-after-reading", "seconds": 0.1}, aiohttp.ServerDisconnectedError, 0),
    ]
    process = await provider(
        "--faults", json.dumps([{**f, "nth": [n]} for n, (f, _, _) in enumerate(cases, 1)])
    )
    raw = json.dumps(body_of("+8613800000000")).encode()
    headers = aksk(raw, urlsplit(process.url).netloc)
    accepted = 0
    for _, error, accepts in cases:
        with pytest.raises(error):
            async with (
                aiohttp.ClientSession() as session,
                session.post(process.url + PATH, data=raw, headers=headers) as response,
            ):
                await response.read()
        accepted += accepts
        assert (await process.get("/_accepted"))["numbers"] == accepted


async def test_the_control_address_answers_while_the_first_refuses(provider):
    process = await provider("--control", "127.0.0.1:0", "--faults", '{"fault": "refuse"}')
    control = Process(process.running, (await process.running.stdout.readline()).decode().strip())
    place = urlsplit(process.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port))
    assert (await control.get("/_faults"))["injected"] == {"refuse": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--faults", '{"fault": "cutt"}'), "--faults: Invalid value 'cutt'"),
        (("--options", "no-such-file"), "--options: no-such-file is neither"),
        (("--reports", "{"), "--reports: not JSON"),
        (("--listen", "8080"), "8080 is not HOST:PORT"),
    ],
)
async def test_a_wrong_argument_prints_one_line_and_exits_with_2(arguments, message):
    async with simulate(*arguments) as running:
        out, error = await running.communicate()
        assert (out, running.returncode) == (b"", 2)
        (line,) = error.decode().splitlines()
        assert message in line


async def test_a_used_address_prints_one_line_and_exits_with_1(provider):
    process = await provider()
    async with simulate("--listen", urlsplit(process.url).netloc) as running:
        out, error = await running.communicate()
        assert (out, running.returncode) == (b"", 1)
        (line,) = error.decode().splitlines()
        assert "in use" in line
