"""``dispatcher reports``: shows missing reports, and reports that belong to no message."""

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.core.language import _
from dispatcher.core.stored_texts import stored_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dispatcher.core.report_matching import Backlog
    from dispatcher.core.status import MissingReports, UnmatchedReport
    from dispatcher.db.database import Connection

    ReportState = tuple[list[MissingReports], Backlog, list[UnmatchedReport]]


def reports(
    *,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Reports to list.")] = 20,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="List the pushes that cannot be read.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Read them again, after an upgrade.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Show messages without a report, and reports without a message.

    Many accepted messages without a report mean that the callback address is wrong.

    A push that cannot be read is kept as it came: --unreadable lists them with
    the reason, and their content only with --json, because it names people.
    """
    if replay:
        _replay(json=json)
        return
    if unreadable:
        _list_unreadable(limit, json=json)
        return
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import print_json, screen

    state = with_database(lambda connection: _read(connection, limit))
    if json:
        print_json(dict(zip(("apps", "backlog", "unmatched"), state, strict=True)))
    else:
        screen().print(_render(state))


def _replay(*, json: bool) -> None:
    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.cli.output import print_json
    from dispatcher.core.format import plural
    from dispatcher.db import reports as db
    from dispatcher.receiver.receiver import are_verified

    settings = read_settings()
    words, verified = settings.unsubscribe_words, are_verified(settings)
    pushes, stored = with_database(
        lambda connection: db.replay_unreadable(connection, words=words, verified=verified)
    )
    if json:
        print_json({"read": pushes, "stored": stored})
        return
    read = plural(pushes, "push", "pushes")
    typer.echo(
        _("{read} read, {stored} stored.").format(
            read=read, stored=plural(stored, "report or reply", "reports and replies")
        )
    )


def _list_unreadable(limit: int, *, json: bool) -> None:
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.format import number
    from dispatcher.db import reports as db

    pushes = with_database(lambda connection: db.unreadable(connection, limit=limit))
    if json:
        print_json(pushes)
        return
    table = table_of(
        _("Since"), _("Times"), _("Bytes"), _("Content-Type"), _("Why it cannot be read")
    )
    for push in pushes:
        table.add_row(
            moment(push.received_at),
            number(push.times),
            number(len(push.body)),
            push.content_type,
            stored_text(push.reason),
        )
    screen().print(table if table.rows else _("Every push could be read."))


async def _read(connection: "Connection", limit: int) -> "ReportState":
    from dispatcher.db import reports as db

    return (
        await db.awaiting(connection),
        await db.backlog(connection),
        [*map(_masked, await db.unmatched(connection, limit=limit))],
    )


def _masked(report: "UnmatchedReport") -> "UnmatchedReport":
    """Return *report* without whole numbers: its id and its status may be one too."""
    from msgspec.structs import replace

    from dispatcher.core.format import mask, mask_if_number

    return replace(
        report,
        recipient=mask(report.recipient) if report.recipient else report.recipient,
        provider_id=mask_if_number(report.provider_id),
        status=mask_if_number(report.status),
    )


def _render(state: "ReportState") -> "RenderableType":
    from rich.console import Group

    from dispatcher.cli.output import moment, table_of
    from dispatcher.core.format import duration, number
    from dispatcher.core.report_matching import UNMATCHED_REASONS

    apps, backlog, unmatched = state
    table = table_of(_("App"))
    for name in (_("Accepted in 80 h"), _("Without a report"), _("For over an hour"), _("Oldest")):
        table.add_column(name, justify="right")
    for app in apps:
        oldest = "-" if app.oldest_seconds is None else duration(app.oldest_seconds)
        table.add_row(
            app.app, number(app.accepted), number(app.waiting), number(app.overdue), oldest
        )
    lost = table_of(
        _("Since"),
        _("Status"),
        _("Number"),
        _("Provider id"),
        _("Why it belongs to no message"),
    )
    for report in unmatched:
        lost.add_row(
            moment(report.first_seen_at),
            report.status,
            report.recipient or "-",
            f"{report.provider_id} ({report.segment})",
            _(UNMATCHED_REASONS.get(report.reason, report.reason)),
        )
    waiting = _("{reports} reports wait to be matched.").format(reports=number(backlog.reports))
    return Group(
        table, "", waiting, "", lost if unmatched else _("No report is without its message.")
    )
