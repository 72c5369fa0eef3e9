"""A client of the simulator. It signs with the provider's official SDK."""

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from yarl import URL

from dispatcher.simulator import Simulator

PATH = "/sms/batchSendDiffSms/v1"
KEY, SECRET = "uxOF5yvM0H3C0t5G0xc272g7hA2I", "test-secret-0000000000000000"


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any
    json: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def statuses(self) -> dict[str, str]:
        return {row["originTo"]: row["status"] for row in self.json["result"]}


def body_of(*numbers: str, token: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a request with one entry for all *numbers*."""
    entry = {"to": list(numbers), "templateId": "t" * 32, "templateParas": ["062569"]}
    body: dict[str, Any] = {"from": "csms100000001", "smsContent": [entry], **more}
    if token is not None:
        body["extend"] = token
    return body


def numbers(count: int, start: int = 0) -> list[str]:
    return [f"+86138{at:08d}" for at in range(start, start + count)]


def aksk(raw: bytes, host: str, *, secret: str = SECRET, key: str = KEY, age: float = 0) -> dict:
    """Return headers signed by the official SDK."""
    date = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y%m%dT%H%M%SZ")
    request = SdkRequest(
        method="POST",
        schema="http",
        host=host,
        resource_path=PATH,
        query_params=[],
        header_params={"Content-Type": "application/json", "Host": host, "X-Sdk-Date": date},
        body=raw,
    )
    Signer(SimpleNamespace(ak=key, sk=secret)).sign(request)
    return dict(request.header_params)


def wsse(*, digest: str = "hex", secret: str = SECRET, key: str = KEY, age: float = 0) -> dict:
    created = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    nonce = "ac1c911c4792492687f8f6b2264a491e"
    hashed = hashlib.sha256((nonce + created + secret).encode())
    made = hashed.hexdigest().encode() if digest == "hex" else hashed.digest()
    return {
        "Content-Type": "application/json",
        "Authorization": 'WSSE realm="SDP",profile="UsernameToken",type="Appkey"',
        "X-WSSE": f'UsernameToken Username="{key}",PasswordDigest="'
        f'{base64.b64encode(made).decode()}",Nonce="{nonce}",Created="{created}"',
    }


@dataclass
class Client:
    """Sends to one simulator over persistent connections."""

    sim: Simulator
    session: aiohttp.ClientSession

    @property
    def host(self) -> str:
        return URL(self.sim.url).authority

    async def post(self, raw: bytes, headers: dict[str, str]) -> Answer:
        async with self.session.post(self.sim.url + PATH, data=raw, headers=headers) as response:
            body = await response.read()
            answer = Answer(response.status, body, response.headers)
            if "json" in response.content_type:
                answer.json = json.loads(body)
            return answer

    async def send(self, body: Any, **changed: str | None) -> Answer:
        """Send *body* with a correct signature; *changed* replaces headers, None drops one."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = aksk(raw, self.host)
        for name, value in changed.items():
            header = name.replace("_", "-")
            headers = {n: v for n, v in headers.items() if n.lower() != header.lower()}
            if value is not None:
                headers[header] = value
        return await self.post(raw, headers)

    async def get(self, path: str) -> Any:
        async with self.session.get(self.sim.control_url + path) as response:
            text = await response.text()
            if response.content_type == "application/x-ndjson":
                return [json.loads(line) for line in text.splitlines()]
            return json.loads(text)
