"""``dispatcher enqueue``: the messages of a list into the queue."""

import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.completion import complete_app, complete_campaign
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.cli.spans import seconds_of, zone_of
from dispatcher.core.errors import ListError, os_reason
from dispatcher.core.language import _, with_stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.core.cost import Bill
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.lists.earlier_loads import ImportOptions
    from dispatcher.lists.file_load import Loaded, Progressed

Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of the file, such as gb18030.", show_default="detected"),
]
Sheet = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of an Excel workbook with several.")
]
Text = Annotated[str | None, typer.Option(metavar="TEXT", help="Of lines that do not say it.")]


def enqueue(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="FILE",
            help="A list: CSV, text or Excel (.xlsx), a message a line.",
        ),
    ],
    *,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where refused lines go.", show_default="FILE.rejects.csv"
        ),
    ] = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="What a column is: recipient=客户电话, param_1=name. May be given often.",
        ),
    ] = None,
    ignore_others: Annotated[
        bool, typer.Option("--ignore-others", help="Leave out columns of no message.")
    ] = False,
    recipients_only: Annotated[
        bool, typer.Option("--recipients-only", help="No header: each line is a number.")
    ] = False,
    template: Annotated[
        str | None, typer.Option(metavar="ID", help="Of lines that name no template.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A variable, the same for all; in their order."),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Of lines that do not say it.", autocompletion=complete_app
        ),
    ] = None,
    sender: Text = None,
    signature: Text = None,
    reference: Text = None,
    priority: Text = None,
    send_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 2026-01-31T09:00:00+08:00.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="As --send-at.")] = None,
    zone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of times that name none, such as Asia/Shanghai."),
    ] = None,
    campaign: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The campaign they belong to; one that exists takes them too.",
            autocompletion=complete_campaign,
            show_default="the name of the file",
        ),
    ] = None,
    spread: Annotated[
        str | None, typer.Option(metavar="TIME", help="Send them evenly over this time: 4h, 90min.")
    ] = None,
    per_hour: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Send so many in an hour.")
    ] = None,
    stop_at: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Pause when so many were rejected or undelivered: 5% of 100 or more.",
        ),
    ] = None,
    unique: Annotated[
        bool, typer.Option("--unique", help="Only the first line of each number.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and enqueue nothing.")
    ] = False,
    rest: Annotated[
        bool, typer.Option("--rest", help="Only messages that no list of late has enqueued.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what is in already: it is sent twice.")
    ] = False,
    as_: As = None,
) -> None:
    """Put the messages of a list into the queue.

    The header names recipient (phone, 手机号) and template_id (模板), and if wanted
    param_1, param_2, ... (变量1) or params, and app, sender, signature, priority,
    send_at, expires_at, idempotency_key, reference, campaign. Every line is enqueued, or
    written to the rejects file with its number and the reason; correct it there,
    and load that file. Exits with 1 if a line was refused, with 2 if the file was.

    A load that was interrupted continues when the same file is loaded again: no
    line is in twice. A file that is in is refused, and so is one that was corrected
    since, or of which most lines are in: --rest loads the others.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.cli.output import screen
    from dispatcher.core.format import number, plural
    from dispatcher.db.campaigns import MAX_NAME_CHARACTERS
    from dispatcher.lists.earlier_loads import ImportOptions
    from dispatcher.lists.header import HeaderError, given_columns
    from dispatcher.lists.messages import Whole
    from dispatcher.lists.reading import Form

    where = rejects or file.with_suffix(".rejects.csv")
    if _is_same(where, file):
        raise CommandError(
            _("{where} is the file to load; name another one for its rejects.").format(where=where),
            code=USED_WRONGLY,
        )
    if rest and again:
        raise CommandError(_("give --rest or --again, not both."), code=USED_WRONGLY)
    if spread is not None and per_hour is not None:
        raise CommandError(_("give --spread or --per-hour, not both."), code=USED_WRONGLY)
    if campaign is not None and not (
        1 <= len(campaign.strip()) <= MAX_NAME_CHARACTERS and campaign.isprintable()
    ):
        raise CommandError(
            _("--campaign takes a name of 1 to {max_name_characters} characters.").format(
                max_name_characters=MAX_NAME_CHARACTERS
            ),
            code=USED_WRONGLY,
        )
    try:
        columns = given_columns(column or ())
    except HeaderError as error:
        raise CommandError(with_stop(error), code=USED_WRONGLY) from None
    options = ImportOptions(
        Form(encoding, columns, ignore_others, recipients_only, sheet),
        Whole(
            template, tuple(param or ()), app, sender, signature, reference, priority, send_at,
            expires_at, zone_of(zone),
        ),
        again=again,
        rest=rest,
        unique=unique,
        dry_run=dry_run,
        apps=tuple(read_settings().apps),
        campaign=campaign,
        actor=operator_name(as_),
        spread_seconds=seconds_of(spread),
        per_hour=per_hour,
        stop_at=_share(stop_at),
        other_mainland=read_settings().mainland_without_plus == "all",
    )  # fmt: skip
    bar = (BarColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[end]}"))
    console = screen(stderr=True)
    so_far = 0
    with Progress(
        *bar, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=1.0, end="")

        def show_progress(taken: int, share: float) -> None:
            nonlocal so_far
            so_far = taken
            done = _("{taken} enqueued").format(taken=number(taken)) if taken else _("reading")
            left = progress.tasks[0].time_remaining
            end = _("ends about {time}").format(time=_clock(left)) if left else ""
            progress.update(task, completed=share, description=done, end=end)

        try:
            loaded = with_database(
                lambda connection: _load(connection, file, where, show_progress, options)
            )
        except (CommandError, ListError, KeyboardInterrupt) as failure:
            lines = getattr(failure, "lines", (_("interrupted."),))
            if dry_run or (not so_far and not isinstance(failure, KeyboardInterrupt)):
                raise
            raise CommandError(
                *lines,
                _(
                    "at least {so_far} of {file} were enqueued before: run the same command"
                    " again, and it goes on where it was."
                ).format(so_far=plural(so_far, "message"), file=file),
                code=getattr(failure, "code", 1),
            ) from failure
    _print_summary(file, loaded, options)
    if loaded.progress.rejected or loaded.refusal is not None:
        raise _refusal(file, where, loaded, dry_run=dry_run)


def _is_same(rejects: Path, file: Path) -> bool:
    """Return whether *rejects* is *file* itself; raises CommandError if it cannot be looked at."""
    try:
        return rejects.samefile(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CommandError(
            _("{path} cannot be written: {strerror}. Nothing was enqueued.").format(
                path=rejects, strerror=os_reason(error)
            ),
            code=USED_WRONGLY,
        ) from None


async def _load(
    connection: "Connection",
    file: Path,
    rejects: Path,
    show: "Progressed",
    options: "ImportOptions",
) -> "Loaded":
    """Load *file* with no more memory than any list needs."""
    from dispatcher.lists.file_load import load_file
    from dispatcher.lists.memory import limited_memory

    with limited_memory():
        return await load_file(connection, file, rejects, show, options)


def _print_summary(file: Path, loaded: "Loaded", options: "ImportOptions") -> None:
    from dispatcher.core.format import number, plural

    done = loaded.progress
    whole = (
        _("{messages} would be enqueued with --rest.")
        if loaded.refusal is not None
        else _("{messages} would be enqueued.")
        if options.dry_run
        else _("{messages} enqueued.")
    )
    typer.echo(whole.format(messages=plural(done.imported, "message")))
    would = _("{count} would be enqueued") if options.dry_run else _("{count} enqueued")
    parts = [
        words.format(count=number(count))
        for count, words in (
            (done.imported_lines, would),
            (done.rejected, _("{count} refused")),
            (done.left_out, _("{count} left out")),
            (loaded.blank, _("{count} blank")),
        )
        if count
    ]
    if len(parts) > 1 or done.imported_lines != done.imported:
        typer.echo(
            _("{lines} of data: {names}.").format(
                lines=plural(loaded.lines, "line"), names=_(", ").join(parts)
            )
        )
    if not options.dry_run and loaded.campaign not in (options.campaign, file.name):
        typer.echo(_("Campaign: {campaign}").format(campaign=loaded.campaign))
    if loaded.resumed_after:
        went_on = (
            _("An interrupted load would go on after line {resumed_after}.")
            if options.dry_run
            else _("An interrupted load went on after line {resumed_after}.")
        )
        typer.echo(went_on.format(resumed_after=number(loaded.resumed_after)))
    for note in (*loaded.notes, *_number_notes(loaded, options), *_rule_notes(loaded, options)):
        typer.echo(note)
    if loaded.bill is not None:
        _print_cost(loaded, loaded.bill)


def _refusal(file: Path, where: Path, loaded: "Loaded", *, dry_run: bool) -> CommandError:
    """Return what the command ends with: lines are in already, or refused; and where those are."""
    from dispatcher.core.format import plural

    lines = loaded.refusal.lines if loaded.refusal is not None else ()
    if not loaded.progress.rejected:
        return CommandError(*lines)
    written = loaded.rejects or where
    if written != where:
        typer.echo(
            _(
                "{where} was changed since it was written, and stays as it is: the refused"
                " lines are in {written}."
            ).format(where=where, written=written)
        )
    text = (
        _(
            "{rejected} of {file} would be refused, each with its reason in {where}: mend them"
            " in {file}."
        )
        if dry_run
        else _(
            "{rejected} of {file} refused, each with its reason in {where}: mend them there,"
            " and enqueue that file with the same options and --campaign {campaign}."
        )
    )
    told = text.format(
        rejected=plural(loaded.progress.rejected, "line"),
        file=file,
        where=written,
        campaign=shlex.quote(loaded.campaign),
    )
    return CommandError(*lines, told)


def _number_notes(loaded: "Loaded", options: "ImportOptions") -> "Iterator[str]":
    """Say how numbers were read, and which come again."""
    from dispatcher.cli.output import moment
    from dispatcher.core.format import plural

    survey = loaded.survey
    if loaded.assumed_mainland:
        yield (
            _("{assumed_mainland} without + taken as mainland China (+86).").format(
                assumed_mainland=plural(loaded.assumed_mainland, "number")
            )
        )
    if loaded.respelled:
        yield _("{respelled} read from another spelling.").format(
            respelled=plural(loaded.respelled, "number")
        )
    if survey.repeats:
        lines = ", ".join(
            _("line {at} as line {first}").format(at=at, first=first)
            for at, first in survey.repeats_shown
        )
        more = ", ..." if survey.repeats > len(survey.repeats_shown) else ""
        kept = _("left out") if options.unique else _("enqueued too; --unique keeps the first")
        yield (
            _("{repeats} with the number of an earlier line ({lines}{more}): {kept}.").format(
                repeats=plural(survey.repeats, "line"), lines=lines, more=more, kept=kept
            )
        )
    if loaded.earlier is not None:
        first = loaded.earlier.loads[0]
        what = (
            _("left out")
            if options.rest or loaded.refusal is not None
            else _("would be enqueued a second time")
            if options.dry_run
            else _("enqueued a second time")
        )
        yield (
            _("{lines} {what}: in since {started_at} from {name}.").format(
                lines=plural(loaded.earlier.lines, "message"),
                what=what,
                started_at=moment(first.started_at),
                name=first.name,
            )
        )


def _rule_notes(loaded: "Loaded", options: "ImportOptions") -> "Iterator[str]":
    """Say what operators' rules and the settings mean for the messages."""
    from dispatcher.core.format import plural
    from dispatcher.core.rules import Limits, describe_limits

    survey = loaded.survey
    if survey.suppressed:
        yield _("{suppressed} suppressed: they will be rejected.").format(
            suppressed=plural(survey.suppressed, "number")
        )
    if survey.unknown_templates:
        yield (
            _(
                "Templates that are not defined here, so their variables were not checked: {names}."
            ).format(names=", ".join(survey.unknown_templates))
        )
    for app in survey.apps:
        limits = loaded.limits.get(app, Limits())
        if limits != Limits():
            yield _("Limits of {app}: {describe_limits}. What is over one waits.").format(
                app=app, describe_limits=describe_limits(limits)
            )
    if options.apps and (unknown := [app for app in survey.apps if app not in options.apps]):
        yield _("No such app is configured here: {names}.").format(names=", ".join(unknown))


def _print_cost(loaded: "Loaded", bill: "Bill") -> None:
    from dispatcher.cli.output import moment
    from dispatcher.core.format import mask, number, plural

    for shown in loaded.previews:
        typer.echo(
            _("Line {line}, {recipient}: {text}").format(
                line=shown.line, recipient=mask(shown.recipient), text=shown.text
            )
        )
    if loaded.due is not None:
        first, last = map(moment, loaded.due)
        typer.echo(
            _("Due from {first} to {last}.").format(first=first, last=last)
            if first != last
            else _("Due at {time}.").format(time=first)
        )
    segments = sum(line.estimated for line in bill.lines.values())
    unknown = sum(line.unknown for line in bill.lines.values())
    if countries := loaded.countries_abroad:
        names = _(", ").join(f"{name} {number(count)}" for name, count in countries.items())
        typer.echo(_("By country: {names}.").format(names=names))
    if segments:
        typer.echo(plural(segments, "segment") + _("."))
    for currency, amount in sorted(bill.sums(most=True).items()):
        typer.echo(
            _("About {amount} {currency}")
            .format(amount=f"{amount:,.2f}", currency=currency)
            .strip()
            + "."
        )
    if unknown:
        typer.echo(
            _(
                "{unknown} without preview and segments: define their templates with `dispatcher"
                " template add ID --text`."
            ).format(unknown=plural(unknown, "message"))
        )


def _clock(seconds: float) -> str:
    """Return the time of day in so many seconds, on this machine's clock."""
    return f"{datetime.now().astimezone() + timedelta(seconds=seconds):%H:%M:%S}"


def _share(text: str | None) -> float | None:
    """Return the share that a text such as 5% means."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share <= 1:
        raise CommandError(_("--stop-at takes a share such as 5%."), code=USED_WRONGLY)
    return share
