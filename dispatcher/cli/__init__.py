"""The command line: one file for each command. Exit codes: 0 done, 1 failed, 2 used wrongly.

A command is a function that typer calls with the arguments. It returns an exit code or None, and
raises :class:`~dispatcher.cli.errors.CommandError` for expected failures; of a list, the packages
below raise :class:`~dispatcher.core.errors.ListError`.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

from dispatcher.cli.errors import FAILED, USED_WRONGLY, CommandError
from dispatcher.core.errors import ListError
from dispatcher.core.language import _, locale_language, use_language


def main() -> NoReturn:
    """Run the command that the arguments name, and exit."""
    import typer

    from dispatcher.cli.commands import command_tree
    from dispatcher.cli.stdout import OutputClosed, OutputError, guarded_stdout
    from dispatcher.cli.usage import error_of_use, help_instead

    use_language(locale_language(os.environ))
    try:
        with guarded_stdout():
            code = command_tree()(
                sys.argv[1:] or ["--help"], prog_name="dispatcher", standalone_mode=False
            )
            sys.stdout.flush()  # here, where a closed pipe can still be handled
    except CommandError as failure:
        code = _print_error(failure.lines, failure.code)
    except ListError as failure:
        code = _print_error(failure.lines, USED_WRONGLY if failure.misused else FAILED)
    except typer.TyperException as error:
        if (page := help_instead(error)) is not None:
            print(page, file=sys.stderr)  # noqa: T201 - a page, not a line of an error
            code = error.exit_code
        else:
            code = _print_error((error_of_use(error),), error.exit_code)
    except OutputClosed:
        _discard(sys.stdout)
        code = FAILED
    except OutputError as error:
        _discard(sys.stdout)
        code = _print_error(
            (_("the output cannot be written: {error}.").format(error=error),), FAILED
        )
    if code == _INTERRUPTED_EXIT_CODE:
        code = _print_error((_("interrupted."),), FAILED)
    try:
        sys.stdout.flush()  # what a command printed before its error
    except OSError:  # its error was told, and says more
        _discard(sys.stdout)
    try:
        sys.stderr.flush()  # a log that cannot be written does not change the exit code
    except OSError:
        _discard(sys.stderr)
    sys.exit(code or 0)


def _discard(stream: TextIO) -> None:
    """Send what is left in the buffer nowhere: the interpreter flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_INTERRUPTED_EXIT_CODE = 130  # typer returns it after Ctrl-C


def _print_error(lines: tuple[str, ...], code: int) -> int:
    with suppress(OSError):  # the exit code is left to tell it
        for line in lines:
            print(f"dispatcher: {line}", file=sys.stderr)  # noqa: T201 - the one place that does
    return code
