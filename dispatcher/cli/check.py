"""``dispatcher check``: whether everything is in order before the first message."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import typer

from dispatcher.cli.errors import FAILED, CommandError

if TYPE_CHECKING:
    from dispatcher.core.message import Answer
    from dispatcher.db.database import OwnConnection
    from dispatcher.settings import AppSettings, Settings


import secrets
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection
    from dispatcher.provider.callback import Posted
    from dispatcher.settings import Settings


CLOCK_LIMIT = 30.0  # seconds; the provider takes 15 minutes, but this is a clock nobody sets

Finding = tuple[bool, str, str]  # good, of what, and what was found


def check() -> int:
    """Check settings, database, tables, clock and keys.

    Each app's key with one signed request; that holds no message, so nothing is sent. The public
    address for reports with one signed test report, which must arrive in the database.
    """
    from dispatcher.cli.settings import read_settings

    settings = read_settings()
    apps = ", ".join(settings.apps) or "no app"
    findings = [(bool(settings.apps), "settings", f"{apps} configured")]
    try:
        findings += _database(settings)
        findings += _callback(settings)
    except CommandError as failure:
        findings.append((False, "database", str(failure)))
    findings += asyncio.run(_apps(settings))
    for good, name, text in findings:
        typer.echo(f"{'ok  ' if good else 'FAIL'}  {name:12}  {text}")
    return 0 if all(good for good, _, _ in findings) else FAILED


def _database(settings: "Settings") -> Iterator[Finding]:
    from dispatcher.cli.database import connected, database_address, explained
    from dispatcher.db import migrate
    from dispatcher.db.dsn import read_address
    from dispatcher.db.migrate import MigrationError

    with database_address(settings) as dsn, explained(dsn):
        skew = asyncio.run(connected(dsn, _skew))
        yield True, "database", f"PostgreSQL answers at {read_address(dsn)}"
        yield _clock("the database's", skew)
        try:
            standings = asyncio.run(migrate.status(dsn))
        except MigrationError as error:
            yield False, "tables", str(error)
            return
        missing = [f"{s.version}_{s.name}" for s in standings if not s.applied]
        other = [s.version for s in standings if s.unknown or s.edited]
        yield (
            not missing and not other,
            "tables",
            f"missing: {', '.join(missing)}; run `dispatcher migrate`"
            if missing
            else f"not those of this release: {', '.join(other)}; see `dispatcher migrate --status`"
            if other
            else "those of this release",
        )


def _callback(settings: "Settings") -> Iterator[Finding]:
    from dispatcher.cli.check import check_callback
    from dispatcher.cli.database import connected, database_address

    if settings.callback_url is None:
        return
    with database_address(settings) as dsn:
        good, text = asyncio.run(
            connected(dsn, lambda connection: check_callback(settings, connection))
        )
        yield good, "reports", text


async def _skew(connection: "OwnConnection") -> float:
    """Return our clock less the database's, seconds; the question itself takes no part."""
    from dispatcher.db.file_import import database_time

    asked = datetime.now(UTC)
    theirs = await database_time(connection)
    answered = datetime.now(UTC)
    return (asked + (answered - asked) / 2 - theirs).total_seconds()


async def _apps(settings: "Settings") -> list[Finding]:
    findings: list[Finding] = []
    for name, app in settings.apps.items():
        findings += _judged(f"app {name}", app, await _probe(app))
    return findings


async def _probe(app: "AppSettings") -> "Answer":
    """Return the answer to a signed request without any message."""
    import secrets

    from dispatcher.provider.client import Client
    from dispatcher.worker.worker import account

    async with Client(
        account(app), clock=partial(datetime.now, UTC), nonce=secrets.token_hex
    ) as client:
        return await client.probe()


def _judged(name: str, app: "AppSettings", answer: "Answer") -> Iterator[Finding]:
    from dispatcher.core.codes import Kind, request_code
    from dispatcher.core.message import NoReply

    if isinstance(answer, NoReply):
        yield False, name, f"{app.endpoint}: {answer.reason}; check __ENDPOINT and the network"
        return
    row = request_code(answer.code)
    # Whoever complains of the missing content has looked at address, key and signature before.
    known = row.kind in (Kind.CONTENT, Kind.RESULT, Kind.AMBIGUOUS, Kind.ACCEPTED)
    if known:
        yield True, name, f"{app.endpoint} knows the key {app.app_key}"
    else:
        yield False, name, f"{app.endpoint}: {answer.code}: {row.meaning} {row.advice}"
    if answer.clock_skew is not None:
        yield _clock("the provider's", answer.clock_skew)


def _clock(whose: str, skew: float) -> Finding:
    good = abs(skew) <= CLOCK_LIMIT
    advice = "" if good else ": set the clock of this machine right (NTP)"
    return good, "clock", f"{skew:+.1f} s from {whose}{advice}"


CHANNEL = "dispatcher_check"
ARRIVES = 5.0  # seconds from the answer to the notification; it comes before, if at all


async def check_callback(settings: "Settings", connection: "OwnConnection") -> tuple[bool, str]:
    """Post a signed test report to the public address, and see it arrive in this database.

    It creates nothing: the receiver knows it, and tells the database of it by a notification.
    """
    from dispatcher.provider.callback import PostError, post_test_report
    from dispatcher.receiver.receiver import push_keys

    url = settings.callback_url or ""
    word = f"check-{secrets.token_hex(8)}"
    heard = asyncio.Event()

    def hear(_: object, __: int, ___: str, said: object) -> None:
        if said == word:
            heard.set()

    await connection.add_listener(CHANNEL, hear)
    began = monotonic()
    keys = push_keys(settings)
    where = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"  # the path is a secret
    try:
        posted = await post_test_report(
            url,
            word=word,
            key=keys[0] if keys else None,
            host=settings.push_host,
            now=datetime.now(UTC),
        )
    except PostError as error:
        return False, f"{where}: {error}; the provider's reports would be lost"
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
    from dispatcher.receiver.routes import CHECKED

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
