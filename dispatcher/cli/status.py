"""``dispatcher status``: what is going on, on one screen."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dispatcher.db.admin import AppState, Overview


def status(
    *,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show what waits, what is paused and why, and what was done."""
    from dispatcher.cli.database import with_database
    from dispatcher.cli.screen import screen
    from dispatcher.db.admin import overview

    seen = with_database(overview)
    if json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(seen)))
    else:
        screen().print(drawn(seen))


def drawn(seen: "Overview") -> "RenderableType":
    """Return the whole screen."""
    from rich.console import Group

    parts = [_apps(seen), *_troubles(seen)]
    if seen.workers:
        parts += ["", _workers(seen)]
    if seen.totals:
        parts += ["", _totals(seen)]
    return Group(*parts)


def _apps(seen: "Overview") -> "RenderableType":
    from dispatcher.cli.screen import table_of
    from dispatcher.cli.words import number
    from dispatcher.db.admin import WAITING_COUNTED

    table = table_of("App", "State")
    for name in ("Waiting", "Oldest due", "Sending", "Unsure batches", "Numbers/s", "Allowed"):
        table.add_column(name, justify="right")
    for app in seen.apps:
        many = app.waiting > WAITING_COUNTED
        table.add_row(
            app.name,
            _state(app),
            f"over {number(WAITING_COUNTED)}" if many else number(app.waiting),
            _ago(app.oldest_due_at),
            number(app.sending),
            number(app.unsure_batches),
            "no limit" if app.rate is None else f"{app.rate:g}",
            "no limit" if app.numbers_per_second is None else f"{app.numbers_per_second:g}",
        )
    return table if seen.apps else "No app has been seen yet: start `dispatcher run`."


def _state(app: "AppState") -> str:
    if not app.known:
        return "unknown"
    return "paused" if app.paused_at else "sending"


def _troubles(seen: "Overview") -> "list[str]":
    """Return a line for everything that keeps messages from going out."""
    lines = []
    for app in seen.apps:
        if not app.known:
            lines.append(
                f"{app.name}: messages wait, and no worker knows this app. Configure"
                f" DISPATCHER_APPS__{app.name.upper()}__..., or correct the column app."
            )
        elif app.paused_at:
            code = f" ({app.pause_code})" if app.pause_code else ""
            by = " by an operator" if app.paused_by == "operator" else ""
            lines.append(
                f"{app.name}: paused{by} {_ago(app.paused_at)} ago{code}: {app.pause_reason}"
            )
        if app.unsure_batches:
            lines.append(
                f"{app.name}: {app.unsure_batches} unsure; `dispatcher settle` settles one."
            )
        lines += [
            f"{app.name}: nothing goes to {c}, its quota is spent." for c in app.paused_countries
        ]
    if not any(worker.alive for worker in seen.workers):
        lines.append("No worker is running: start `dispatcher run`.")
    return lines


def _workers(seen: "Overview") -> "RenderableType":
    from dispatcher.cli.screen import table_of
    from dispatcher.cli.words import duration

    table = table_of(
        "Worker",
        "Host",
        "Process",
        "Version",
        "Apps",
        "Running for",
        "Last heard of",
    )
    for worker in seen.workers:
        table.add_row(
            str(worker.id),
            worker.host,
            str(worker.pid),
            worker.version,
            " ".join(worker.apps),
            _ago(worker.started_at),
            f"{duration(worker.silent_seconds)} ago" + ("" if worker.alive else ": dead"),
        )
    return table


def _totals(seen: "Overview") -> "RenderableType":
    from dispatcher.cli.screen import table_of
    from dispatcher.cli.words import number

    table = table_of("App", "What happened", "Code")
    table.add_column("Last hour", justify="right")
    table.add_column("Last day", justify="right")
    for total in seen.totals:
        table.add_row(total.app, total.event, total.code, number(total.hour), number(total.day))
    return table


def _ago(time: datetime | None) -> str:
    from dispatcher.cli.words import duration

    if time is None:
        return "-"
    return duration((datetime.now(UTC) - time).total_seconds())
