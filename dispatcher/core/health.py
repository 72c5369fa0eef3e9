"""Overall health: whether messages are sent, and if not, why and what to do.

The console and `dispatcher status` show this first.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.format import plural
from dispatcher.core.health_checks import Finding, Level, check_app, is_of_sending
from dispatcher.core.language import N_, _
from dispatcher.core.status import AppState, EventCount, EventTotal, MissingReports, StatusSnapshot
from dispatcher.core.stored_texts import FAILING_PARTS, stored_text

__all__ = ["AppHealth", "Diagnosis", "Finding", "Level", "database_unavailable", "diagnose"]

OfApp = TypeVar("OfApp", EventCount, EventTotal, MissingReports)
RECENT = timedelta(minutes=2)  # counters are by the minute
MAX_NAMED_APPS = 3  # in a headline
LOOKED_AT_ONCE = ("spool", "connections")  # parts that a worker checks only as it starts
NOTHING_SENT = N_("Messages are not going out.")
ONLY_STOPPED_DUE = N_("Only messages of stopped campaigns are due.")


class AppHealth(Struct, frozen=True):
    """One sentence about one app: whether its messages are sent, and if not, why."""

    app: str
    level: Level
    sentence: str


class Diagnosis(Struct, frozen=True):
    """A headline, one sentence for each app, and all findings, the worst first."""

    level: Level
    headline: str
    findings: list[Finding]
    apps: list[AppHealth] = []


def database_unavailable(why: str) -> Diagnosis:
    """Return the diagnosis while the database is unavailable; *why* is the error line."""
    finding = Finding(
        Level.STOPPED,
        None,
        _("The database is unavailable"),
        why,
        _(
            "Bring PostgreSQL back. Nothing is lost: answers and reports wait in the spool, and"
            " workers go on by themselves. `dispatcher check` says whether it answers again."
        ),
    )
    return Diagnosis(Level.STOPPED, _(NOTHING_SENT), [finding])


def diagnose(now: StatusSnapshot) -> Diagnosis:
    """Return the health that *now* shows."""
    everywhere = [*_workers(now), *_unreadable(now)]
    by_app = {app.name: [*check_app(app, of)] for app, of in _by_app(now)}
    findings = [*everywhere, *(each for found in by_app.values() for each in found)]
    findings.sort(key=lambda finding: -finding.level)
    said = [_app_health(app, now, [*everywhere, *by_app[app.name]]) for app in now.apps]
    level = max((finding.level for finding in findings), default=Level.FINE)
    return Diagnosis(level, _headline(now, level, said), findings, said)


def _by_app(now: StatusSnapshot) -> Iterator[tuple[AppState, StatusSnapshot]]:
    """Yield each app and what *now* has of it; else each check would read the counts of all."""
    recent, totals = _grouped(now.recent), _grouped(now.totals)
    awaiting = _grouped(now.awaiting)
    for app in now.apps:
        name = app.name
        yield app, replace(now, recent=recent[name], totals=totals[name], awaiting=awaiting[name])


def _grouped(counts: Iterable[OfApp]) -> defaultdict[str, list[OfApp]]:
    groups = defaultdict[str, list[OfApp]](list)
    for each in counts:
        groups[each.app].append(each)
    return groups


def _headline(now: StatusSnapshot, level: Level, said: Sequence[AppHealth]) -> str:
    stopped = [each.app for each in said if each.level is Level.STOPPED]
    if level is Level.STOPPED:
        if len(stopped) == len(said):
            return _(NOTHING_SENT)
        if len(stopped) > MAX_NAMED_APPS:
            return _("Messages are going out, but not those of {count} of {all} apps.").format(
                count=len(stopped), all=len(said)
            )
        return _("Messages are going out, but not those of {names}.").format(
            names=_(" and ").join(stopped)
        )
    if not now.apps:
        return _("No app has been seen yet.")
    busy = any(app.oldest_due_at or app.sending for app in now.apps)
    if level is Level.NOTE and not busy and any(app.stopped_campaigns for app in now.apps):
        return _(ONLY_STOPPED_DUE)
    return _(_HEADLINES[level, busy])


_HEADLINES = {
    (Level.FINE, True): N_("Messages are going out."),
    (Level.FINE, False): N_("All is sent; nothing is due."),
    (Level.NOTE, True): N_("Messages are going out."),
    (Level.NOTE, False): N_("Nothing is due."),
    (Level.WARNING, True): N_("Messages are going out, with problems."),
    (Level.WARNING, False): N_("Nothing is due, but there are problems."),
}


def _app_health(app: AppState, now: StatusSnapshot, findings: Sequence[Finding]) -> AppHealth:
    worst = max(findings, key=lambda finding: finding.level, default=None)
    if worst is not None and worst.level >= Level.WARNING:
        flow = _("Nothing goes out") if worst.level is Level.STOPPED else _("Problem")
        what = worst.title
        for start in (_(": "), _(" is paused: "), _(" is ")):
            what = what.removeprefix(app.name + start)
        return AppHealth(
            app.name,
            worst.level,
            _("{flow}: {what}.").format(flow=flow, what=what[:1].lower() + what[1:]),
        )
    if app.sending or app.oldest_due_at or _sent_lately(app, now):
        return AppHealth(app.name, Level.FINE, _("Messages go out."))
    if app.stopped_campaigns:
        return AppHealth(app.name, Level.FINE, _(ONLY_STOPPED_DUE))
    return AppHealth(app.name, Level.FINE, _("Nothing is due."))


def _sent_lately(app: AppState, now: StatusSnapshot) -> bool:
    """Return whether messages were sent within the last two minutes.

    Between two messages nothing is due, but the app is in use.
    """
    return any(
        each.app == app.name
        and each.event == "accepted"
        and is_of_sending(each)
        and now.at - each.minute < RECENT
        for each in now.recent
    )


def _unreadable(now: StatusSnapshot) -> Iterator[Finding]:
    if now.unreadable.pushes:
        count = now.unreadable.pushes
        yield Finding(
            Level.NOTE,
            None,
            _("{pushes} of reports cannot be read").format(pushes=plural(count, "push", "pushes")),
            _("They are kept as they came, and each may hold the only report of a message."),
            _(
                "`dispatcher reports --unreadable` lists them with the reason; after an upgrade"
                " `dispatcher reports --replay` reads them again."
            ),
        )


def _workers(now: StatusSnapshot) -> Iterator[Finding]:
    if not any(worker.alive for worker in now.workers):
        yield Finding(
            Level.STOPPED,
            None,
            _("No worker is running"),
            _("No worker has renewed its lease, so nobody sends."),
            _("Start one: `dispatcher run`. If it ends at once, its last line says why."),
        )
    elif silent := [worker for worker in now.workers if not worker.alive]:
        names = _(", ").join(
            sorted(
                {
                    _("{host} (process {pid})").format(host=worker.host, pid=worker.pid)
                    for worker in silent
                }
            )
        )
        yield Finding(
            Level.NOTE,
            None,
            _("A worker is silent"),
            _("{names} stopped without a shutdown, or cannot reach the database.").format(
                names=names
            ),
            _("Other workers have taken over; its open requests are unsure. See its log."),
        )
    yield from _failing_parts(now)


def _failing_parts(now: StatusSnapshot) -> Iterator[Finding]:
    """Yield each part that fails, once for all the hosts where it does for the same reason."""
    hosts = defaultdict[str, set[str]](set)
    for worker in now.workers:
        for line in worker.failing_parts if worker.alive else ():
            hosts[line].add(worker.host)
    for line in sorted(hosts):
        part, _sep, why = line.partition(": ")
        yield Finding(
            Level.WARNING,
            None,
            _("A part of a worker on {hosts} fails: {part}").format(
                hosts=_(", ").join(sorted(hosts[line])), part=stored_text(part, FAILING_PARTS)
            ),
            stored_text(why),
            _("Correct what it names, then restart the worker: this is checked only at its start.")
            if part in LOOKED_AT_ONCE
            else _("Correct what it names; the part is tried again by itself."),
        )
