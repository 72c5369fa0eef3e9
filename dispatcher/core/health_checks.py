"""Health checks: find what stops or slows the messages of one app."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

from msgspec import Struct

from dispatcher.core.codes import ALL_REFUSED, UNKNOWN_RESULTS, Kind, number_code, request_code
from dispatcher.core.format import duration, number, plural
from dispatcher.core.report_status import report_status
from dispatcher.core.status import AppState, StatusSnapshot


class Level(IntEnum):
    """How severe a finding is."""

    FINE = 0
    NOTE = 1  # for information
    WARNING = 2  # a part fails, the rest is sent
    STOPPED = 3  # nothing is sent, for one app or for all


class Finding(Struct, frozen=True):
    """The result of a health check that failed."""

    level: Level
    app: str | None  # None: it concerns all apps
    title: str
    cause: str
    step: str  # what to do next
    act: str = ""  # the action that the console offers: pause or resume


MAX_QUEUE_WAIT = timedelta(seconds=60)  # of a due message; a longer wait is reported
MAX_STALL = timedelta(seconds=120)  # of a due message while nothing is sent, decided or deferred
REJECTED_SHARE = 0.05  # of the messages of ten minutes; a larger share is reported
MAX_REPORT_SILENCE = timedelta(minutes=5)  # without a single report
MAX_REPORT_SILENCE_OF_FEW = timedelta(hours=1)  # of few messages: those phones may be off
OVERDUE_SHARE = 0.2  # of the accepted messages; some phones are off for days, but not so many
MIN_SAMPLE_MESSAGES = 20  # messages; below, one bad row is a large share


def check_app(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Yield what stops or slows the messages of *app*, or their reports."""
    if not app.known:
        yield Finding(
            Level.STOPPED,
            app.name,
            f"{app.name}: no worker has ever had this app",
            "Messages wait for it, and it is not configured.",
            f"Set DISPATCHER_APPS__{app.name.upper()}__ENDPOINT, __APP_KEY and __APP_SECRET and"
            " start the worker again; or cancel them, and insert them with the right app.",
        )
        return
    if app.paused_at is not None:
        yield _paused(app, app.paused_at)
    else:
        yield from _orphaned(app, now)
        yield from _unreachable(app, now)
        yield from _stalled(app, now)
        yield from _rate_limit(app, now)
    for country in app.paused_countries:
        row = request_code("E000630")
        yield Finding(
            Level.WARNING, app.name, f"{app.name}: nothing goes to {country}", row.meaning,
            row.advice,
        )  # fmt: skip
    if app.unsure_batches:
        yield Finding(
            Level.WARNING,
            app.name,
            f"{app.name}: {plural(app.unsure_batches, 'unsure request')}",
            "They may have been sent: the answer was lost, and no report has come yet.",
            "A report or a late answer settles them. If none comes, ask the provider, and settle"
            " each by hand: `dispatcher settle`, or Problems in the console.",
        )
    yield from _answers(app, now)
    yield from _reports(app, now)


def _orphaned(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    alive = [worker for worker in now.workers if worker.alive]
    if alive and app.waiting and not any(app.name in worker.apps for worker in alive):
        yield Finding(
            Level.STOPPED,
            app.name,
            f"{app.name}: no running worker has this app",
            "Messages wait for it; it was configured once, and is not in any worker that runs now.",
            f"Start a worker with DISPATCHER_APPS__{app.name.upper()}__... set; or cancel them, and"
            " insert them with another app.",
        )


def _unreachable(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find hosts that cannot reach the provider; others may reach it."""
    having = [worker for worker in now.workers if worker.alive and app.name in worker.apps]
    cut_off = [worker for worker in having if app.name in worker.unreachable_apps]
    if cut_off:
        hosts = sorted({worker.host for worker in cut_off})
        others = len(cut_off) < len(having)
        yield Finding(
            Level.WARNING if others else Level.STOPPED,
            app.name,
            f"{app.name}: {'host' if len(hosts) == 1 else 'hosts'} {', '.join(hosts)} cannot send",
            "The provider cannot be reached from there, or the clock there is wrong. The host"
            " claims nothing, and probes until it can send again."
            + (" Other workers send meanwhile." if others else ""),
            "Run `dispatcher check` there: it says which of network, DNS, certificate or clock it"
            " is. The worker goes on by itself.",
        )


def _paused(app: AppState, since: datetime) -> Finding:
    if app.paused_by == "operator":
        return Finding(
            Level.STOPPED,
            app.name,
            f"{app.name} is paused by an operator",
            app.pause_reason or "No reason was given.",
            f"Resume it when the reason is gone. It waits since {since:%Y-%m-%d %H:%M} UTC.",
            act="resume",
        )
    if app.paused_by == "report":
        status = report_status(app.pause_code or "")
        return Finding(
            Level.STOPPED,
            app.name,
            f"{app.name} is paused: the platform refuses all it has accepted",
            f"{app.pause_code}: {status.meaning} Its reports say so.",
            f"{status.advice} Then resume it"
            + (f", and `dispatcher requeue --code {status.status}`." if status.resendable else "."),
            act="resume",
        )
    row = request_code(app.pause_code or "")
    reason = app.pause_reason or row.meaning
    code = f"{app.pause_code}: " if app.pause_code else ""
    cause = code + reason.removesuffix(row.advice).strip()
    return Finding(
        Level.STOPPED,
        app.name,
        f"{app.name} is paused: {_CODES.get(row.code) or _kind(row.kind)}",
        cause,
        f"{row.advice.replace('<NAME>', app.name.upper())} Nothing is lost meanwhile."
        f" It waits since {since:%Y-%m-%d %H:%M} UTC.",
        act="resume",
    )


_CODES = {
    "daily-limit": "its daily limit is reached",
    UNKNOWN_RESULTS: "the results of its requests are unknown",
    ALL_REFUSED: "the provider refuses every message",
}
_KINDS = {
    Kind.CONFIGURATION: "the provider refuses our settings",
    Kind.CLOCK: "our clock is wrong",
    Kind.ACCOUNT: "the provider refuses the account or its key",
    Kind.ADDRESS: "our address is not on the white list",
    Kind.QUOTA: "the quota is spent",
    Kind.NOT_SENT: "the provider cannot be reached",
}


def _kind(kind: Kind) -> str:
    return _KINDS.get(kind, "the provider refuses everything")


def _rate_limit(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    setting, rate = app.numbers_per_second, app.rate
    slowed = _slowed(app)
    if slowed:
        row = number_code("E200015")
        yield Finding(
            Level.WARNING,
            app.name,
            f"{app.name} is slowed down: {rate or 0:.0f} of {setting:.0f} numbers a second",
            f"E200015: {row.meaning}",
            row.advice,
        )
    late = now.at - app.oldest_due_at if app.oldest_due_at else timedelta()
    if late > MAX_QUEUE_WAIT and not slowed:
        yield Finding(
            Level.NOTE,
            app.name,
            f"{app.name}: the oldest due message has waited {duration(late.total_seconds())}",
            "More messages are due than are sent"
            + (f" at {rate:.0f} numbers a second." if rate is not None else "."),
            "Wait for it, or raise __NUMBERS_PER_SECOND if the provider allows more, or start"
            " another worker if this one is busy.",
        )


def _stalled(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find an app of which messages are due, and nothing at all happens."""
    late = now.at - app.oldest_due_at if app.oldest_due_at else timedelta()
    patience = max(MAX_STALL, timedelta(seconds=2 / max(app.rate or 1.0, 0.001)))
    lately = any(each.app == app.name and now.at - each.minute < patience for each in now.recent)
    served = any(worker.alive and app.name in worker.apps for worker in now.workers)
    if served and late > patience and not app.sending and not lately:
        yield Finding(
            Level.STOPPED,
            app.name,
            f"{app.name}: nothing goes out, and a message is due since"
            f" {duration(late.total_seconds())}",
            "A worker runs and claims nothing.",
            "See its log. The database may refuse it connections: `dispatcher check` counts them.",
        )


def _slowed(app: AppState) -> bool:
    setting, rate = app.numbers_per_second, app.rate
    return setting is not None and rate is not None and rate < setting * 0.95


def _answers(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find codes that stop a large share of the messages, lately or within this hour."""
    passed_over = {("deferred", "never-sent")}
    if _slowed(app):
        passed_over.add(("deferred", "E200015"))  # reported with the rate limit
    failed: Counter[tuple[str, str]] = Counter()
    good = 0
    for each in now.recent:
        if each.app != app.name:
            continue
        if each.event == "accepted":
            good += each.count
        elif each.event in _FAILED and (each.event, each.code) not in passed_over:
            failed[each.event, each.code] += each.count
    whole = good + failed.total()
    reported = set()
    for (event, code), count in failed.most_common():
        # Of few messages, one bad row is a large share: then more than half must fail.
        if count < whole * REJECTED_SHARE if whole >= MIN_SAMPLE_MESSAGES else 2 * count <= whole:
            continue
        reported.add(code)
        yield _failing(app, event, code, count=count, good=good)
    for total in now.totals:
        late = total.event in ("rejected", "expired") and total.app == app.name and total.hour
        if late and total.code not in reported and total.hour >= _hourly(app, now) * REJECTED_SHARE:
            row = number_code(total.code)
            yield Finding(
                Level.NOTE,
                app.name,
                f"{app.name}: {plural(total.hour, 'message')} {total.event} in the last hour",
                f"{total.code}: {row.meaning}",
                row.advice.replace("<NAME>", app.name.upper()),
            )


_FAILED = frozenset({"rejected", "expired", "deferred"})


def _failing(app: AppState, event: str, code: str, *, count: int, good: int) -> Finding:
    row = number_code(code)
    if event == "deferred" and (good > count or row.level == "ours"):
        level = Level.NOTE  # they are sent later, as intended
    elif good or count < MIN_SAMPLE_MESSAGES:
        level = Level.WARNING
    else:
        level = Level.STOPPED
    if good:
        title = f"{count / (count + good):.0%} of the last ten minutes' messages were {event}"
    else:
        title = f"{plural(count, 'message')} {event} in ten minutes, none accepted"
    advice = row.advice.replace("<NAME>", app.name.upper())
    return Finding(level, app.name, f"{app.name}: {title}", f"{code}: {row.meaning}", advice)


def _hourly(app: AppState, now: StatusSnapshot) -> int:
    ended = ("accepted", "rejected", "expired")
    return sum(each.hour for each in now.totals if each.app == app.name and each.event in ended)


def _reports(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find missing status reports: the only sign of a wrong callback address."""
    step = (
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside: `dispatcher"
        " check` posts a test report to it. A report that is not received is lost: the provider"
        " never repeats it."
    )
    for each in now.awaiting:
        if each.app != app.name:
            continue
        many = each.accepted >= MIN_SAMPLE_MESSAGES
        limit = MAX_REPORT_SILENCE if many else MAX_REPORT_SILENCE_OF_FEW
        silent = timedelta(seconds=each.oldest_seconds or 0.0) > limit
        if each.waiting == each.accepted and silent:
            yield Finding(
                Level.WARNING,
                app.name,
                f"{app.name}: not a single status report comes in",
                f"{plural(each.accepted, 'message')} accepted, the first"
                f" {duration(each.oldest_seconds or 0.0)} ago, and nothing"
                " was reported of any.",
                step,
            )
        elif each.accepted >= MIN_SAMPLE_MESSAGES and each.overdue >= each.accepted * OVERDUE_SHARE:
            yield Finding(
                Level.WARNING,
                app.name,
                f"{app.name}: {number(each.overdue)} status reports are overdue",
                f"Of {number(each.accepted)} accepted messages, {each.overdue / each.accepted:.0%}"
                " have no report after more than an hour.",
                step,
            )
