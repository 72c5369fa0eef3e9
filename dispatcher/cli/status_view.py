"""The screen of ``dispatcher status``."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding

from dispatcher.cli.output import Prose, table_of
from dispatcher.core.format import duration, number
from dispatcher.core.health import Diagnosis, Finding, Level
from dispatcher.core.language import _
from dispatcher.core.status import WAITING_COUNTED, AppState, StatusSnapshot
from dispatcher.core.stored_texts import stored_text

_STYLES = {
    Level.FINE: "bold green",
    Level.NOTE: "bold blue",
    Level.WARNING: "bold yellow",
    Level.STOPPED: "bold red",
}


def render(found: Diagnosis, now: StatusSnapshot | None) -> RenderableType:
    """Return the whole screen; the headline says whether messages are sent."""
    parts: list[RenderableType] = [Prose(found.headline, _STYLES[found.level])]
    for finding in found.findings:
        parts += ["", *_finding(finding)]
    if now is not None:
        parts += ["", _apps(now)]
        if now.unsure:
            parts += ["", _unsure(now)]
        if now.workers:
            parts += ["", _workers(now)]
        if now.totals:
            parts += ["", _totals(now)]
    return Group(*parts)


def _finding(finding: Finding) -> Iterator[RenderableType]:
    yield Prose(finding.title, _STYLES[finding.level])
    for text in (finding.cause, _("What to do: ") + finding.step):
        yield Padding(Prose(text), (0, 0, 0, 2), expand=False)


def _apps(now: StatusSnapshot) -> RenderableType:
    if not now.apps:
        return _("No app has been seen yet: start `dispatcher run`.")
    table = table_of(_("App"), _("State"))
    for name in (
        _("Waiting"),
        _("Due now"),
        _("Oldest due"),
        _("Sending"),
        _("Unsure batches"),
        _("Numbers/s"),
        _("Allowed"),
    ):
        table.add_column(name, justify="right")
    for app in now.apps:
        table.add_row(
            app.name,
            _state(app),
            _counted(app.waiting),
            _counted(app.due),
            _since(app.oldest_due_at, now.at),
            number(app.sending),
            number(app.unsure_batches),
            _("no limit") if app.rate is None else f"{app.rate:g}",
            _("no limit") if app.numbers_per_second is None else f"{app.numbers_per_second:g}",
        )
    return table


def _counted(messages: int) -> str:
    if messages > WAITING_COUNTED:
        return _("over {count}").format(count=number(WAITING_COUNTED))
    return number(messages)


def _state(app: AppState) -> str:
    if not app.known:
        return _("unknown")
    if app.paused_at:
        return _("paused")
    return _("sending") if app.sending or app.oldest_due_at else _("idle")


def _unsure(now: StatusSnapshot) -> RenderableType:
    table = table_of()
    table.add_column(
        _("Unsure batch"), min_width=32
    )  # a token must be shown completely, to be copied
    for name in (_("App"), _("Messages"), _("For"), _("Why")):
        table.add_column(name)
    for batch in now.unsure:
        why = _(": ").join(filter(None, (batch.code, stored_text(batch.description or ""))))
        since = _since(batch.unsure_at, now.at)
        table.add_row(batch.token, batch.app, number(batch.messages), since, why)
    return table


def _workers(now: StatusSnapshot) -> RenderableType:
    table = table_of(
        _("Worker"),
        _("Host"),
        _("Process"),
        _("Version"),
        _("Apps"),
        _("Running for"),
        _("Last heartbeat"),
    )
    for worker in now.workers:
        heard = _("{time} ago").format(time=duration(worker.silent_seconds))
        table.add_row(
            str(worker.id),
            worker.host,
            str(worker.pid),
            worker.version,
            " ".join(worker.apps),
            _since(worker.started_at, now.at),
            heard + ("" if worker.alive else _(": dead")),
        )
    return table


def _totals(now: StatusSnapshot) -> RenderableType:
    table = table_of(_("App"), _("What happened"), _("Code"))
    table.add_column(_("Last hour"), justify="right")
    table.add_column(_("Last day"), justify="right")
    for total in now.totals:
        table.add_row(total.app, _(total.event), total.code, number(total.hour), number(total.day))
    return table


def _since(time: datetime | None, now: datetime) -> str:
    return "-" if time is None else duration((now - time).total_seconds())
