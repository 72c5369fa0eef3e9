"""``dispatcher migrate``: applies the migrations of this release."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dispatcher.db.migrate import MigrationStatus

from dispatcher.cli.errors import FAILED, USED_WRONGLY, CommandError
from dispatcher.core.language import _


def migrate(
    *,
    status: Annotated[
        bool, typer.Option("--status", help="Only show which migrations are applied.")
    ] = False,
    down: Annotated[
        bool, typer.Option("--down", help="Undo the last migration; its data are lost.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> int:
    """Apply the migrations of this release to the database.

    `dispatcher run` does so too. With --status nothing is changed, and the
    exit code is 1 if a migration is missing.
    """
    from dispatcher.cli.connection import database_address, explained, read_settings
    from dispatcher.cli.output import print_json
    from dispatcher.db import migrate as migrations
    from dispatcher.db.migrate import MigrationError

    if status and down:
        raise CommandError(_("--status and --down do not go together."), code=USED_WRONGLY)
    try:
        with database_address(read_settings(), make=not status) as dsn, explained(dsn):
            if status:
                return _print_status(asyncio.run(migrations.status(dsn)), json=json)
            if down:
                undone = asyncio.run(migrations.down(dsn))
                names = [undone] if undone else []
                line, none = _("{name} undone."), _("No migration is applied.")
            else:
                names = asyncio.run(migrations.migrate(dsn, warn=_warn, on_wait=_wait))
                line, none = _("{name} applied."), _("Nothing to do.")
            if json:
                print_json(names)
            else:
                typer.echo("\n".join(line.format(name=name) for name in names) or none)
    except MigrationError as error:
        raise CommandError(str(error)) from error
    return 0


def _warn(line: str) -> None:
    typer.echo(f"dispatcher: {line}", err=True)


def _wait() -> None:
    typer.echo(_("dispatcher: waiting for another process that migrates the database."), err=True)


def _print_status(statuses: "list[MigrationStatus]", *, json: bool) -> int:
    from dispatcher.cli.output import moment, print_json

    if json:
        print_json(statuses)
    for one in statuses if not json else ():
        if one.unknown:
            state = _("applied by a newer release")
        elif one.edited:
            state = _("edited after it was applied")
        elif one.applied:
            state = _("applied {applied_at}").format(applied_at=moment(one.applied_at))
        else:
            state = _("missing")
        typer.echo(f"{one.version}  {one.name:30}  {state}")
    done = all(s.applied and not s.edited and not s.unknown for s in statuses)
    return 0 if done else FAILED
