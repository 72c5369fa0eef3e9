"""``dispatcher forget``: exports and erases the data of one person."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name

if TYPE_CHECKING:
    from dispatcher.db.database import OwnConnection as Connection
    from dispatcher.db.operator import Forgotten


def forget(
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="The person's number: +8613112345678.")
    ],
    *,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all data of the person to this new file."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; without it nothing is erased.")
    ] = False,
    as_: As = None,
) -> None:
    """Erase or export the data of a person.

    Number, variables and reference are erased from all messages to the
    number, and the number from reports and from the counts of limits.
    Queued messages are cancelled. Messages that may be on their way are
    left, and the exit code is 1: repeat the command later. A suppressed
    number stays suppressed, without the reason; `dispatcher suppress
    --remove` removes it. The audit has who did it, without the number.
    Needs the rights of the tables' owner.
    """
    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.core.format import plural
    from dispatcher.core.number import DoubtfulNumber, read_number
    from dispatcher.db import operator

    other_mainland = read_settings().mainland_without_plus == "all"
    read = read_number(number, other_mainland=other_mainland)
    if isinstance(read, DoubtfulNumber):
        raise CommandError(f"the number is doubtful: {read.reason}.", code=USED_WRONGLY)
    who = operator_name(as_)

    async def work(connection: "Connection") -> "Forgotten | None":
        kept = await operator.export(connection, read.e164)
        if export is not None:
            _write(export, kept)
            typer.echo(f"{plural(len(kept), 'record')} written to {export}.")
        if not yes:
            what = f"{plural(len(kept), 'record')} found"
            typer.echo(f"{what}; nothing was erased, because --yes was not given.")
            return None
        return await operator.forget(connection, who, read.e164)

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
    """Write a JSON array to a new file that only this user may read."""
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
