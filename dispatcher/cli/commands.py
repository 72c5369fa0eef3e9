"""All commands by name. Each imports the other packages only when it runs."""

from typing import Annotated

import typer

from dispatcher import __version__
from dispatcher.cli.audit import audit
from dispatcher.cli.bench import bench
from dispatcher.cli.campaign import campaign
from dispatcher.cli.check import check
from dispatcher.cli.cost import cost
from dispatcher.cli.demo import demo
from dispatcher.cli.enqueue import enqueue
from dispatcher.cli.explain import explain
from dispatcher.cli.export import export
from dispatcher.cli.find import find
from dispatcher.cli.forget import forget
from dispatcher.cli.migrate import migrate
from dispatcher.cli.operate import cancel, pause, requeue, resume, settle
from dispatcher.cli.replies import replies
from dispatcher.cli.reports import reports
from dispatcher.cli.rules import limit, suppress, template
from dispatcher.cli.run import run
from dispatcher.cli.show import show
from dispatcher.cli.simulate import simulate
from dispatcher.cli.status import status
from dispatcher.cli.token import token

app = typer.Typer(
    help="Send SMS from PostgreSQL rows through the provider's batch API.",
    epilog="Settings are environment variables; deploy/docs/settings.md lists them. "
    "Exit codes: 0 done, 1 failed, 2 used wrongly.",
    rich_markup_mode=None,  # rich's help takes 200 ms longer
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's way of calling
    if wanted:
        typer.echo(f"dispatcher {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    del version  # its callback has answered


for command in (
    run,
    demo,
    status,
    show,
    find,
    explain,
    reports,
    replies,
    enqueue,
    export,
    cancel,
    requeue,
    settle,
    pause,
    resume,
    audit,
    suppress,
    limit,
    cost,
    forget,
    check,
    migrate,
    simulate,
    bench,
):
    app.command(command.__name__)(command)

app.add_typer(template, name="template")
app.add_typer(campaign, name="campaign")
app.add_typer(token, name="token")
