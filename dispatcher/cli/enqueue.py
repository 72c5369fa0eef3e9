"""``dispatcher enqueue``: the messages of a list into the queue."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.cli.spans import seconds_of, zone_of
from dispatcher.core.errors import ListError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.core.cost import Bill
    from dispatcher.lists.file_load import ImportOptions, Loaded

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
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the file, such as gb18030.", show_default="detected"),
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of an Excel workbook with several.")
    ] = None,
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
    app: Text = None,
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
    send_at, expires_at, idempotency_key, reference. Every line is enqueued, or
    written to the rejects file with its number and the reason; correct it there,
    and load that file. Exits with 1 if a line was refused, with 2 if the file was.

    A load that was interrupted continues when the same file is loaded again: no
    line is in twice. A file that is in is refused, and so is one of which most
    lines are in: --rest loads the others.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.cli.output import screen
    from dispatcher.core.format import number, plural
    from dispatcher.db.campaigns import MAX_NAME_CHARACTERS
    from dispatcher.lists.file_load import ImportOptions, load_file
    from dispatcher.lists.header import HeaderError, given_columns
    from dispatcher.lists.messages import Whole
    from dispatcher.lists.reading import Form

    where = rejects or file.with_suffix(".rejects.csv")
    if where.exists() and where.samefile(file):
        raise CommandError(
            f"{where} is the file to load; name another one for its rejects.", code=USED_WRONGLY
        )
    if rest and again:
        raise CommandError("give --rest or --again, not both.", code=USED_WRONGLY)
    if spread is not None and per_hour is not None:
        raise CommandError("give --spread or --per-hour, not both.", code=USED_WRONGLY)
    if campaign is not None and not 1 <= len(campaign) <= MAX_NAME_CHARACTERS:
        raise CommandError(
            f"--campaign takes 1 to {MAX_NAME_CHARACTERS} characters.", code=USED_WRONGLY
        )
    try:
        columns = given_columns(column or ())
    except HeaderError as error:
        raise CommandError(f"{error}.", code=USED_WRONGLY) from None
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
    bar = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    console = screen(stderr=True)
    so_far = 0
    with Progress(
        *bar, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=1.0)

        def show_progress(taken: int, share: float) -> None:
            nonlocal so_far
            so_far = taken
            done = f"{number(taken)} enqueued" if taken else "reading"
            progress.update(task, completed=share, description=done)

        try:
            loaded = with_database(
                lambda connection: load_file(connection, file, where, show_progress, options)
            )
        except (CommandError, ListError, KeyboardInterrupt) as failure:
            lines = getattr(failure, "lines", ("interrupted.",))
            if dry_run or (not so_far and not isinstance(failure, KeyboardInterrupt)):
                raise
            raise CommandError(
                *lines,
                f"at least {plural(so_far, 'message')} of {file} were enqueued before: run the same"
                " command again, and it goes on where it was.",
                code=getattr(failure, "code", 1),
            ) from failure
    _print_summary(file, loaded, options)
    if loaded.progress.rejected:
        raise CommandError(
            f"{plural(loaded.progress.rejected, 'line')} of {file} refused, each with its reason in"
            f" {where}: mend them there, and enqueue that file."
        )


def _print_summary(file: Path, loaded: "Loaded", options: "ImportOptions") -> None:
    from dispatcher.core.format import number, plural

    done = loaded.progress
    would = "would be enqueued" if options.dry_run else "enqueued"
    typer.echo(f"{plural(done.imported, 'message')} {would}.")
    parts = [
        f"{number(count)} {words}"
        for count, words in (
            (done.imported_lines, would),
            (done.rejected, "refused"),
            (done.left_out, "left out"),
            (loaded.blank, "blank"),
        )
        if count
    ]
    if len(parts) > 1 or done.imported_lines != done.imported:
        typer.echo(f"{plural(loaded.lines, 'line')} of data: {', '.join(parts)}.")
    if not options.dry_run and loaded.campaign not in (options.campaign, file.name):
        typer.echo(f"Campaign: {loaded.campaign}")
    if loaded.resumed_after:
        typer.echo(f"An interrupted load went on after line {number(loaded.resumed_after)}.")
    for note in (*loaded.notes, *_number_notes(loaded, options), *_rule_notes(loaded, options)):
        typer.echo(note)
    if loaded.bill is not None:
        _print_cost(loaded, loaded.bill)


def _number_notes(loaded: "Loaded", options: "ImportOptions") -> "Iterator[str]":
    """Say how numbers were read, and which come again."""
    from dispatcher.cli.output import moment
    from dispatcher.core.format import plural

    survey = loaded.survey
    if loaded.assumed_mainland:
        yield (
            f"{plural(loaded.assumed_mainland, 'number')} without + taken as mainland China (+86)."
        )
    if loaded.respelled:
        yield f"{plural(loaded.respelled, 'number')} read from another spelling."
    if survey.repeats:
        lines = ", ".join(f"line {at} as line {first}" for at, first in survey.repeats_shown)
        more = ", ..." if survey.repeats > len(survey.repeats_shown) else ""
        kept = "left out" if options.unique else "enqueued too; --unique keeps the first"
        yield (
            f"{plural(survey.repeats, 'line')} with the number of an earlier line ({lines}{more}):"
            f" {kept}."
        )
    if loaded.earlier is not None:
        what = (
            "left out"
            if options.rest
            else "enqueued a second time"
            if options.again
            else "in already"
        )
        yield (
            f"{plural(loaded.earlier.lines, 'message')} {what}: in since"
            f" {moment(loaded.earlier.started_at)} from {loaded.earlier.name}."
        )


def _rule_notes(loaded: "Loaded", options: "ImportOptions") -> "Iterator[str]":
    """Say what operators' rules and the settings mean for the messages."""
    from dispatcher.core.format import plural
    from dispatcher.core.rules import Limits, describe_limits

    survey = loaded.survey
    if survey.suppressed:
        yield f"{plural(survey.suppressed, 'number')} suppressed: they will be rejected."
    if survey.unknown_templates:
        yield (
            "Templates that are not defined here, so their variables were not checked:"
            f" {', '.join(survey.unknown_templates)}."
        )
    for app in survey.apps:
        limits = loaded.limits.get(app, Limits())
        if limits != Limits():
            yield f"Limits of {app}: {describe_limits(limits)}. What is over one waits."
    if options.apps and (unknown := [app for app in survey.apps if app not in options.apps]):
        yield f"No such app is configured here: {', '.join(unknown)}."


def _print_cost(loaded: "Loaded", bill: "Bill") -> None:
    from dispatcher.core.format import mask, plural

    for shown in loaded.previews:
        typer.echo(f"Line {shown.line}, {mask(shown.recipient)}: {shown.text}")
    segments = sum(line.estimated for line in bill.lines.values())
    unknown = sum(line.unknown for line in bill.lines.values())
    if segments:
        typer.echo(f"{plural(segments, 'segment')}.")
    for currency, amount in sorted(bill.sums().items()):
        typer.echo(f"About {amount:,.2f} {currency}".strip() + ".")
    if unknown:
        typer.echo(
            f"{plural(unknown, 'message')} without preview and segments: define their templates"
            " with `dispatcher template add ID --text`."
        )


def _share(text: str | None) -> float | None:
    """Return the share that a text such as 5% means."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share <= 1:
        raise CommandError("--stop-at takes a share such as 5%.", code=USED_WRONGLY)
    return share
