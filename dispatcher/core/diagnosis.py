"""Do texts go out; and if not, why, and what to do: read from the state of everything.

What is shown first, in the console as in `dispatcher status`, is decided here and nowhere else.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

from msgspec import Struct

from dispatcher.core.codes import Kind, number_code, request_code
from dispatcher.core.overview import AppState, Now

LATE = timedelta(seconds=60)  # a due message that waits longer says that something is slow
MANY = 0.05  # of the messages of ten minutes: so many rejected are no accident
SILENT = timedelta(minutes=5)  # without any report at all
OVERDUE = 0.2  # of the accepted; some phones are off for days, but not so many
ENOUGH = 20  # messages; below, one bad row is a large share


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


class Diagnosis(Struct, frozen=True):
    """What to tell first, and every finding, the worst first."""

    level: Level
    headline: str
    findings: list[Finding]


def absent(why: str) -> Diagnosis:
    """Return the diagnosis while the database does not answer; *why* says so in one line."""
    finding = Finding(
        Level.STOPPED,
        None,
        "The database is away",
        why,
        "Bring PostgreSQL back. Nothing is lost: answers wait on disk, reports in the spool, and"
        " workers go on by themselves.",
    )
    return Diagnosis(Level.STOPPED, "Messages are not going out.", [finding])


def diagnose(now: Now) -> Diagnosis:
    """Return what the state of everything means."""
    findings = [*_workers(now)]
    for app in now.apps:
        findings += _app(app, now)
    findings.sort(key=lambda finding: -finding.level)
    level = max((finding.level for finding in findings), default=Level.FINE)
    return Diagnosis(level, _headline(now, level), findings)


def _headline(now: Now, level: Level) -> str:
    waiting = any(app.oldest_due_at for app in now.apps)
    sending = any(not _held(app) for app in now.apps) and any(w.alive for w in now.workers)
    if level is Level.STOPPED and not sending:
        return "Messages are not going out."
    if level is Level.STOPPED:
        held = " and ".join(app.name for app in now.apps if _held(app))
        return f"Messages are going out, but not those of {held}."
    if not now.apps:
        return "No app has been seen yet."
    if level is Level.TROUBLE:
        return "Messages are going out, with trouble."
    if waiting or any(app.sending for app in now.apps):
        return "Messages are going out."
    return "All is sent; nothing is due."


def _held(app: AppState) -> bool:
    return app.paused_at is not None or not app.known


def _workers(now: Now) -> Iterator[Finding]:
    if not any(worker.alive for worker in now.workers):
        yield Finding(
            Level.STOPPED,
            None,
            "No worker is running",
            "No worker has said within its lease that it lives, so nobody sends.",
            "Start one: `dispatcher run`. If it ends at once, its last line says why.",
        )
    elif silent := [worker for worker in now.workers if not worker.alive]:
        names = ", ".join(sorted({f"{worker.host} (process {worker.pid})" for worker in silent}))
        yield Finding(
            Level.NOTE,
            None,
            "A worker fell silent",
            f"{names} ended without signing off, or cannot reach the database.",
            "Others have taken over; what it had on its way is unsure. See its log.",
        )


def _app(app: AppState, now: Now) -> Iterator[Finding]:
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
            " each by hand under Trouble.",
        )
    yield from _answers(app, now)
    yield from _reports(app, now)


def _paused(app: AppState, since: datetime) -> Finding:
    if app.paused_by == "operator":
        return Finding(
            Level.STOPPED,
            app.name,
            f"{app.name} is paused by an operator",
            app.pause_reason or "No reason was given.",
            f"Since {since:%Y-%m-%d %H:%M} UTC. It waits until somebody resumes it.",
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
    Kind.NOT_TAKEN: "the provider cannot be reached",
}


def _kind(kind: Kind) -> str:
    return _KINDS.get(kind, "the provider refuses everything")


def _pace(app: AppState, now: Now) -> Iterator[Finding]:
    setting, rate = app.numbers_per_second, app.rate
    slowed = setting is not None and rate is not None and rate < setting * 0.95
    if slowed:
        row = number_code("E200015")
        yield Finding(
            Level.TROUBLE,
            app.name,
            f"{app.name} is slowed down: {rate:.0f} of {setting:.0f} numbers a second",
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


def _answers(app: AppState, now: Now) -> Iterator[Finding]:
    """Find codes that keep a good part of the last ten minutes' messages from going out."""
    failed: Counter[tuple[str, str]] = Counter()
    good = 0
    for each in now.recent:
        if each.app != app.name:
            continue
        if each.event == "accepted":
            good += each.count
        elif each.event in ("rejected", "expired", "deferred"):
            failed[each.event, each.code] += each.count
    for (event, code), count in failed.most_common():
        whole = good + failed.total()
        if whole < ENOUGH or count < whole * MANY or (event, code) == ("deferred", "never-sent"):
            continue
        row = number_code(code)
        yield Finding(
            Level.NOTE if event == "deferred" else Level.TROUBLE,
            app.name,
            f"{app.name}: {count / whole:.0%} of the last ten minutes' messages {event}",
            f"{code}: {row.meaning}",
            row.advice.replace("<NAME>", app.name.upper()),
        )


def _reports(app: AppState, now: Now) -> Iterator[Finding]:
    """Find missing status reports: the only sign that the callback address is broken."""
    step = (
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside: `dispatcher check`"
        " posts a test report to it. What is not received is lost: the provider never repeats it."
    )
    for each in now.awaiting:
        if each.app != app.name or each.accepted < ENOUGH:
            continue
        if each.waiting == each.accepted and (each.oldest_seconds or 0.0) > SILENT.total_seconds():
            yield Finding(
                Level.TROUBLE,
                app.name,
                f"{app.name}: not a single status report comes in",
                f"{each.accepted:,} messages were accepted, the first"
                f" {_duration(timedelta(seconds=each.oldest_seconds or 0.0))} ago, and nothing"
                " was reported of any.",
                step,
            )
        elif each.overdue >= each.accepted * OVERDUE:
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
