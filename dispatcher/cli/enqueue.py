"""``dispatcher enqueue``: messages from a CSV file into the queue."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.failure import USED_WRONGLY, Failure

if TYPE_CHECKING:
    from dispatcher.cli.message_file import Line
    from dispatcher.db.pool import OwnConnection as Connection

BATCH = 5_000  # lines in one COPY: a fraction of a second, and a few megabytes of memory


def enqueue(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, metavar="FILE.csv", help="Messages."
        ),
    ],
    *,
    rejects: Annotated[
        Path | None,
        typer.Option(help="Where refused lines go.", show_default="FILE.rejects.csv"),
    ] = None,
) -> None:
    """Put the messages of a CSV file into the queue.

    The header names columns of dispatcher.message: recipient and template_id, param_1, param_2
    and so on for the variables, and if wanted app, sender, signature, priority, send_at,
    expires_at, idempotency_key, reference. A line that is refused is written to the rejects file
    with its number and the reason; all others are in. Exits with 1 if a line was refused.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from dispatcher.cli.database import with_database
    from dispatcher.cli.screen import screen
    from dispatcher.cli.words import number, plural

    where = rejects or file.with_suffix(".rejects.csv")
    if where.exists() and where.samefile(file):
        raise Failure(
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

        try:
            taken, refused = with_database(
                lambda connection: load_file(connection, file, where, tell)
            )
        except Failure as failure:
            if not so_far:
                raise
            raise Failure(
                *failure.lines,
                f"at least {plural(so_far, 'message')} of {file} were enqueued before: leave those"
                " lines out before it is loaded again, or use a column idempotency_key.",
                code=failure.code,
            ) from failure
    typer.echo(f"{plural(taken, 'message')} enqueued.")
    if refused:
        raise Failure(
            f"{plural(refused, 'line')} of {file} refused, each with its reason in {where}:"
            " mend them there, and enqueue that file."
        )


async def load_file(
    connection: "Connection",
    file: Path,
    rejects: Path,
    tell: Callable[[int, int], None] = lambda _taken, _read: None,
) -> tuple[int, int]:
    """Load *file*, and write what is refused to *rejects*; return how many lines went where.

    *tell* hears after every batch how many messages are in, and how many bytes are read.
    """
    from dispatcher.cli.message_file import COLUMNS, MessageFile
    from dispatcher.cli.rejects import Rejects
    from dispatcher.db.load import copy_messages, database_time

    taken = 0
    with file.open("rb") as stream:
        messages = MessageFile(file, stream, await database_time(connection))
        with Rejects(rejects, messages.header) as out:
            for lines in _batches(iter(messages)):
                good = [line for line in lines if line.values]
                bad = dict(await copy_messages(connection, COLUMNS, [g.values for g in good]))
                reasons = {good[place].number: reason for place, reason in bad.items()}
                out.add(
                    (line, line.reason or reasons[line.number])
                    for line in lines
                    if line.reason or line.number in reasons
                )
                taken += len(good) - len(bad)
                tell(taken, stream.tell())
            return taken, out.count


def _batches(lines: Iterator["Line"]) -> Iterator[list["Line"]]:
    while batch := list(islice(lines, BATCH)):
        yield batch
