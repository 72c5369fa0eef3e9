"""``dispatcher enqueue``: imports messages from a CSV file into the queue."""

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
            help="Messages, one on each line.",
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
        typer.Option(
            metavar="NAME", help="Encoding of the file, such as gb18030.", show_default="detected"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report bad lines; enqueue nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Import a file once more that was imported before.")
    ] = False,
) -> None:
    """Put the messages of a CSV file into the queue.

    The header names columns of dispatcher.message: recipient and template_id, param_1, param_2
    and so on for the variables, and optionally app, sender, signature, priority, send_at,
    expires_at, idempotency_key, reference. A line that is refused is written to the rejects file
    with its number and the reason; all others are enqueued. Exits with 1 if a line was refused.

    An interrupted import continues when the same file is enqueued again: no line is enqueued
    twice. A file that was imported completely is refused without --again.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.cli.csv_import import ImportOptions, load_file
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

        def show_progress(taken: int, read: int) -> None:
            nonlocal so_far
            so_far = taken
            progress.update(task, completed=read, description=f"{number(taken)} enqueued")

        options = ImportOptions(
            encoding=encoding,
            again=again,
            dry_run=dry_run,
            other_mainland=read_settings().mainland_without_plus == "all",
        )
        try:
            taken, refused = with_database(
                lambda connection: load_file(connection, file, where, show_progress, options)
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
