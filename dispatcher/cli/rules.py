"""Operators' own rules: templates, numbers never to send to, and what an app allows itself."""

import getpass
import re
import socket
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.failure import USED_WRONGLY, Failure

if TYPE_CHECKING:
    from dispatcher.core.rules import Limits
    from dispatcher.db.pool import OwnConnection as Connection

NUMBER = re.compile(r"\+?[0-9]{5,20}")
LISTED = 1_000  # suppressed numbers that are listed
SENT_AT_ONCE = 10_000  # numbers in one statement

template = typer.Typer(
    help="Define templates, which variables must then fit.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TemplateId = Annotated[str, typer.Argument(metavar="ID", help="The template's id.")]


@template.command("add")
def add_template(
    template_id: TemplateId,
    *,
    text: Annotated[
        str | None, typer.Option(help="Its text, with variables such as ${NUM_6}.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Or their kinds alone: NUM_6,TXT_20,DATE.")
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Define which variables a template takes, or define it anew."""
    from dispatcher.cli.database import with_database
    from dispatcher.cli.words import plural
    from dispatcher.core.templates import Template, TemplateError, checked_kinds, kinds_of
    from dispatcher.db import rules

    if (text is None) == (kinds is None):
        raise Failure("give either --text or --kinds.", code=USED_WRONGLY)
    if not 1 <= len(template_id) <= 32:  # noqa: PLR2004 - the provider's limit
        raise Failure("a template's id has 1 to 32 characters.", code=USED_WRONGLY)
    try:
        listed = kinds_of(text) if text is not None else checked_kinds((kinds or "").split(","))
    except TemplateError as error:
        raise Failure(f"{error}.", code=USED_WRONGLY) from None
    made = Template(template_id, listed)
    with_database(lambda connection: rules.define_template(connection, made, note, text))
    typer.echo(f"{template_id} takes {plural(len(listed), 'variable')}.")


@template.command("remove")
def remove_template(template_id: TemplateId) -> None:
    """Forget a template: its variables are not checked any more."""
    from dispatcher.cli.database import with_database
    from dispatcher.db import rules

    if not with_database(lambda connection: rules.drop_template(connection, template_id)):
        raise Failure(f"no template {template_id} is defined: see `dispatcher template list`.")
    typer.echo(f"{template_id} is not checked any more.")


@template.command("list")
def list_templates() -> None:
    """Show the templates that are defined."""
    from dispatcher.cli.database import with_database
    from dispatcher.cli.screen import screen, table_of
    from dispatcher.db import rules

    table = table_of("Template", "Variables", "Note")
    for one, note in with_database(rules.templates):
        table.add_row(one.template_id, ", ".join(one.kinds) or "none", note)
    screen().print(table if table.rows else "No template is defined.")


def suppress(
    numbers: Annotated[
        list[str] | None, typer.Argument(metavar="[NUMBER]...", help="Numbers.")
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="A file, a number a line."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who look at it later.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Send to them again.")] = False,
) -> None:
    """Never send to numbers any more, or list them.

    Without numbers, those that are suppressed are listed. A CSV file is
    read for its first column; if one of its lines is no number, nothing
    is changed.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.cli.words import plural
    from dispatcher.db import admin, rules

    wanted = [*_numbers(numbers or []), *(_numbers_of(file) if file else [])]
    if not wanted:
        if file is None:
            _list_suppressed()
        return

    async def work(connection: "Connection") -> int:
        changed = 0
        async with connection.transaction():
            for start in range(0, len(wanted), SENT_AT_ONCE):
                part = wanted[start : start + SENT_AT_ONCE]
                if remove:
                    changed += await rules.unsuppress(connection, part)
                else:
                    changed += await rules.suppress(connection, part, reason)
            what = "unsuppress" if remove else "suppress"
            done = plural(changed, "number")
            await admin.write_down(connection, _who(), what, plural(len(wanted), "number"), done)
        return changed

    changed = with_database(work)
    done = "sent to again" if remove else "suppressed, from a few seconds on"
    typer.echo(f"{plural(changed, 'number')} {done}.")


def limit(
    app: Annotated[str, typer.Argument(help="The app.")],
    *,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Messages to a number.")] = None,
    per_day: Annotated[int | None, typer.Option(min=1, help="Messages to a number.")] = None,
    same_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Of the same text to a number.")
    ] = None,
    same_per_hour: Annotated[
        int | None, typer.Option(min=1, help="Of the same text to a number.")
    ] = None,
    ceiling: Annotated[
        int | None, typer.Option(min=1, help="Messages of the app a day (UTC+8); then it pauses.")
    ] = None,
    quiet: Annotated[
        str | None, typer.Option(help="Hours of night at the recipient: 21:00-08:00.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="No limits any more.")] = False,
) -> None:
    """Set what an app allows itself; without options, show it.

    What is over a limit waits and is lost to nobody. All limits of an app are
    set at once: what is not named is not limited. Priorities 0 and 1 do not
    wait for the morning.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.core.rules import Limits
    from dispatcher.db import admin, rules

    begin, end = _hours(quiet) if quiet else (None, None)
    wanted = Limits(per_minute, per_day, same_per_minute, same_per_hour, ceiling, begin, end)
    if wanted == Limits() and not none:
        known = with_database(rules.limits)
        typer.echo(f"{app}: {_said(known.get(app, Limits()))}")
        return
    if none and wanted != Limits():
        raise Failure("--none takes no limits beside it.", code=USED_WRONGLY)

    async def work(connection: "Connection") -> None:
        async with connection.transaction():
            await rules.set_limits(connection, app, wanted)
            await admin.write_down(connection, _who(), "limit", app, _said(wanted))

    with_database(work)
    typer.echo(f"{app}: {_said(wanted)}")


def _list_suppressed() -> None:
    from dispatcher.cli.database import with_database
    from dispatcher.cli.screen import screen, table_of
    from dispatcher.cli.words import moment
    from dispatcher.db import rules
    from dispatcher.logs import mask

    table = table_of("Number", "Since", "By", "Reason")
    for one in with_database(lambda connection: rules.suppression(connection, limit=LISTED)):
        table.add_row(mask(one.recipient), moment(one.added_at), one.source, one.reason)
    screen().print(table if table.rows else "No number is suppressed.")


def _numbers(given: list[str]) -> list[str]:
    numbers = [re.sub(r"[\s()-]", "", each) for each in given]
    if bad := sum(NUMBER.fullmatch(each) is None for each in numbers):
        raise Failure(
            f"{bad} of {len(given)} are no numbers: 5 to 20 digits after an optional +.",
            code=USED_WRONGLY,
        )
    return numbers


def _numbers_of(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        cells = [line.split(",")[0].strip().strip('"') for line in stream]
    # The first line of a CSV file may be its header.
    if cells and NUMBER.fullmatch(cells[0]) is None:
        cells = cells[1:]
    return _numbers([cell for cell in cells if cell])


def _hours(text: str) -> tuple[time, time]:
    try:
        begin, end = map(time.fromisoformat, text.split("-"))
    except ValueError:
        raise Failure("--quiet takes hours such as 21:00-08:00.", code=USED_WRONGLY) from None
    if begin.tzinfo or end.tzinfo or begin == end:
        raise Failure("--quiet takes two different times without a zone.", code=USED_WRONGLY)
    return begin, end


def _said(limits: "Limits") -> str:
    parts = [
        f"{value:,} {words}"
        for value, words in (
            (limits.per_minute, "a minute to a number"),
            (limits.per_day, "a day to a number"),
            (limits.same_per_minute, "a minute of the same text to a number"),
            (limits.same_per_hour, "an hour of the same text to a number"),
            (limits.ceiling, "a day in all"),
        )
        if value is not None
    ]
    if limits.quiet_from is not None and limits.quiet_until is not None:
        parts.append(f"quiet from {limits.quiet_from:%H:%M} to {limits.quiet_until:%H:%M}")
    return ", ".join(parts) or "no limits"


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
