"""Commands for operators' rules: templates, suppressed numbers and limits of apps."""

from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.completion import complete_app
from dispatcher.cli.enqueue import Encoding, Sheet
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import App, As, operator_name
from dispatcher.core.language import _, with_stop
from dispatcher.core.roles import shown_name
from dispatcher.core.stored_texts import stored_text, suppression_reason

if TYPE_CHECKING:
    from dispatcher.core.rules import Limits
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.db.operator import ActionResult

MAX_DOUBTS_SHOWN = 10  # lines of a file that are named
MAX_LISTED_NUMBERS = 1_000

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
    listed_kinds: Annotated[
        str | None, typer.Argument(metavar="[KINDS]", help="As --kinds.", show_default=False)
    ] = None,
    *,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its text, with variables such as ${NUM_6}.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="KINDS", help="Or their kinds alone: NUM_6,TXT_20,DATE.")
    ] = None,
    note: Annotated[str, typer.Option(metavar="WORDS", help="What it is for.")] = "",
    promotional: Annotated[
        bool | None,
        typer.Option(
            "--promotional/--not-promotional",
            help="Whether its messages are promotional.",
            show_default="as the app says",
        ),
    ] = None,
    as_: As = None,
) -> None:
    """Define or redefine the variables of a template.

    A message whose variables do not fit is then rejected with the reason
    before it is sent. In a shell put the text in single quotes:
    '${NUM_6}'. With the text, `dispatcher cost` can count segments.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.format import plural
    from dispatcher.core.templates import (
        Template,
        TemplateError,
        check_kinds,
        read_template_id,
        variable_kinds,
    )
    from dispatcher.db import operator

    if listed_kinds is not None:
        if kinds is not None:
            raise CommandError(_("give either --text or --kinds."), code=USED_WRONGLY)
        kinds = listed_kinds
    if (text is None) == (kinds is None):
        raise CommandError(_("give either --text or --kinds."), code=USED_WRONGLY)
    try:
        template_id = read_template_id(template_id)
        listed = variable_kinds(text) if text is not None else check_kinds((kinds or "").split(","))
    except TemplateError as error:
        raise CommandError(with_stop(error), code=USED_WRONGLY) from None
    made = Template(template_id, listed, promotional)
    who = operator_name(as_)
    with_database(lambda connection: operator.define_template(connection, who, made, note, text))
    typer.echo(
        _("{template_id} takes {value}.").format(
            template_id=template_id, value=plural(len(listed), "variable")
        )
    )


@template.command("remove")
def remove_template(template_id: TemplateId, *, as_: As = None) -> None:
    """Remove a template: its variables are not checked any more."""
    from dispatcher.cli.connection import with_database
    from dispatcher.core.templates import plain_code
    from dispatcher.db import operator

    who = operator_name(as_)
    template_id = plain_code(template_id)
    done = with_database(lambda connection: operator.drop_template(connection, who, template_id))
    if done.count is None:
        raise CommandError(
            _("no template {template_id} is defined: see `dispatcher template list`.").format(
                template_id=template_id
            )
        )
    typer.echo(_("{template_id} is not checked any more.").format(template_id=template_id))


@template.command("list")
def list_templates(
    *, json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False
) -> None:
    """Show the templates that are defined."""
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import print_json, screen, table_of
    from dispatcher.db import rules

    if json:
        found = with_database(rules.templates)
        print_json(
            [
                {
                    "template_id": one.template_id,
                    "kinds": one.kinds,
                    "note": note,
                    "promotional": one.promotional,
                }
                for one, note in found
            ]
        )
        return
    table = table_of(_("Template"), _("Variables"), _("Promotional"), _("Note"))
    said = {None: _("as the app says"), True: _("yes"), False: _("no")}
    for one, note in with_database(rules.templates):
        kinds = ", ".join(one.kinds) or _("none")
        table.add_row(one.template_id, kinds, said[one.promotional], note)
    screen().print(table if table.rows else _("No template is defined."))


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
    encoding: Encoding = None,
    sheet: Sheet = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS", help="Which column has the numbers: recipient=客户电话."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Why, shown in the list.")] = "",
    app: Annotated[
        str | None,
        typer.Option(metavar="APP", help="Only messages of this app.", autocompletion=complete_app),
    ] = None,
    promotional: Annotated[
        bool, typer.Option("--promotional", help="Only promotional messages.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Send to them again.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
    as_: As = None,
) -> None:
    """Suppress numbers: never send to them; or list them.

    --app and --promotional narrow it, so that a person who wants no promotion
    still gets codes. --remove ends every suppression of the numbers, and with
    these options only what was suppressed with them.

    Without numbers it lists the suppressed ones. A file is CSV, text or Excel;
    its numbers are in the column that the header names (phone, 手机号), or in
    the first. Lines that hold no number are named, and the others count: exits
    with 1 then.
    """
    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.cli.output import print_json
    from dispatcher.core.format import plural
    from dispatcher.db import operator, status

    other = read_settings().mainland_without_plus == "all"
    wanted = _numbers(numbers or [], other_mainland=other, remove=remove)
    doubts: list[str] = []
    if file is not None:
        more, doubts = _numbers_of(file, encoding, sheet, column or [], other_mainland=other)
        wanted += more
    elif encoding is not None or sheet is not None or column:
        raise CommandError(_("--encoding, --sheet and --column are for --file."), code=USED_WRONGLY)
    if not wanted and file is None:
        _list_suppressed(json=json)
        return
    who = operator_name(as_)

    async def work(connection: "Connection") -> "ActionResult":
        of = app or ""
        if remove:
            return await operator.unsuppress(
                connection, who, wanted, app=of, promotional=promotional
            )
        if of:  # a misspelt app would stop nothing
            _must_be_known(of, await status.app_names(connection))
        return await operator.suppress(
            connection, who, wanted, reason, app=of, promotional=promotional
        )

    changed = (with_database(work).count or 0) if wanted else 0
    done = (
        _("{numbers} sent to again.")
        if remove
        else _("{numbers} suppressed, from the next second on.")
    )
    if json:
        print_json({"removed" if remove else "suppressed": changed, "refused_lines": len(doubts)})
    else:
        typer.echo(done.format(numbers=plural(changed, "number")))
    if doubts:
        left = len(doubts) - MAX_DOUBTS_SHOWN
        raise CommandError(
            _("{value} of {file} refused:").format(value=plural(len(doubts), "line"), file=file),
            *doubts[:MAX_DOUBTS_SHOWN],
            *([_("and {left} more.").format(left=f"{left:,}")] if left > 0 else []),
        )


def limit(
    app: App,
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
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
    as_: As = None,
) -> None:
    """Set the limits of an app; without options, show them.

    Messages over a limit wait; none is lost. All limits of an app are set at
    once: a limit that is not named is removed. Priorities 0 and 1 ignore
    quiet hours.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.core.rules import Limits
    from dispatcher.db import operator, status

    begin, end = _hours(quiet) if quiet else (None, None)
    wanted = Limits(per_minute, per_day, same_per_minute, same_per_hour, daily, begin, end)
    if wanted == Limits() and not none:
        known, apps = with_database(_limits_and_apps)
        _must_be_known(app, apps)
        _show_limits(app, known.get(app, Limits()), json=json)
        return
    if none and wanted != Limits():
        raise CommandError(_("--none takes no limits beside it."), code=USED_WRONGLY)

    who = operator_name(as_)

    async def work(connection: "Connection") -> None:
        if wanted != Limits():  # what was set for an app that is gone can be removed
            _must_be_known(app, await status.app_names(connection))
        await operator.set_limits(connection, who, app, wanted)

    with_database(work)
    _show_limits(app, wanted, json=json)


def _show_limits(app: str, limits: "Limits", *, json: bool) -> None:
    from dispatcher.cli.output import print_json
    from dispatcher.core.rules import describe_limits

    if json:
        print_json({"app": app, "limits": limits})
    else:
        typer.echo(app + _(": ") + describe_limits(limits))


async def _limits_and_apps(connection: "Connection") -> "tuple[dict[str, Limits], list[str]]":
    from dispatcher.db import rules, status

    return await rules.limits(connection), await status.app_names(connection)


def _must_be_known(app: str, seen: list[str]) -> None:
    """Raise CommandError if no setting and no worker has named *app* so far."""
    from dispatcher.cli.connection import read_settings

    known = sorted({*seen, *read_settings().apps})
    if known and app not in known:
        raise CommandError(
            _("there is no app {app}: there are {names}.").format(app=app, names=", ".join(known)),
            code=USED_WRONGLY,
        )


def _list_suppressed(*, json: bool) -> None:
    from msgspec.structs import replace

    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.format import mask
    from dispatcher.db import rules

    found = with_database(
        lambda connection: rules.suppression(connection, limit=MAX_LISTED_NUMBERS)
    )
    if json:
        print_json([replace(one, recipient=mask(one.recipient)) for one in found])
        return
    table = table_of(_("Number"), _("Stops"), _("Since"), _("By"), _("Reason"))
    for one in found:
        source, reason = shown_name(stored_text(one.source)), suppression_reason(one.reason)
        table.add_row(mask(one.recipient), one.scope, moment(one.added_at), source, reason)
    screen().print(table if table.rows else _("No number is suppressed."))


def _numbers(given: list[str], *, other_mainland: bool, remove: bool) -> list[str]:
    """Return the numbers; raises CommandError if one is doubtful.

    To *remove* a number that rows may have is never doubtful.
    """
    from dispatcher.core.message import as_stored
    from dispatcher.core.number import DoubtfulNumber, read_number

    numbers: list[str] = []
    for text in given:
        read = read_number(text, other_mainland=other_mainland)
        if remove and isinstance(read, DoubtfulNumber) and (stored := as_stored(text)):
            numbers.append(stored)
            continue
        if isinstance(read, DoubtfulNumber):
            raise CommandError(
                _("a number is doubtful: {reason}.").format(reason=read.reason), code=USED_WRONGLY
            )
        numbers.append(read.e164)
    return numbers


def _numbers_of(
    file: Path,
    encoding: str | None,
    sheet: str | None,
    column: list[str],
    *,
    other_mainland: bool,
) -> tuple[list[str], list[str]]:
    """Return the numbers of *file*, and its lines without one, each with the reason."""
    from dispatcher.core.number import ReadNumber
    from dispatcher.lists.header import HeaderError, given_columns
    from dispatcher.lists.memory import limited_memory
    from dispatcher.lists.numbers import read_numbers

    try:
        columns = given_columns(column)
    except HeaderError as error:
        raise CommandError(with_stop(error), code=USED_WRONGLY) from None
    numbers: list[str] = []
    doubts: list[str] = []
    with limited_memory():
        found = read_numbers(
            file, encoding=encoding, sheet=sheet, columns=columns, other_mainland=other_mainland
        )
        for line, read in found:
            if isinstance(read, ReadNumber):
                numbers.append(read.e164)
            else:
                doubts.append(_("line {line}: {reason}").format(line=line, reason=read.reason))
    return numbers, doubts


def _hours(text: str) -> tuple[time, time]:
    try:
        begin, end = map(time.fromisoformat, text.split("-"))
    except ValueError:
        raise CommandError(
            _("--quiet takes hours such as 21:00-08:00."), code=USED_WRONGLY
        ) from None
    if begin.tzinfo or end.tzinfo or begin == end:
        raise CommandError(
            _("--quiet takes two different times without a zone."), code=USED_WRONGLY
        )
    return begin, end
