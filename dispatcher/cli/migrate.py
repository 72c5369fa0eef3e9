"""``dispatcher migrate``: the tables of this release."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dispatcher.db.migrate import MigrationStatus

from dispatcher.cli.errors import FAILED, USED_WRONGLY, CommandError


def migrate(
    *,
    status: Annotated[bool, typer.Option("--status", help="Only tell what is applied.")] = False,
    down: Annotated[
        bool, typer.Option("--down", help="Take the last migration back, and its data with it.")
    ] = False,
) -> int:
    """Bring the database to the tables of this release.

    `dispatcher run` does that as well. With --status nothing is changed, and
    the exit code is 1 if something is missing.
    """
    from dispatcher.cli.database import database_address, explained
    from dispatcher.cli.settings import read_settings
    from dispatcher.db import migrate as migrations
    from dispatcher.db.migrate import MigrationError

    if status and down:
        raise CommandError("--status and --down do not go together.", code=USED_WRONGLY)
    try:
        with database_address(read_settings(), make=not status) as dsn, explained(dsn):
            if status:
                return _tell(asyncio.run(migrations.status(dsn)))
            if down:
                name = asyncio.run(migrations.down(dsn))
                typer.echo(f"{name} taken back." if name else "No migration is applied.")
            else:
                names = asyncio.run(migrations.migrate(dsn, warn=_warn))
                typer.echo("\n".join(f"{name} applied." for name in names) or "Nothing to do.")
    except MigrationError as error:
        raise CommandError(str(error)) from error
    return 0


def _warn(line: str) -> None:
    typer.echo(f"dispatcher: {line}", err=True)


def _tell(standings: "list[MigrationStatus]") -> int:
    from dispatcher.cli.output import moment

    for standing in standings:
        if standing.unknown:
            state = "applied by a newer release"
        elif standing.edited:
            state = "edited after it was applied"
        elif standing.applied:
            state = f"applied {moment(standing.applied_at)}"
        else:
            state = "missing"
        typer.echo(f"{standing.version}  {standing.name:30}  {state}")
    done = all(s.applied and not s.edited and not s.unknown for s in standings)
    return 0 if done else FAILED
