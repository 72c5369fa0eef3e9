"""The screen of ``dispatcher status``."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from dispatcher.cli.output import table_of
from dispatcher.core.format import duration, number
from dispatcher.core.health import Diagnosis, Finding, Level
from dispatcher.core.status import WAITING_COUNTED, AppState, StatusSnapshot

_STYLES = {
    Level.FINE: "bold green",
    Level.NOTE: "bold blue",
    Level.WARNING: "bold yellow",
    Level.STOPPED: "bold red",
}


def render(found: Diagnosis, now: StatusSnapshot | None) -> RenderableType:
    """Return the whole screen; the headline says whether messages are sent."""
    parts: list[RenderableType] = [Text(found.headline, _STYLES[found.level])]
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
    yield Text(finding.title, _STYLES[finding.level])
    step = Text.assemble(("What to do: ", "bold"), finding.step)
    for text in (Text(finding.cause), step):
        yield Padding(text, (0, 0, 0, 2), expand=False)


def _apps(now: StatusSnapshot) -> RenderableType:
    if not now.apps:
        return "No app has been seen yet: start `dispatcher run`."
    table = table_of("App", "State")
    for name in ("Waiting", "Oldest due", "Sending", "Unsure batches", "Numbers/s", "Allowed"):
        table.add_column(name, justify="right")
    for app in now.apps:
        many = app.waiting > WAITING_COUNTED
        table.add_row(
            app.name,
            _state(app),
            f"over {number(WAITING_COUNTED)}" if many else number(app.waiting),
            _since(app.oldest_due_at, now.at),
            number(app.sending),
            number(app.unsure_batches),
            "no limit" if app.rate is None else f"{app.rate:g}",
            "no limit" if app.numbers_per_second is None else f"{app.numbers_per_second:g}",
        )
    return table


def _state(app: AppState) -> str:
    if not app.known:
        return "unknown"
    if app.paused_at:
        return "paused"
    return "sending" if app.sending or app.oldest_due_at else "idle"


def _unsure(now: StatusSnapshot) -> RenderableType:
    table = table_of()
    table.add_column("Unsure batch", min_width=32)  # a token must be shown completely, to be copied
    for name in ("App", "Messages", "For", "Why"):
        table.add_column(name)
    for batch in now.unsure:
        why = ": ".join(filter(None, (batch.code, batch.description)))
        since = _since(batch.unsure_at, now.at)
        table.add_row(batch.token, batch.app, number(batch.messages), since, why)
    return table


def _workers(now: StatusSnapshot) -> RenderableType:
    table = table_of(
        "Worker", "Host", "Process", "Version", "Apps", "Running for", "Last heartbeat"
    )  # fmt: skip
    for worker in now.workers:
        heard = f"{duration(worker.silent_seconds)} ago"
        table.add_row(
            str(worker.id),
            worker.host,
            str(worker.pid),
            worker.version,
            " ".join(worker.apps),
            _since(worker.started_at, now.at),
            heard + ("" if worker.alive else ": dead"),
        )
    return table


def _totals(now: StatusSnapshot) -> RenderableType:
    table = table_of("App", "What happened", "Code")
    table.add_column("Last hour", justify="right")
    table.add_column("Last day", justify="right")
    for total in now.totals:
        table.add_row(total.app, total.event, total.code, number(total.hour), number(total.day))
    return table


def _since(time: datetime | None, now: datetime) -> str:
    return "-" if time is None else duration((now - time).total_seconds())
