"""``dispatcher forget``: one person's data, exported and erased."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.failure import USED_WRONGLY, Failure
from dispatcher.cli.who import As, named

if TYPE_CHECKING:
    from dispatcher.db.pool import OwnConnection as Connection


def forget(
    number: Annotated[str, typer.Argument(help="The person's number: +8613112345678.")],
    *,
    export: Annotated[
        Path | None, typer.Option(help="Write all that is kept of them to this new file first.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase; without it nothing is.")] = False,
    as_: As = None,
) -> None:
    """Erase what is kept of a person, or export it.

    Number, variables and reference leave every message to them, and the
    number its reports. What still waits is cancelled. What may be on its way
    is left, and the exit code is 1: ask again later. It is written down who
    did it, without the number. Takes the rights of the tables' owner.
    """
    from dispatcher.cli.database import with_database
    from dispatcher.cli.words import plural
    from dispatcher.db import keeping

    if not number.removeprefix("+").isdecimal() or not number.isascii():
        raise Failure("the number is digits after an optional +.", code=USED_WRONGLY)
    who = named(as_)

    async def work(connection: "Connection") -> tuple[list[int], list[int]]:
        kept = await keeping.export(connection, number)
        if export is not None:
            _write(export, kept)
            typer.echo(f"{plural(len(kept), 'message')} written to {export}.")
        if not yes:
            what = f"{plural(len(kept), 'message')} would be erased"
            typer.echo(f"{what}; nothing was, because --yes was not given.")
            return ([], [])
        erased, left = await keeping.forget(connection, number, who)
        typer.echo(f"{plural(len(erased), 'message')} erased.")
        return (erased, left)

    _, left = with_database(work)
    if left:
        raise Failure(
            f"{plural(len(left), 'message')} left, because they may be on their way: settle what is"
            " unsure, and ask again."
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
        raise Failure(f"{path} cannot be written: {error.strerror}. Nothing was erased.") from error
