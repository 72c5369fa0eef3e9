"""``dispatcher forget``: exports and erases the data of one person."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.cli.operate import As, operator_name
from dispatcher.core.errors import os_reason
from dispatcher.core.language import _

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
    from dispatcher.core.message import as_stored
    from dispatcher.core.number import DoubtfulNumber, read_number
    from dispatcher.db import operator

    other_mainland = read_settings().mainland_without_plus == "all"
    read = read_number(number, other_mainland=other_mainland)
    doubt = None
    if isinstance(read, DoubtfulNumber):
        doubt = CommandError(
            _("the number is doubtful: {reason}.").format(reason=read.reason), code=USED_WRONGLY
        )
        e164 = as_stored(number)  # rows may have it: it counts if something is found
        if not e164:
            raise doubt
    else:
        e164 = read.e164
    who = operator_name(as_)

    async def work(connection: "Connection") -> "Forgotten | None":
        kept = await operator.export(connection, e164)
        if doubt is not None and not kept:
            raise doubt
        if export is not None:
            _write(export, kept)
            typer.echo(
                _("{value} written to {export}.").format(
                    value=plural(len(kept), "record"), export=export
                )
            )
        if not yes:
            what = _("{value} found").format(value=plural(len(kept), "record"))
            typer.echo(
                _("{what}; nothing was erased, because --yes was not given.").format(what=what)
            )
            return None
        return await operator.forget(connection, who, e164)

    done = with_database(work)
    if done is None:
        return
    typer.echo(_("{value} erased.").format(value=plural(len(done.erased), "message")))
    if done.suppressed:
        typer.echo(_("The number stays suppressed: nothing is ever sent to it."))
    if done.left:
        raise CommandError(
            _(
                "{value} left, because they may be on their way: settle what is unsure, and ask"
                " again."
            ).format(value=plural(len(done.left), "message"))
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
            _("{path} cannot be written: {strerror}. Nothing was erased.").format(
                path=path, strerror=os_reason(error)
            )
        ) from error
