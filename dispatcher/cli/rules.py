"""Commands for operators' rules: templates, suppressed numbers and limits of apps."""

from collections.abc import Iterable
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.db.operator import ActionResult

MAX_LISTED_NUMBERS = 1_000
MAX_EXPLAINED_DOUBTS = 5  # doubtful numbers of a list that are explained

template = typer.Typer(
    help="Define templates, so that messages that do not fit cost nothing.",
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
        str | None, typer.Option(metavar="TEXT", help="Its text, with variables such as ${NUM_6}.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="KINDS", help="Or their kinds alone: NUM_6,TXT_20,DATE.")
    ] = None,
    note: Annotated[str, typer.Option(metavar="WORDS", help="What it is for.")] = "",
    as_: As = None,
) -> None:
    """Define or redefine the variables of a template.

    A message whose variables do not fit is then rejected with the reason
    before it is sent. In a shell put the text in single quotes:
    '${NUM_6}'. With the text, `dispatcher cost` can count segments.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.format import plural
    from dispatcher.core.templates import Template, TemplateError, check_kinds, variable_kinds
    from dispatcher.db import operator

    if (text is None) == (kinds is None):
        raise CommandError("give either --text or --kinds.", code=USED_WRONGLY)
    if not 1 <= len(template_id) <= 32:  # noqa: PLR2004 - the provider's limit
        raise CommandError("a template's id has 1 to 32 characters.", code=USED_WRONGLY)
    try:
        listed = variable_kinds(text) if text is not None else check_kinds((kinds or "").split(","))
    except TemplateError as error:
        raise CommandError(f"{error}.", code=USED_WRONGLY) from None
    made = Template(template_id, listed)
    who = operator_name(as_)
    with_database(lambda connection: operator.define_template(connection, who, made, note, text))
    typer.echo(f"{template_id} takes {plural(len(listed), 'variable')}.")


@template.command("remove")
def remove_template(template_id: TemplateId, *, as_: As = None) -> None:
    """Remove a template: its variables are not checked any more."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db import operator

    who = operator_name(as_)
    done = with_database(lambda connection: operator.drop_template(connection, who, template_id))
    if done.count is None:
        raise CommandError(f"no template {template_id} is defined: see `dispatcher template list`.")
    typer.echo(f"{template_id} is not checked any more.")


@template.command("list")
def list_templates() -> None:
    """Show the templates that are defined."""
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import screen, table_of
    from dispatcher.db import rules

    table = table_of("Template", "Variables", "Note")
    for one, note in with_database(rules.templates):
        table.add_row(one.template_id, ", ".join(one.kinds) or "none", note)
    screen().print(table if table.rows else "No template is defined.")


def suppress(
    numbers: Annotated[
        list[str] | None, typer.Argument(metavar="NUMBER", help="With its country: +8613112345678.")
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="FILE",
            help="A file with a number on each line, or a CSV file with numbers first.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Why, shown in the list.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Send to them again.")] = False,
    as_: As = None,
) -> None:
    """Suppress numbers: never send to them; or list them.

    Without numbers it lists the suppressed ones. Of a CSV file the first
    column is read; if a line has no number, nothing is changed.
    """
    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.core.format import plural
    from dispatcher.db import operator

    other = read_settings().mainland_without_plus == "all"
    wanted = [
        *_numbers(enumerate(numbers or [], 1), "number", other_mainland=other),
        *(_numbers_of(file, other_mainland=other) if file else []),
    ]
    if not wanted:
        if file is None:
            _list_suppressed()
        return
    who = operator_name(as_)

    async def work(connection: "Connection") -> "ActionResult":
        if remove:
            return await operator.unsuppress(connection, who, wanted)
        return await operator.suppress(connection, who, wanted, reason)

    changed = with_database(work).count or 0
    done = "sent to again" if remove else "suppressed, from a few seconds on"
    typer.echo(f"{plural(changed, 'number')} {done}.")


def limit(
    app: Annotated[
        str, typer.Argument(metavar="APP", help="Its name, as in DISPATCHER_APPS__<NAME>.")
    ],
    *,
    per_minute: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Messages to a number.")
    ] = None,
    per_day: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Messages to a number.")
    ] = None,
    same_per_minute: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of the same text to a number.")
    ] = None,
    same_per_hour: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of the same text to a number.")
    ] = None,
    daily: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Messages of the app a day (UTC+8); then it pauses."),
    ] = None,
    quiet: Annotated[
        str | None,
        typer.Option(metavar="HOURS", help="Quiet hours at the recipient: 21:00-08:00."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="No limits any more.")] = False,
    as_: As = None,
) -> None:
    """Set the limits of an app; without options, show them.

    Messages over a limit wait; none is lost. All limits of an app are set at
    once: a limit that is not named is removed. Priorities 0 and 1 ignore
    quiet hours.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.rules import Limits, describe_limits
    from dispatcher.db import operator, rules

    begin, end = _hours(quiet) if quiet else (None, None)
    wanted = Limits(per_minute, per_day, same_per_minute, same_per_hour, daily, begin, end)
    if wanted == Limits() and not none:
        known = with_database(rules.limits)
        typer.echo(f"{app}: {describe_limits(known.get(app, Limits()))}")
        return
    if none and wanted != Limits():
        raise CommandError("--none takes no limits beside it.", code=USED_WRONGLY)

    who = operator_name(as_)
    with_database(lambda connection: operator.set_limits(connection, who, app, wanted))
    typer.echo(f"{app}: {describe_limits(wanted)}")


def _list_suppressed() -> None:
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, screen, table_of
    from dispatcher.core.format import mask
    from dispatcher.db import rules

    table = table_of("Number", "Since", "By", "Reason")
    for one in with_database(
        lambda connection: rules.suppression(connection, limit=MAX_LISTED_NUMBERS)
    ):
        table.add_row(mask(one.recipient), moment(one.added_at), one.source, one.reason)
    screen().print(table if table.rows else "No number is suppressed.")


def _numbers(given: Iterable[tuple[int, str]], place: str, *, other_mainland: bool) -> list[str]:
    """Return the numbers; *given* are texts, each with where it stands."""
    from dispatcher.core.number import DoubtfulNumber, read_number

    numbers: list[str] = []
    doubts: list[str] = []
    for at, text in given:
        read = read_number(text, other_mainland=other_mainland)
        if isinstance(read, DoubtfulNumber):
            doubts.append(f"{place} {at}: {read.reason}")
        else:
            numbers.append(read.e164)
    if doubts:
        more = (
            f"; and {len(doubts) - MAX_EXPLAINED_DOUBTS} more"
            if len(doubts) > MAX_EXPLAINED_DOUBTS
            else ""
        )
        raise CommandError(
            f"nothing is changed, for {len(doubts)} of {len(doubts) + len(numbers)} are doubtful."
            f" {'; '.join(doubts[:MAX_EXPLAINED_DOUBTS])}{more}.",
            code=USED_WRONGLY,
        )
    return numbers


def _numbers_of(file: Path, *, other_mainland: bool) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        cells = [line.split(",")[0].strip().strip('"') for line in stream]
    lines = [(at, cell) for at, cell in enumerate(cells, 1) if cell]
    # The first line of a CSV file may be its header, which has no digits.
    if lines and not any(character.isdigit() for character in lines[0][1]):
        lines = lines[1:]
    return _numbers(lines, "line", other_mainland=other_mainland)


def _hours(text: str) -> tuple[time, time]:
    try:
        begin, end = map(time.fromisoformat, text.split("-"))
    except ValueError:
        raise CommandError("--quiet takes hours such as 21:00-08:00.", code=USED_WRONGLY) from None
    if begin.tzinfo or end.tzinfo or begin == end:
        raise CommandError("--quiet takes two different times without a zone.", code=USED_WRONGLY)
    return begin, end
