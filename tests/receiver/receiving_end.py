"""A receiver with a client that posts to it, as the provider would."""

import asyncio
import io
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import aiohttp

from dispatcher.receiver.receiver import receiving
from dispatcher.service.http import serving
from dispatcher.settings import load_settings
from dispatcher.simulator.auth import sdk_date, sign

TOKEN = "a-token-that-nobody-guesses"
FORM = "application/x-www-form-urlencoded"
KEYS = {"push-key": "push-secret", "push-key-2": "push-secret-2"}
APP = {
    "ENDPOINT": "https://sms.example.com",
    "APP_KEY": "key",
    "APP_SECRET": "secret",
    "PUSH_KEY": "push-key",
    "PUSH_SECRET": "push-secret",
    "PUSH_KEY_2": "push-key-2",
    "PUSH_SECRET_2": "push-secret-2",
}
SIGNED = {f"DISPATCHER_APPS__DEFAULT__{name}": value for name, value in APP.items()}


class Receiver:
    """A receiver, and a client that posts to it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(self, body: bytes | str, content_type: str = FORM, *, path=None, **headers):
        """Post *body*; return status and what the answer says."""
        url = self.url + (path or f"/reports/{TOKEN}")
        headers = {"Content-Type": content_type, **headers}
        data = io.BytesIO(body.encode() if isinstance(body, str) else body)
        async with self.session.post(url, data=data, headers=headers) as response:
            return response.status, json.loads(await response.text())["returnCodeDesc"]

    async def signed(self, body: bytes, **how):
        """Post *body* as the provider signs it."""
        return await self.post(body, **signature(body, **how))


def signature(
    body: bytes,
    *,
    key="push-key",
    secret=None,
    ago=timedelta(0),
    host="127.0.0.1",
    path=f"/reports/{TOKEN}",
    **tweak,
) -> dict[str, str]:
    """Return the headers of a push as the provider signs it; *tweak* replaces some afterwards."""
    date = sdk_date((datetime.now(UTC) - ago).timestamp())
    values = {
        "connection": "keep-alive",
        "content-length": str(len(body)),
        "content-type": FORM,
        "host": host,
        "x-sdk-date": date,
    }
    signed = sign(
        secret or KEYS[key],
        method="POST",
        path=path,
        headers=list(values.items()),
        date=date,
        body=body,
    )
    return {
        "Connection": "keep-alive",
        "Host": host,
        "X-Sdk-Date": date,
        "Authorization": f"SDK-HMAC-SHA256 Access={key},SignedHeaders={';'.join(values)},"
        f"Signature={signed}",
        **tweak,
    }


@asynccontextmanager
async def receiver(dsn: str, folder, **environ: str):
    """Run a receiver on a free port."""
    settings = load_settings(
        {
            "DISPATCHER_DATA_DIR": str(folder),
            "DISPATCHER_REPORT_PATH_TOKEN": TOKEN,
            **{f"DISPATCHER_{name}": value for name, value in environ.items()},
        }
    )
    async with (
        receiving(settings, dsn, asyncio.Event()) as routes,
        serving("127.0.0.1", 0, routes) as (host, port),
        aiohttp.ClientSession() as session,
    ):
        yield Receiver(f"http://{host}:{port}", session)


def form(provider_id: str = "p1", **fields) -> bytes:
    """Encode one report as the provider does."""
    return urlencode(
        {
            "smsMsgId": provider_id,
            "total": "1",
            "sequence": "1",
            "status": "DELIVRD",
            "source": "2",
            "updateTime": "2026-11-22T06:31:46Z",
            "orgCode": "000",
            "extend": "t1",
            "to": "+8613100000001",
            **fields,
        }
    ).encode()


async def stored(db) -> list[tuple[str, int, str]]:
    rows = await db.fetch(
        "SELECT provider_id, segment, status FROM dispatcher.report ORDER BY provider_id, segment"
    )
    return [tuple(row) for row in rows]


def stripped(environ: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("DISPATCHER_"): value for name, value in environ.items()}
