"""All commands by name. Each imports the other packages only when it runs."""

from collections.abc import Iterator
from typing import Annotated, Any

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
from dispatcher.cli.usage import bound_numbers, use_pages
from dispatcher.core.language import ENGLISH, _, language

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


for function in (
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
    app.command(function.__name__)(function)

app.add_typer(template, name="template")
app.add_typer(campaign, name="campaign")
app.add_typer(token, name="token")


def command_tree() -> Any:  # noqa: ANN401 - typer does not export its types of commands
    """Return all commands; their help is in the language of the present context."""
    tree = typer.main.get_command(app)
    use_pages(tree)
    bound_numbers(tree)
    if language() != ENGLISH:
        for owner, name, text in help_texts(tree):
            paragraphs = [_(paragraph) for paragraph in help_paragraphs(text)]
            setattr(owner, name, "\n\n".join(paragraphs))
            if name == "help" and hasattr(owner, "short_help"):
                owner.short_help = paragraphs[0]
    return tree


def help_texts(command: Any) -> Iterator[tuple[Any, str, str]]:  # noqa: ANN401 - as above
    """Yield each text of the help of a command and its subcommands: its owner, name and words."""
    for name in ("help", "epilog"):
        if text := getattr(command, name):
            yield command, name, text
    for parameter in command.params:
        for name in ("help", "show_default"):
            text = getattr(parameter, name)
            if isinstance(text, str) and (" " in text or text.isalpha()):
                yield parameter, name, text
    for each in getattr(command, "commands", {}).values():
        yield from help_texts(each)


def help_paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, each as one line."""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
