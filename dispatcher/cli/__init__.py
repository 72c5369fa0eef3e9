"""The command line: one file a command. Exit codes: 0 done, 1 failed, 2 used wrongly.

A command is a plain function that takes what typer read, returns an exit code or nothing, and
raises :class:`~dispatcher.cli.errors.Failure` for what may well happen.
"""

import os
import sys
from typing import NoReturn

from dispatcher.cli.errors import FAILED, CommandError


def main() -> NoReturn:
    """Run the command that the arguments name, and exit."""
    import typer

    from dispatcher.cli.commands import app

    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="dispatcher", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be answered
    except CommandError as failure:
        code = _complain(failure.lines, failure.code)
    except typer.TyperException as error:
        what = error.format_message().partition("\n")[0].replace(*_PLAINER).rstrip(".")
        context = getattr(error, "ctx", None)  # of errors of use
        of = context.command_path if context else "dispatcher"
        then = " See" if what.endswith("?") else ": see"
        code = _complain((f"{what}{then} `{of} --help`.",), error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not stumble over it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    if code == _INTERRUPTED:
        code = _complain(("interrupted.",), FAILED)
    sys.exit(code or 0)


_PLAINER = (
    "Input should be a valid integer, unable to parse string as an integer",
    "it must be a whole number",
)
_INTERRUPTED = 130  # how typer tells of Ctrl-C


def _complain(lines: tuple[str, ...], code: int) -> int:
    for line in lines:
        print(f"dispatcher: {line}", file=sys.stderr)  # noqa: T201 - the one place that does
    return code
