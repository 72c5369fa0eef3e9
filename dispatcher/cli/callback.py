"""The part of ``dispatcher check`` that sends a test report the whole way round."""

import asyncio
import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from dispatcher.db.pool import OwnConnection
    from dispatcher.provider.callback import Posted
    from dispatcher.settings import Settings

CHANNEL = "dispatcher_check"
ARRIVES = 5.0  # seconds from the answer to the notification; it comes before, if at all


async def check_callback(settings: "Settings", connection: "OwnConnection") -> tuple[bool, str]:
    """Post a signed test report to the public address, and see it arrive in this database.

    It creates nothing: the receiver knows it, and tells the database of it by a notification.
    """
    from dispatcher.provider.callback import post_test_report
    from dispatcher.service.receiver import push_keys

    url = settings.callback_url or ""
    word = f"check-{secrets.token_hex(8)}"
    heard = asyncio.Event()

    def hear(_: object, __: int, ___: str, said: object) -> None:
        if said == word:
            heard.set()

    await connection.add_listener(CHANNEL, hear)
    began = monotonic()
    keys = push_keys(settings)
    posted = await post_test_report(
        url,
        word=word,
        key=keys[0] if keys else None,
        host=settings.push_host,
        now=datetime.now(UTC),
    )
    where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"  # the path is a secret
    if isinstance(posted, str):
        return False, f"{where}: {posted}; the provider's reports would be lost"
    trouble = _trouble(posted)
    if trouble is not None:
        good, what = trouble
        return good, f"{where}: {what}"
    try:
        async with asyncio.timeout(ARRIVES):
            await heard.wait()
    except TimeoutError:
        return False, f"{where}: the receiver there works on another database than this one"
    signed = "signed " if keys else ""
    took = (monotonic() - began) * 1000
    return True, f"a {signed}test report to {where} arrived in the database, {took:.0f} ms"


def _trouble(posted: "Posted") -> tuple[bool, str] | None:
    """Return whether another answer than the receiver's "received" is fine, and what it means."""
    from dispatcher.web.reports import CHECKED

    said = posted.text.partition('"returnCodeDesc":"')[2].partition('"')[0]
    match posted.http_status:
        case 200 if said == CHECKED:
            return None
        case 403 if said:
            return True, "a receiver is there, and takes no reports from this machine's network"
        case 404:
            return False, (
                "404: its last part is not the receiver's DISPATCHER_REPORT_PATH_TOKEN, or no"
                " proxy leads to the receiver"
            )
        case 401 if said:
            return False, f"401: {said} Compare push key, __PUSH_HOST and __PUSH_CONNECTION"
        case status if said:
            return False, f"{status}: {said}"
        case status:
            return False, f"{status}, and not by a report receiver: see the proxies on the way"
