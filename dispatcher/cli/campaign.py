"""``dispatcher campaign``: what becomes of a list, and how to stop it."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dispatcher.cli.completion import complete_campaign
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.core.language import _, with_stop
from dispatcher.core.roles import shown_name
from dispatcher.core.stored_texts import stored_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dispatcher.db.campaigns import Campaign, CampaignCount
    from dispatcher.db.database import OwnConnection as Connection

Result = TypeVar("Result")
REQUEST_SECONDS = 60.0  # in which a request is answered, or given up

campaign = typer.Typer(
    help="See, stop and export campaigns, such as lists.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(metavar="WORDS", help="Why, shown in the list.")]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Its name, as `dispatcher campaign list` has it.",
        autocompletion=complete_campaign,
    ),
]


@campaign.command("list")
def list_campaigns(*, json: Json = False) -> None:
    """List the campaigns, the newest first."""
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.format import number
    from dispatcher.db import campaigns

    known = with_database(campaigns.campaigns)
    if json:
        print_json(known)
        return
    table = table_of(_("Campaign"), _("State"), _("Begun"), _("By"))
    for name in (_("From files"), _("Waiting")):
        table.add_column(name, justify="right")
    for one in known:
        imported = "-" if one.imported is None else number(one.imported)
        table.add_row(
            one.name, _state(one), moment(one.created_at), shown_name(one.created_by), imported,
            number(one.waiting),
        )  # fmt: skip
    screen().print(table if table.rows else _("There is no campaign."))


@campaign.command("show")
def show_campaign(name: Name, *, json: Json = False) -> None:
    """Show how far a campaign has come: by state and code, its cost, its rate and its end.

    It reads every message of the campaign: a million takes seconds.
    """
    from dispatcher.cli.connection import with_database
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.country import country
    from dispatcher.core.explain import explain_code
    from dispatcher.core.format import duration, number, plural
    from dispatcher.db import campaigns

    async def work(connection: "Connection") -> "tuple[Campaign, CampaignCount]":
        found = await campaigns.find(connection, name)
        if found is None:
            raise CommandError(
                _("there is no campaign {name}: see `dispatcher campaign list`.").format(name=name)
            )
        return found, await campaigns.count(connection, name, country=country)

    found, count = with_database(work)
    rows = [(one, explain_code({"state": one.state, "code": one.code})) for one in count.codes]
    if json:
        states = [
            {"state": one.state, "code": one.code, "meaning": why and why.meaning,
             "messages": one.messages}
            for one, why in rows
        ]  # fmt: skip
        print_json(
            {"campaign": found, "states": states, "segments": count.segments, "cost": count.cost,
             "recent": count.recent, "last_due_at": count.last_due_at}
        )  # fmt: skip
        return
    typer.echo(found.name + _(": ") + _state(found))
    typer.echo(
        _("Begun {created_at} by {created_by}").format(
            created_at=moment(found.created_at), created_by=shown_name(found.created_by)
        )
    )
    if found.changed_at is not None:
        typer.echo(
            _("Changed {changed_at} by {changed_by}").format(
                changed_at=moment(found.changed_at), changed_by=shown_name(found.changed_by or "")
            )
        )
    table = table_of(_("State"), _("Code"), _("Meaning"))
    table.add_column(_("Messages"), justify="right")
    for one, why in rows:
        table.add_row(
            _(one.state), one.code or "", why.meaning if why else "", number(one.messages)
        )
    screen().print(table if table.rows else _("It has no messages."))
    if count.last_due_at is not None and count.last_due_at > datetime.now(UTC):
        typer.echo(
            _("The last message that waits is due {time}.").format(time=moment(count.last_due_at))
        )
    if count.segments:
        costs = [f"{amount:,.2f} {currency}".strip() for currency, amount in count.cost.items()]
        typer.echo(
            _("{segments} so far: {names}.").format(
                segments=plural(count.segments, "segment"), names=", ".join(costs)
            )
            if costs
            else _("{segments} so far; `dispatcher cost --price` sets what one costs.").format(
                segments=plural(count.segments, "segment")
            )
        )
    if count.recent:
        by_state = count.states()
        left = by_state.get("queued", 0) + by_state.get("sending", 0)
        age = max(1.0, (datetime.now(UTC) - found.created_at).total_seconds())
        over = min(age, campaigns.RATE_SECONDS)
        seconds = left * over / count.recent
        rate = count.recent * 60 / over
        end = (
            _("; at this rate the rest takes {seconds}").format(seconds=duration(seconds))
            if left and found.state == "running"
            else ""
        )
        typer.echo(
            _("{rate} accepted a minute, over the last {time}{end}.").format(
                rate=number(rate), time=duration(over), end=end
            )
        )


@campaign.command("pause")
def pause_campaign(name: Name, *, reason: Reason = "", as_: As = None) -> None:
    """Claim nothing more of a campaign, until it is resumed.

    What workers have claimed at this moment is still sent: seconds of work,
    for which the command waits.
    """
    from dispatcher.db import campaigns

    who = operator_name(as_)

    async def work(connection: "Connection") -> None:
        await campaigns.pause(connection, who, name, reason)
        typer.echo(_("{name} is paused: nothing more of it is claimed.").format(name=name))
        await _wait_for_requests(connection, name)

    _with_campaigns(work)


@campaign.command("resume")
def resume_campaign(name: Name, *, as_: As = None) -> None:
    """Claim messages of a campaign again."""
    from dispatcher.db import campaigns

    who = operator_name(as_)
    _with_campaigns(lambda connection: campaigns.resume(connection, who, name))
    typer.echo(_("{name} goes on.").format(name=name))


@campaign.command("cancel")
def cancel_campaign(name: Name, *, reason: Reason = "", as_: As = None) -> None:
    """Cancel a campaign for good: nothing more of it is claimed, from now on.

    Its messages get their outcomes in steps, and the command waits for the
    requests that are on their way. A worker does what is left when it is
    interrupted.
    """
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns

    who = operator_name(as_)

    async def work(connection: "Connection") -> int:
        await campaigns.cancel(connection, who, name, reason)
        typer.echo(
            _("{name} is cancelled: nothing more of it is claimed. Its outcomes follow.").format(
                name=name
            )
        )
        sys.stdout.flush()
        done = await campaigns.cancel_all(connection, name)
        await _wait_for_requests(connection, name)
        return done + await campaigns.cancel_all(connection, name)  # what came back meanwhile

    done = _with_campaigns(work)
    typer.echo(_("{done} cancelled.").format(done=plural(done, "message")))


@campaign.command("move")
def move_campaign(
    name: Name,
    *,
    send_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 2026-01-31T09:00:00+08:00, or now.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a time that names none: Asia/Shanghai.")
    ] = None,
    spread: Annotated[
        str | None, typer.Option(metavar="TIME", help="Then evenly over this time: 4h, 90min.")
    ] = None,
    per_hour: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Then so many in an hour.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(min=0, max=9, metavar="N", help="0 first to 9 last.", show_default=False),
    ] = None,
    as_: As = None,
) -> None:
    """Move what waits of a campaign to another time, or to another priority.

    Nothing of it is claimed until all has moved: seconds for a million. A worker
    does what is left when the command is interrupted. Messages that expire
    earlier than they are due then are not sent.
    """
    from dispatcher.cli.spans import seconds_of, zone_of
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns
    from dispatcher.lists.times import read_move_time

    if send_at is None and (priority is None or spread is not None or per_hour is not None):
        raise CommandError(_("say when, with --send-at, or give a --priority."), code=USED_WRONGLY)
    if spread is not None and per_hour is not None:
        raise CommandError(_("give --spread or --per-hour, not both."), code=USED_WRONGLY)
    try:
        when = (
            read_move_time("--send-at", send_at, zone_of(zone)) if send_at not in (None, "now")
            else datetime.now(UTC) if send_at else None
        )  # fmt: skip
    except ValueError as error:
        raise CommandError(with_stop(error), code=USED_WRONGLY) from None
    spread_seconds = seconds_of(spread)
    who = operator_name(as_)

    async def work(connection: "Connection") -> tuple[int, bool]:
        found = await campaigns.find(connection, name)
        waiting = found.waiting if found else 0
        wait = 3600 / per_hour if per_hour else (spread_seconds or 0.0) / max(1, waiting)
        await campaigns.move(connection, who, name, when, wait, priority)
        typer.echo(
            _("{name} is being moved: nothing of it is claimed until all has moved.").format(
                name=name
            )
        )
        sys.stdout.flush()
        return await campaigns.move_all(connection, name)

    done, more = _with_campaigns(work)
    typer.echo(_("{value} moved.").format(value=plural(done, "message")))
    if more:
        typer.echo(
            _("{name} has not moved as a whole yet: a worker moves the rest.").format(name=name)
        )


@campaign.command("requeue")
def requeue_campaign(name: Name, *, as_: As = None) -> None:
    """Send the rejected and expired messages of a campaign again. Correct the cause first."""
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns

    who = operator_name(as_)
    done = _with_campaigns(lambda connection: campaigns.requeue(connection, who, name))
    typer.echo(_("{done} waiting again.").format(done=plural(done, "message")))


@campaign.command("export")
def export_campaign(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Ending in .csv, .json or .xlsx.")
    ] = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Whole numbers; the audit log records it.")
    ] = False,
    as_: As = None,
) -> None:
    """Export the results of a campaign, as `dispatcher export --campaign NAME`."""
    from dispatcher.cli.export import export

    export(file, campaign=name, full=full, as_=as_)


async def _wait_for_requests(connection: "Connection", name: str) -> None:
    """Wait until requests with messages of *name* are answered, and say how many are not."""
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns

    sys.stdout.flush()
    left, claims = await campaigns.settled(connection, name, seconds=REQUEST_SECONDS)
    if claims:
        typer.echo(
            _(
                "Still open: {claims} that changed the queue before; a claim may be among them."
            ).format(claims=plural(claims, "transaction"))
        )
    if left:
        typer.echo(
            _("{left} of it claimed before, and without an answer yet.").format(
                left=plural(left, "message")
            )
        )


def _with_campaigns(work: "Callable[[Connection], Awaitable[Result]]") -> Result:
    """Return what *work* does; a campaign that cannot be changed becomes a CommandError."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db.campaigns import CampaignError

    try:
        return with_database(work)
    except CampaignError as error:
        raise CommandError(stored_text(str(error)) + _(".")) from None


def _state(one: "Campaign") -> str:
    return f"{_(one.state)} ({stored_text(one.reason)})" if one.reason else _(one.state)
