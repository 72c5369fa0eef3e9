"""Do texts go out; and if not, why, and what to do: read from the state of everything.

What is shown first, in the console as in `dispatcher status`, is decided here and nowhere else.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from msgspec import Struct

from dispatcher.core.health_checks import Finding, Level, check_app
from dispatcher.core.status import AppState, StatusSnapshot

__all__ = ["AppHealth", "Diagnosis", "Finding", "Level", "absent", "diagnose"]

LATELY = timedelta(minutes=2)  # counters are by the minute
NOTHING = "Messages are not going out."


class AppHealth(Struct, frozen=True):
    """One app in one sentence: whether its messages go out, and if not, why."""

    app: str
    level: Level
    sentence: str


class Diagnosis(Struct, frozen=True):
    """What to tell first; a sentence for each app; and every finding, the worst first."""

    level: Level
    headline: str
    findings: list[Finding]
    apps: list[AppHealth] = []


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
    return Diagnosis(Level.STOPPED, NOTHING, [finding])


def diagnose(now: StatusSnapshot) -> Diagnosis:
    """Return what the state of everything means."""
    everywhere = [*_workers(now)]
    by_app = {app.name: [*check_app(app, now)] for app in now.apps}
    findings = [*everywhere, *(each for found in by_app.values() for each in found)]
    findings.sort(key=lambda finding: -finding.level)
    said = [_said(app, now, [*everywhere, *by_app[app.name]]) for app in now.apps]
    level = max((finding.level for finding in findings), default=Level.FINE)
    return Diagnosis(level, _headline(now, level, said), findings, said)


def _headline(now: StatusSnapshot, level: Level, said: Sequence[AppHealth]) -> str:
    stopped = [each.app for each in said if each.level is Level.STOPPED]
    if level is Level.STOPPED:
        if len(stopped) == len(said):
            return NOTHING
        return f"Messages are going out, but not those of {' and '.join(stopped)}."
    if not now.apps:
        return "No app has been seen yet."
    busy = any(app.oldest_due_at or app.sending for app in now.apps)
    return _IN_WORDS[level, busy]


_IN_WORDS = {
    (Level.FINE, True): "Messages are going out.",
    (Level.FINE, False): "All is sent; nothing is due.",
    (Level.NOTE, True): "Messages are going out.",
    (Level.NOTE, False): "Nothing is due.",
    (Level.TROUBLE, True): "Messages are going out, with trouble.",
    (Level.TROUBLE, False): "Nothing is due, but there is trouble.",
}


def _said(app: AppState, now: StatusSnapshot, findings: Sequence[Finding]) -> AppHealth:
    worst = max(findings, key=lambda finding: finding.level, default=None)
    if worst is not None and worst.level >= Level.TROUBLE:
        flow = "Nothing goes out" if worst.level is Level.STOPPED else "Trouble"
        what = worst.title
        for start in (": ", " is paused: ", " is "):
            what = what.removeprefix(app.name + start)
        return AppHealth(app.name, worst.level, f"{flow}: {what[:1].lower()}{what[1:]}.")
    if app.sending or app.oldest_due_at or _sent_lately(app, now):
        return AppHealth(app.name, Level.FINE, "Messages go out.")
    return AppHealth(app.name, Level.FINE, "Nothing is due.")


def _sent_lately(app: AppState, now: StatusSnapshot) -> bool:
    """Tell whether messages went out in this minute or the last: between two, nothing is due."""
    return any(
        each.app == app.name and each.event == "accepted" and now.at - each.minute < LATELY
        for each in now.recent
    )


def _workers(now: StatusSnapshot) -> Iterator[Finding]:
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
