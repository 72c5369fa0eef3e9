"""What keeps the messages of one app from going out, read from the state of everything."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

from msgspec import Struct

from dispatcher.core.codes import Kind, number_code, request_code
from dispatcher.core.status import AppState, StatusSnapshot


class Level(IntEnum):
    """How bad it is."""

    FINE = 0
    NOTE = 1  # to know
    TROUBLE = 2  # something fails, the rest goes out
    STOPPED = 3  # nothing goes out, for one app or for all


class Finding(Struct, frozen=True):
    """One thing that is not as it should be."""

    level: Level
    app: str | None  # None: it is about everything
    title: str
    cause: str
    step: str  # what to do next
    act: str = ""  # pause, resume: what the console offers for it


LATE = timedelta(seconds=60)  # a due message that waits longer says that something is slow
MANY = 0.05  # of the messages of ten minutes: so many rejected are no accident
SILENT = timedelta(minutes=5)  # without any report at all
SILENT_FEW = timedelta(hours=1)  # the same, where there are but a few that may be off or abroad
OVERDUE = 0.2  # of the accepted; some phones are off for days, but not so many
ENOUGH = 20  # messages; below, one bad row is a large share


def check_app(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find what keeps the messages of *app* from going out, or from being reported."""
    if not app.known:
        yield Finding(
            Level.STOPPED,
            app.name,
            f"{app.name}: no worker knows this app",
            "Messages wait for it, and it is not configured.",
            f"Set DISPATCHER_APPS__{app.name.upper()}__ENDPOINT, __APP_KEY and __APP_SECRET and"
            " start the worker again; or cancel them, and insert them with the right app.",
        )
        return
    if app.paused_at is not None:
        yield _paused(app, app.paused_at)
    else:
        yield from _orphaned(app, now)
        yield from _cut_off(app, now)
        yield from _pace(app, now)
    for country in app.paused_countries:
        row = request_code("E000630")
        yield Finding(
            Level.TROUBLE, app.name, f"{app.name}: nothing goes to {country}", row.meaning,
            row.advice,
        )  # fmt: skip
    if app.unsure_batches:
        yield Finding(
            Level.TROUBLE,
            app.name,
            f"{app.name}: {app.unsure_batches} unsure {_plural('request', app.unsure_batches)}",
            "They may have been sent: the answer was lost, and no report has come yet.",
            "A report or a late answer settles them. If none comes, ask the provider, and settle"
            " each by hand: `dispatcher settle`, or Trouble in the console.",
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


def _cut_off(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find hosts that have no way to the provider, while others may have one."""
    having = [worker for worker in now.workers if worker.alive and app.name in worker.apps]
    cut_off = [worker for worker in having if app.name in worker.cut_off]
    if cut_off:
        hosts = sorted({worker.host for worker in cut_off})
        others = len(cut_off) < len(having)
        yield Finding(
            Level.TROUBLE if others else Level.STOPPED,
            app.name,
            f"{app.name}: {_plural('host', len(hosts))} {', '.join(hosts)} cannot send",
            "The provider cannot be reached from there, or the clock there is wrong. It claims"
            " nothing, and knocks until it can send again."
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
            f"Resume it when that is over. It waits since {since:%Y-%m-%d %H:%M} UTC.",
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
        row.advice.replace("<NAME>", app.name.upper()) + " Nothing is lost meanwhile.",
        act="resume",
    )


_CODES = {"ceiling": "its own ceiling for a day is reached"}
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


def _pace(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    setting, rate = app.numbers_per_second, app.rate
    slowed = _slowed(app)
    if slowed:
        row = number_code("E200015")
        yield Finding(
            Level.TROUBLE,
            app.name,
            f"{app.name} is slowed down: {rate or 0:.0f} of {setting:.0f} numbers a second",
            f"E200015: {row.meaning}",
            row.advice,
        )
    late = now.at - app.oldest_due_at if app.oldest_due_at else timedelta()
    if late > LATE and not slowed:
        yield Finding(
            Level.NOTE,
            app.name,
            f"{app.name}: the oldest due message has waited {_duration(late)}",
            "More is due than goes out"
            + (f" at {rate:.0f} numbers a second." if rate is not None else "."),
            "Wait for it, or raise __NUMBERS_PER_SECOND if the provider allows more, or start"
            " another worker if this one is busy.",
        )


def _slowed(app: AppState) -> bool:
    setting, rate = app.numbers_per_second, app.rate
    return setting is not None and rate is not None and rate < setting * 0.95


def _answers(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find codes that keep a good part of the messages from going out, lately or this hour."""
    passed_over = {("deferred", "never-sent")}
    if _slowed(app):
        passed_over.add(("deferred", "E200015"))  # told with the pace
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
    told = set()
    for (event, code), count in failed.most_common():
        # Of a few messages, one bad row is a large share; more than half of them is no accident.
        if count < whole * MANY if whole >= ENOUGH else 2 * count <= whole:
            continue
        told.add(code)
        yield _failing(app, event, code, count=count, good=good)
    for total in now.totals:
        late = total.event in ("rejected", "expired") and total.app == app.name and total.hour
        if late and total.code not in told and total.hour >= _hourly(app, now) * MANY:
            row = number_code(total.code)
            yield Finding(
                Level.NOTE,
                app.name,
                f"{app.name}: {total.hour:,} {_plural('message', total.hour)} {total.event} in the"
                " last hour",
                f"{total.code}: {row.meaning}",
                row.advice.replace("<NAME>", app.name.upper()),
            )


_FAILED = frozenset({"rejected", "expired", "deferred"})


def _failing(app: AppState, event: str, code: str, *, count: int, good: int) -> Finding:
    row = number_code(code)
    if event == "deferred" and (good > count or row.level == "ours"):
        level = Level.NOTE  # they go out later, as they should
    elif good or count < ENOUGH:
        level = Level.TROUBLE
    else:
        level = Level.STOPPED
    if good:
        title = f"{count / (count + good):.0%} of the last ten minutes' messages were {event}"
    else:
        title = f"{count:,} {_plural('message', count)} {event} in ten minutes, none accepted"
    advice = row.advice.replace("<NAME>", app.name.upper())
    return Finding(level, app.name, f"{app.name}: {title}", f"{code}: {row.meaning}", advice)


def _hourly(app: AppState, now: StatusSnapshot) -> int:
    ended = ("accepted", "rejected", "expired")
    return sum(each.hour for each in now.totals if each.app == app.name and each.event in ended)


def _reports(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find missing status reports: the only sign that the callback address is broken."""
    step = (
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside: `dispatcher check`"
        " posts a test report to it. What is not received is lost: the provider never repeats it."
    )
    for each in now.awaiting:
        if each.app != app.name:
            continue
        patience = SILENT if each.accepted >= ENOUGH else SILENT_FEW
        silent = timedelta(seconds=each.oldest_seconds or 0.0) > patience
        if each.waiting == each.accepted and silent:
            yield Finding(
                Level.TROUBLE,
                app.name,
                f"{app.name}: not a single status report comes in",
                f"{each.accepted:,} {_plural('message', each.accepted)} accepted, the first"
                f" {_duration(timedelta(seconds=each.oldest_seconds or 0.0))} ago, and nothing"
                " was reported of any.",
                step,
            )
        elif each.accepted >= ENOUGH and each.overdue >= each.accepted * OVERDUE:
            yield Finding(
                Level.TROUBLE,
                app.name,
                f"{app.name}: {each.overdue:,} status reports are overdue",
                f"Of {each.accepted:,} accepted messages, {each.overdue / each.accepted:.0%} have"
                " no report after more than an hour.",
                step,
            )


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"
