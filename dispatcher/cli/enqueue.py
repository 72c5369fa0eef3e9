"""``dispatcher enqueue``: messages from a CSV file into the queue."""

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError


def enqueue(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="FILE.csv",
            help="Messages, one a line.",
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look for bad lines, and enqueue nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Load a file once more that is in already.")
    ] = False,
) -> None:
    """Put the messages of a CSV file into the queue.

    The header names columns of dispatcher.message: recipient and template_id, param_1, param_2
    and so on for the variables, and if wanted app, sender, signature, priority, send_at,
    expires_at, idempotency_key, reference. A line that is refused is written to the rejects file
    with its number and the reason; all others are in. Exits with 1 if a line was refused.

    A load that was cut short goes on where it was when the same file is loaded again: no line is
    in twice. A file that is in whole is refused, unless --again says that it is meant.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from dispatcher.cli.csv_import import How, load_file
    from dispatcher.cli.database import with_database
    from dispatcher.cli.output import screen
    from dispatcher.core.format import number, plural

    where = rejects or file.with_suffix(".rejects.csv")
    if where.exists() and where.samefile(file):
        raise CommandError(
            f"{where} is the file to load; name another one for its rejects.", code=USED_WRONGLY
        )
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    console = screen(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=file.stat().st_size)

        so_far = 0

        def tell(taken: int, read: int) -> None:
            nonlocal so_far
            so_far = taken
            progress.update(task, completed=read, description=f"{number(taken)} enqueued")

        how = How(encoding=encoding, again=again, dry_run=dry_run)
        try:
            taken, refused = with_database(
                lambda connection: load_file(connection, file, where, tell, how)
            )
        except CommandError as failure:
            if not so_far or dry_run:
                raise
            raise CommandError(
                *failure.lines,
                f"at least {plural(so_far, 'message')} of {file} were enqueued before: run the same"
                " command again, and it goes on where it was.",
                code=failure.code,
            ) from failure
    typer.echo(f"{plural(taken, 'message')} {'would be enqueued' if dry_run else 'enqueued'}.")
    if refused:
        raise CommandError(
            f"{plural(refused, 'line')} of {file} refused, each with its reason in {where}:"
            " mend them there, and enqueue that file."
        )
