"""``dispatcher campaign``: what becomes of a list, and how to stop it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dispatcher.cli.errors import CommandError
from dispatcher.cli.operate import As, operator_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dispatcher.db.campaigns import Campaign, CampaignState
    from dispatcher.db.database import OwnConnection as Connection

Result = TypeVar("Result")

campaign = typer.Typer(
    help="See, stop and export campaigns, such as lists.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(metavar="WORDS", help="Why, shown in the list.")]


def complete_campaign(incomplete: str) -> list[str]:
    """Return the names of campaigns, for the completion of a shell."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db import campaigns

    try:
        known = with_database(campaigns.campaigns)
    except CommandError:
        return []
    return [one.name for one in known if one.name.startswith(incomplete)]


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
    table = table_of("Campaign", "State", "Begun", "By")
    for name in ("From files", "Waiting"):
        table.add_column(name, justify="right")
    for one in known:
        imported = "-" if one.imported is None else number(one.imported)
        table.add_row(
            one.name, _state(one), moment(one.created_at), one.created_by, imported,
            number(one.waiting),
        )  # fmt: skip
    screen().print(table if table.rows else "There is no campaign.")


@campaign.command("show")
def show_campaign(name: Name, *, json: Json = False) -> None:
    """Show how far a campaign has come: by state and code, its rate and its end.

    It reads every message of the campaign: a million takes a minute.
    """
    from dispatcher.cli.output import moment, print_json, screen, table_of
    from dispatcher.core.format import duration, number
    from dispatcher.db import campaigns

    async def work(connection: "Connection") -> "tuple[Campaign | None, list[CampaignState]]":
        found = await campaigns.find(connection, name)
        return found, await campaigns.states(connection, name) if found else []

    found, states = _with_campaigns(work)
    if found is None:
        raise CommandError(f"there is no campaign {name}: see `dispatcher campaign list`.")
    if json:
        print_json({"campaign": found, "states": states})
        return
    typer.echo(f"{found.name}: {_state(found)}")
    typer.echo(f"Begun {moment(found.created_at)} by {found.created_by}")
    if found.changed_at is not None:
        typer.echo(f"Changed {moment(found.changed_at)} by {found.changed_by}")
    table = table_of("State", "Code", "Reason")
    for heading in ("Messages", "Segments"):
        table.add_column(heading, justify="right")
    for one in states:
        table.add_row(
            one.state, one.code or "", one.reason or "", number(one.messages), number(one.segments)
        )
    screen().print(table if table.rows else "It has no messages.")
    recent = sum(one.recent for one in states)
    if recent:
        left = sum(one.messages for one in states if one.state in ("queued", "sending"))
        seconds = left * campaigns.RATE_SECONDS / recent
        rate = recent * 60 / campaigns.RATE_SECONDS
        end = f"; at this rate the rest takes {duration(seconds)}" if left else ""
        typer.echo(f"{number(rate)} accepted a minute, over the last ten{end}.")


@campaign.command("pause")
def pause_campaign(name: Name, *, reason: Reason = "", as_: As = None) -> None:
    """Claim nothing more of a campaign, until it is resumed.

    What workers have claimed at this moment is still sent: seconds of work.
    """
    from dispatcher.db import campaigns

    who = operator_name(as_)
    _with_campaigns(lambda connection: campaigns.pause(connection, who, name, reason))
    typer.echo(f"{name} is paused.")


@campaign.command("resume")
def resume_campaign(name: Name, *, as_: As = None) -> None:
    """Claim messages of a campaign again."""
    from dispatcher.db import campaigns

    who = operator_name(as_)
    _with_campaigns(lambda connection: campaigns.resume(connection, who, name))
    typer.echo(f"{name} goes on.")


@campaign.command("cancel")
def cancel_campaign(name: Name, *, reason: Reason = "", as_: As = None) -> None:
    """Cancel a campaign for good: nothing more of it is claimed, from now on.

    Its messages get their outcomes in steps; a worker does what is left when
    this command is interrupted.
    """
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns

    who = operator_name(as_)

    async def work(connection: "Connection") -> int:
        await campaigns.cancel(connection, who, name, reason)
        typer.echo(f"{name} is cancelled: nothing more of it is claimed.")
        done = 0
        while step := await campaigns.cancel_step(connection):
            done += step
        return done

    done = _with_campaigns(work)
    typer.echo(f"{plural(done, 'message')} cancelled.")


@campaign.command("requeue")
def requeue_campaign(name: Name, *, as_: As = None) -> None:
    """Send the rejected and expired messages of a campaign again. Correct the cause first."""
    from dispatcher.core.format import plural
    from dispatcher.db import campaigns

    who = operator_name(as_)
    done = _with_campaigns(lambda connection: campaigns.requeue(connection, who, name))
    typer.echo(f"{plural(done, 'message')} waiting again.")


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


def _with_campaigns(work: "Callable[[Connection], Awaitable[Result]]") -> Result:
    """Return what *work* does; a campaign that cannot be changed becomes a CommandError."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db.campaigns import CampaignError

    try:
        return with_database(work)
    except CampaignError as error:
        raise CommandError(f"{error}.") from None


def _state(one: "Campaign") -> str:
    return f"{one.state} ({one.reason})" if one.reason else one.state
