"""Posts one report to our own public address, as the provider would, to see it get through."""

from datetime import datetime
from urllib.parse import urlencode, urlsplit

import aiohttp
from msgspec import Struct

from dispatcher.core.report import CHECK_STATUS
from dispatcher.core.signing import AppKey, aksk_headers

FORM = "application/x-www-form-urlencoded"
TIMEOUT = 10.0  # seconds, connecting included
LONGEST = 2000  # bytes of an answer that are read


class Posted(Struct, frozen=True):
    """What was answered."""

    http_status: int
    text: str


async def post_test_report(
    url: str, *, word: str, key: AppKey | None, host: str | None, now: datetime
) -> Posted | str:
    """Post a test report that carries *word*; return the answer, or why there is none.

    With *key* it is signed as a push; *host* is the Host to sign where a proxy changes it.
    """
    body = urlencode({"smsMsgId": word, "status": CHECK_STATUS}).encode()
    headers = {"Content-Type": FORM}
    parts = urlsplit(url)
    if key is not None:
        headers |= aksk_headers(
            key,
            method="POST",
            path=parts.path,
            query=parts.query,
            host=host or parts.netloc,
            body=body,
            now=now,
            content_type=FORM,
        )
        headers["Host"] = parts.netloc  # on the wire it is always the real one
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            text = await response.content.read(LONGEST)
            return Posted(response.status, text.decode(errors="replace"))
    except TimeoutError:
        return f"no answer within {TIMEOUT:g} s"
    except aiohttp.ClientConnectorCertificateError:
        return "the certificate is not trusted"
    except aiohttp.ClientConnectorDNSError:
        return "the host name is not found"
    except aiohttp.ClientConnectorError as error:
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    except (aiohttp.ClientError, OSError) as error:
        return f"the connection broke: {type(error).__name__}"
