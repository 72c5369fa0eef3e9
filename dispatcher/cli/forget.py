"""``dispatcher forget``: one person's data, exported and erased."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, named

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.db.maintenance import Forgotten


def forget(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The person's: +8613112345678.")],
    *,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all that is kept of them to this new file."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase; without it nothing is.")] = False,
    as_: As = None,
) -> None:
    """Erase what is kept of a person, or export it.

    Number, variables and reference leave every message to them, and the
    number its reports and what limits count. What still waits is cancelled.
    What may be on its way is left, and the exit code is 1: ask again later.
    A number that is suppressed stays on that list, without the reason:
    `dispatcher suppress --remove` takes it off. It is written down who did
    it, without the number. Takes the rights of the tables' owner.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.core.format import plural
    from dispatcher.db import maintenance

    if not number.removeprefix("+").isdecimal() or not number.isascii():
        raise CommandError("the number is digits after an optional +.", code=USED_WRONGLY)
    who = named(as_)

    async def work(connection: "Connection") -> "Forgotten | None":
        kept = await maintenance.export(connection, number)
        if export is not None:
            _write(export, kept)
            typer.echo(f"{plural(len(kept), 'record')} written to {export}.")
        if not yes:
            what = f"{plural(len(kept), 'record')} found"
            typer.echo(f"{what}; nothing was erased, because --yes was not given.")
            return None
        return await maintenance.forget(connection, number, who)

    done = with_database(work)
    if done is None:
        return
    typer.echo(f"{plural(len(done.erased), 'message')} erased.")
    if done.suppressed:
        typer.echo("The number stays suppressed: nothing is ever sent to it.")
    if done.left:
        raise CommandError(
            f"{plural(len(done.left), 'message')} left, because they may be on their way: settle"
            " what is unsure, and ask again."
        )


def _write(path: Path, kept: list[str]) -> None:
    """Write a JSON array to a new file that only we may read."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write("[\n" + ",\n".join(kept) + "\n]\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}. Nothing was erased."
        ) from error
