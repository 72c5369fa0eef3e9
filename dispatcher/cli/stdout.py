"""Standard output that says what is wrong when it cannot be written.

Without it an OSError of printing, raised within the work of a command, looks like one of the
database's connection.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, TypeVar, cast

from dispatcher.core.language import _

Result = TypeVar("Result")


class OutputClosed(Exception):  # noqa: N818 - as BrokenPipeError, no error of the command
    """The reader of standard output has closed it."""


class OutputError(Exception):
    """Standard output cannot be written; the text says why."""


class _Stdout:
    """A text stream whose errors are not OSErrors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return _named(self._stream.write, text)

    def flush(self) -> None:
        _named(self._stream.flush)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a stream has
        return getattr(self._stream, name)


@contextmanager
def guarded_stdout() -> Iterator[None]:
    """Print through a stream that raises OutputClosed and OutputError, and no encoding error."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="replace")  # a locale without Chinese shows question marks
    with redirect_stdout(cast("TextIO", _Stdout(sys.stdout))):
        yield


def _open_closed() -> None:
    """Open the outputs that a shell has closed (`>&-`), for which Python has no stream at all.

    A file or socket that is opened later would get their numbers, and what children print.
    Standard output is opened such that each write fails.
    """
    if sys.stdout is None:
        sys.stdout = _null(1, os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _null(2, os.O_WRONLY)


def _null(number: int, mode: int) -> TextIO:
    opened = os.open(os.devnull, mode)
    os.dup2(opened, number)
    if opened != number:
        os.close(opened)
    os.set_inheritable(number, True)
    return open(number, "w", encoding="utf-8", closefd=False)


def _named(write: Callable[..., Result], *arguments: str) -> Result:
    try:
        return write(*arguments)
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise OutputError(error.strerror or _("it is closed")) from None
