"""Posts a test report to the public address of the receiver, as the provider would."""

from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

import aiohttp
from msgspec import Struct

from dispatcher.core.report import CHECK_STATUS
from dispatcher.core.signing import AppKey, aksk_headers
from dispatcher.provider.client import why_unconnected

FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
TIMEOUT_SECONDS: Final = 10.0  # connecting included
MAX_ANSWER_BYTES: Final = 2000  # of an answer that are read


class PostError(Exception):
    """The test report got no answer; the text says why."""


class Posted(Struct, frozen=True):
    """The answer to a test report."""

    http_status: int
    text: str


def host_of(url: str) -> str:
    """Return the host and the port of *url* as they are written, without a login before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


async def post_test_report(
    url: str, *, word: str, key: AppKey | None, host: str | None, now: datetime
) -> Posted:
    """Post a test report that carries *word*; return the answer.

    With *key* it is signed as a push; *host* is the Host to sign where a proxy changes it.

    Raises:
        PostError: there is no answer.
    """
    body = urlencode({"smsMsgId": word, "status": CHECK_STATUS}).encode()
    headers = {"Content-Type": FORM_CONTENT_TYPE}
    parts = urlsplit(url)
    real_host = host_of(url)
    if key is not None:
        headers |= aksk_headers(
            key,
            method="POST",
            path=parts.path,
            query=parts.query,
            host=host or real_host,
            body=body,
            now=now,
            content_type=FORM_CONTENT_TYPE,
        )
        headers["Host"] = real_host  # on the wire it is always the real one
        url = parts._replace(netloc=real_host).geturl()  # a login would take the signature's header
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            text = await response.content.read(MAX_ANSWER_BYTES)
            return Posted(response.status, text.decode(errors="replace"))
    except TimeoutError as error:
        raise PostError(f"no answer within {TIMEOUT_SECONDS:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise PostError(f"no connection: {why_unconnected(error)}") from error
    except aiohttp.ServerDisconnectedError as error:
        raise PostError("the connection was closed without an answer") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PostError(f"the connection broke: {type(error).__name__}") from error
