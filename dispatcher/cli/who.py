"""Who runs a command: named beside what was done."""

import getpass
import os
import socket
from typing import Annotated

import typer

from dispatcher.cli.failure import USED_WRONGLY, Failure

MAX_NAME = 80  # characters

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Who does it, for `dispatcher audit`.",
        show_default="user@host",
    ),
]


def named(given: str | None) -> str:
    """Return the name that was given, or else the user of this machine: ana@host."""
    if given is None:
        return f"{_user()}@{socket.gethostname()}"
    who = " ".join(given.split())
    if not who or len(who) > MAX_NAME or not who.isprintable():
        raise Failure(f"--as takes a name of 1 to {MAX_NAME} characters.", code=USED_WRONGLY)
    return who


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return f"user {os.getuid()}"
