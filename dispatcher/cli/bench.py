"""``dispatcher bench``: what this machine does, measured beside something that is known."""

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.failure import Failure

if TYPE_CHECKING:
    from dispatcher.bench.results import Results

bench = typer.Typer(
    help="Measure this machine, beside something that is known.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Rounds = Annotated[int, typer.Option(min=1, help="Times that everything is measured.")]
Server = Annotated[
    str | None, typer.Option(help="Address of a PostgreSQL to measure on; else one is started.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The same for programs.")]


@bench.command()
def reports(
    *,
    rounds: Rounds = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each measurement.")] = 10.0,
    connections: Annotated[int, typer.Option(min=1, help="Posts under way at once.")] = 64,
    server: Server = None,
    json: AsJson = False,
) -> None:
    """Status reports a second that one receiver takes in, beside a bare handler.

    The bare one parses the same POST and answers; the receiver stores before it answers, and
    matches behind that.
    """
    from dispatcher.bench.children import ChildError
    from dispatcher.bench.reports import measure
    from dispatcher.bench.stage import stage
    from dispatcher.db.errors import EmbeddedError
    from dispatcher.db.migrations import MigrationError

    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        try:
            with stage(server, Path(folder)) as place:
                measured = asyncio.run(
                    measure(
                        place,
                        rounds=rounds,
                        seconds=seconds,
                        connections=connections,
                        say=lambda line: typer.echo(line, err=True),
                    )
                )
        except (ChildError, EmbeddedError, MigrationError) as error:
            raise Failure(str(error)) from error
    _tell(measured, json=json)


def _tell(results: "Results", *, json: bool) -> None:
    """Print every figure, and the ratios last: they are what compares from machine to machine."""
    import msgspec
    from rich.table import Table

    from dispatcher.cli.screen import screen

    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(results)))
        return
    table = Table("What", "Figure", title=results.benchmark, title_justify="left", box=None)
    for name in ("Median", "Lowest", "Highest"):
        table.add_column(name, justify="right")
    for figure in [*results.figures, *results.ratios]:
        table.add_row(
            figure.variant,
            f"{figure.name}, {figure.unit}" if figure.unit else figure.name,
            *(f"{value:,.2f}" for value in (figure.median, min(figure.values), max(figure.values))),
        )
    screen().print(table)
