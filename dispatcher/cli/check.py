"""``dispatcher check``: checks the whole configuration before the first message."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from dispatcher.cli.errors import FAILED, NO_APP, CommandError
from dispatcher.core.format import padded, sentences
from dispatcher.core.language import ENGLISH, N_, _, use_language
from dispatcher.core.stored_texts import stored_text

if TYPE_CHECKING:
    from dispatcher.core.message import Answer
    from dispatcher.db.database import OwnConnection
    from dispatcher.provider.callback import Posted
    from dispatcher.settings import AppSettings, Settings


MAX_CLOCK_SKEW_SECONDS = 30.0  # the provider accepts 15 minutes; this shows a clock without NTP

CLOSE_SECONDS = 5.0  # to close a connection, or to get one of a pooler

CheckResult = tuple[bool | None, str, str]  # whether it passed (None: a warning), subject, text


_MARKS = {True: N_("ok"), False: N_("FAIL"), None: N_("warn")}
_SUBJECTS = (
    *(N_("settings"), N_("database"), N_("clock"), N_("tables"), N_("sequences")),
    *(N_("connections"), N_("pooler"), N_("spool"), N_("reports"), N_("replies")),
)


def check(
    *, json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False
) -> int:
    """Check settings, database, tables, clock and keys.

    The key of each app is checked with a signed request without messages, so nothing is sent. The
    public address for reports is checked with a signed test report, which must arrive in the
    database.
    """
    from dispatcher.cli.connection import read_settings
    from dispatcher.settings import ALL_PARTS

    if json:
        use_language(ENGLISH)  # programs read it
    settings = read_settings(ALL_PARTS)
    configured = _("{apps} configured").format(apps=", ".join(settings.apps))
    results: list[CheckResult] = [
        (bool(settings.apps), "settings", configured if settings.apps else _(NO_APP))
    ]
    try:
        results += _database(settings)
        results += _pooler(settings)
        results += _callback(settings)
    except CommandError as failure:
        results.append((False, "database", str(failure)))
    results += _verification(settings)
    if settings.report_path_token is not None:
        results.append((True, "replies", _unsubscribing(settings)))
    results += _spool(settings)
    results += asyncio.run(_apps(settings))
    if json:
        from dispatcher.cli.output import print_json

        print_json(
            [
                {"good": good is not False, "warning": good is None, "subject": name, "text": text}
                for good, name, text in results
            ]
        )
    for good, name, text in results if not json else ():
        subject = _(name) if name in _SUBJECTS else name
        typer.echo(f"{padded(_(_MARKS[good]), 4)}  {padded(subject, 12)}  {text}")
    return FAILED if any(good is False for good, _, _ in results) else 0


def _database(settings: "Settings") -> Iterator[CheckResult]:
    from dispatcher.cli.connection import connected, database_address, explained
    from dispatcher.db import migrate
    from dispatcher.db.dsn import read_address
    from dispatcher.db.migrate import MigrationError

    with database_address(settings) as dsn, explained(dsn):
        skew = asyncio.run(connected(dsn, _skew))
        yield (
            True,
            "database",
            _("PostgreSQL answers at {read_address}").format(read_address=read_address(dsn)),
        )
        yield _check_clock(_("the database's"), skew)
        yield from asyncio.run(connected(dsn, partial(_server, settings)))
        try:
            standings = asyncio.run(migrate.status(dsn))
        except MigrationError as error:
            yield False, "tables", str(error)
            return
        behind = asyncio.run(connected(dsn, migrate.sequences_behind))
        if behind:
            yield (
                False,
                "sequences",
                _("behind their rows: {names}; `dispatcher migrate` sets them").format(
                    names=", ".join(behind)
                ),
            )
        missing = [f"{s.version}_{s.name}" for s in standings if not s.applied]
        if not missing:
            yield from asyncio.run(connected(dsn, partial(_rights, read_address(dsn).user)))
        other = [s.version for s in standings if s.unknown or s.edited]
        yield (
            not missing and not other,
            "tables",
            _("missing: {names}; run `dispatcher migrate`").format(names=", ".join(missing))
            if missing
            else _("not those of this release: {names}; see `dispatcher migrate --status`").format(
                names=", ".join(other)
            )
            if other
            else _("those of this release"),
        )


async def _server(settings: "Settings", connection: "OwnConnection") -> list[CheckResult]:
    """Check what the server has for this user: encoding, writes, connections."""
    from dispatcher.db.queries import sql
    from dispatcher.service.run import connections_needed, explain_limit

    results: list[CheckResult] = []
    encoding = await connection.fetchval(sql("server_encoding"))
    if encoding != "UTF8":
        text = _(
            "has the encoding {encoding}, and must have UTF8: CREATE DATABASE ... ENCODING 'UTF8'"
            " TEMPLATE template0"
        ).format(encoding=encoding)
        results.append((False, "database", text))
    if await connection.fetchval(sql("is_standby")):
        text = _(
            "is a standby, and takes no writes: name the primary in DISPATCHER_DATABASE_URL, or all"
            " hosts with commas"
        )
        results.append((False, "database", text))
    if await connection.fetchval(sql("read_only_setting")):
        text = _(
            "default_transaction_read_only is on for this database or user, so nothing can be"
            " written: ALTER DATABASE or ROLE ... RESET it"
        )
        results.append((False, "database", text))
    limit = await connection.fetchval(sql("connection_limit"))
    if limit is not None and (short := explain_limit(limit, connections_needed(settings))):
        results.append((False, "connections", stored_text(short)))
    return results


async def _rights(user: str, connection: "OwnConnection") -> list[CheckResult]:
    """Check that this user may do what a worker does."""
    from dispatcher.db.queries import sql

    lacking = [row["object"] for row in await connection.fetch(sql("rights_missing"))]
    if not lacking:
        return []
    text = _(
        "user {user!r} has not all rights of a worker ({objects}): GRANT dispatcher_worker TO it,"
        " or use another user; see deploy/docs/database.md, Roles"
    ).format(user=user, objects=_few(lacking))
    return [(False, "database", text)]


def _pooler(settings: "Settings") -> Iterator[CheckResult]:
    """Check that workers get in, and that a pooler there keeps prepared statements apart."""
    from dispatcher.cli.connection import connected, explained

    if settings.database_url is None:
        return
    dsn = settings.database_url.get_secret_value()
    try:
        if settings.statement_cache:
            with explained(dsn):
                asyncio.run(_prepare_twice(dsn))
        else:
            asyncio.run(connected(dsn, lambda connection: connection.execute("SELECT 1")))
    except CommandError as failure:
        yield False, "pooler", str(failure)


async def _prepare_twice(dsn: str) -> None:
    """Run a prepared statement twice, and keep the session of the first time busy meanwhile.

    A pooler in transaction mode then runs it in another session, which must know the statement.
    """
    from dispatcher.db.database import connect

    async with AsyncExitStack() as stack:
        connection, other = await connect(dsn), await connect(dsn)
        for each in (connection, other):
            stack.push_async_callback(each.close, timeout=CLOSE_SECONDS)
        await connection.fetchval("SELECT 1")
        async with other.transaction():
            await other.execute("SELECT 1")
            with suppress(TimeoutError):  # a pooler that has no second session
                await connection.fetchval("SELECT 1", timeout=CLOSE_SECONDS)


def _spool(settings: "Settings") -> Iterator[CheckResult]:
    from dispatcher.db.spool import why_unwritable
    from dispatcher.receiver.receiver import SPOOL

    if why := why_unwritable(settings.data_dir / SPOOL):
        yield False, "spool", stored_text(why)


def _verification(settings: "Settings") -> Iterator[CheckResult]:
    from dispatcher.receiver.receiver import are_verified

    if settings.report_path_token is None and settings.callback_url is None:
        return
    if not are_verified(settings):
        text = _(
            "not verified: who knows the callback address can post false reports, and replies that"
            " stop promotional messages to any number: set __PUSH_KEY and __PUSH_SECRET, or"
            " DISPATCHER_REPORT_NETWORKS"
        )
        yield None, "reports", text


def _unsubscribing(settings: "Settings") -> str:
    """Return in words which replies stop promotional messages."""
    if not settings.unsubscribe_words:
        return _("no reply unsubscribes")
    return _("what unsubscribes: {words}").format(words=", ".join(settings.unsubscribe_words))


def _callback(settings: "Settings") -> Iterator[CheckResult]:
    from dispatcher.cli.connection import connected, database_address

    if settings.callback_url is None:
        return
    with database_address(settings) as dsn:
        good, text = asyncio.run(
            connected(dsn, lambda connection: check_callback(settings, connection))
        )
        yield good, "reports", text


async def _skew(connection: "OwnConnection") -> float:
    """Return our clock less the database's, in seconds; half of the round trip is subtracted."""
    from dispatcher.db.file_import import database_time

    asked = datetime.now(UTC)
    theirs = await database_time(connection)
    answered = datetime.now(UTC)
    return (asked + (answered - asked) / 2 - theirs).total_seconds()


async def _apps(settings: "Settings") -> list[CheckResult]:
    results: list[CheckResult] = []
    for name, app in settings.apps.items():
        results += _check_answer(f"app {name}", app, await _probe(app))
        results.append((True, f"app {name}", _allowed(app)))
    return results


def _few(numbers: Sequence[str]) -> str:
    shown = [*numbers[:3], "..."] if len(numbers) > 3 else numbers  # noqa: PLR2004
    return ", ".join(shown)


def _allowed(app: "AppSettings") -> str:
    """Return in words which numbers *app* may send to."""
    numbers = (
        _("sends to any number")
        if app.only_to is None
        else (_("sends only to {numbers}").format(numbers=_few(app.only_to)))
    )
    if app.countries is None:
        return _("{numbers}, of all countries").format(numbers=numbers)
    return _("{numbers}, of {names} alone").format(
        numbers=numbers, names=", ".join(sorted(app.countries))
    )


async def _probe(app: "AppSettings") -> "Answer":
    """Return the answer to a signed request without any message."""
    from dispatcher.provider.client import Client
    from dispatcher.worker.worker import account

    async with Client(
        account(app), clock=partial(datetime.now, UTC), nonce=secrets.token_hex
    ) as client:
        return await client.probe()


def _check_answer(name: str, app: "AppSettings", answer: "Answer") -> Iterator[CheckResult]:
    from dispatcher.core.codes import Kind, request_code
    from dispatcher.core.message import NoReply

    if isinstance(answer, NoReply):
        yield (
            False,
            name,
            _(
                "{endpoint}: {reason}; check __ENDPOINT, __CA_BUNDLE, __PROXY and the network"
            ).format(endpoint=app.endpoint, reason=stored_text(answer.reason)),
        )
        return
    row = request_code(answer.code)
    # The provider reports the missing content after it has checked address, key and signature.
    known = row.kind in (Kind.CONTENT, Kind.RESULT, Kind.AMBIGUOUS, Kind.ACCEPTED)
    if known:
        yield (
            True,
            name,
            _("{endpoint} knows the key {app_key}").format(
                endpoint=app.endpoint, app_key=app.app_key
            ),
        )
    else:
        advice = row.advice.replace("<NAME>", name.removeprefix("app ").upper())
        yield (
            False,
            name,
            _(": ").join((app.endpoint, answer.code, sentences(row.meaning, advice))),
        )
    if answer.clock_skew is not None:
        yield _check_clock(_("the provider's"), answer.clock_skew)


def _check_clock(whose: str, skew: float) -> CheckResult:
    good = abs(skew) <= MAX_CLOCK_SKEW_SECONDS
    advice = "" if good else _(": set the clock of this machine right (NTP)")
    return (
        good,
        "clock",
        _("{skew} s from {whose}{advice}").format(
            skew=f"{round(skew, 1) + 0.0:+.1f}", whose=whose, advice=advice
        ),
    )


NOTIFY_CHANNEL = "dispatcher_check"
NOTIFY_TIMEOUT_SECONDS = 5.0  # after the answer; the notification usually comes before it


async def check_callback(settings: "Settings", connection: "OwnConnection") -> tuple[bool, str]:
    """Post a signed test report to the public address, and wait for it in this database.

    The receiver recognizes it, stores nothing, and sends a notification through the database.

    Returns:
        Whether it arrived, and a line that says so or what to do.

    """
    from dispatcher.provider.callback import PostError, host_of, post_test_report
    from dispatcher.receiver.receiver import push_keys

    url = settings.callback_url or ""
    word = f"check-{secrets.token_hex(8)}"
    arrived = asyncio.Event()

    def on_notify(_: object, __: int, ___: str, payload: object) -> None:
        if payload == word:
            arrived.set()

    await connection.add_listener(NOTIFY_CHANNEL, on_notify)
    began = monotonic()
    keys = push_keys(settings)
    where = f"{urlsplit(url).scheme}://{host_of(url)}"  # the path is a secret, and so is a login
    try:
        posted = await post_test_report(
            url,
            word=word,
            key=keys[0] if keys else None,
            host=settings.push_host,
            now=datetime.now(UTC),
        )
    except PostError as error:
        return False, _("{where}: {error}; the provider's reports would be lost").format(
            where=where, error=stored_text(str(error))
        )
    refusal = _explain_answer(posted, knows_proxies=bool(settings.trusted_proxies))
    if refusal is not None:
        good, what = refusal
        return good, where + _(": ") + what
    try:
        async with asyncio.timeout(NOTIFY_TIMEOUT_SECONDS):
            await arrived.wait()
    except TimeoutError:
        return False, _(
            "{where}: the receiver there works on another database than this one"
        ).format(where=where)
    took = (monotonic() - began) * 1000
    said = (
        _("a signed test report to {where} arrived in the database, {took} ms")
        if keys
        else _("a test report to {where} arrived in the database, {took} ms")
    )
    return True, said.format(where=where, took=f"{took:.0f}")


def _explain_answer(posted: "Posted", *, knows_proxies: bool) -> tuple[bool, str] | None:
    """Return whether *posted* is good, and its meaning; None if the receiver took the report.

    *knows_proxies*: it takes the address of the client from the proxies before it.
    """
    from dispatcher.receiver.routes import CHECKED

    said = posted.text.partition('"returnCodeDesc":"')[2].partition('"')[0]
    match posted.http_status:
        case 200 if said == CHECKED:
            return None
        case 403 if said:
            refused = _("a receiver is there, and takes no reports from this machine's network")
            if not knows_proxies:
                refused += _(
                    "; if a proxy is before it, set DISPATCHER_TRUSTED_PROXIES, or it refuses the"
                    " provider's reports too"
                )
            return True, refused
        case 404:
            return False, (
                _(
                    "404: its last part is not the receiver's DISPATCHER_REPORT_PATH_TOKEN, or"
                    " no proxy leads to the receiver"
                )
            )
        case 401 if said:
            return False, _(
                "401: {said} Compare push key, DISPATCHER_PUSH_HOST and DISPATCHER_PUSH_CONNECTION"
            ).format(said=said)
        case status if said:
            return False, str(status) + _(": ") + said
        case status:
            return False, _(
                "{status}, and not by a report receiver: see the proxies on the way"
            ).format(status=status)
