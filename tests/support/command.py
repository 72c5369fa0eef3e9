"""Runs the command in a process that was forked for it."""

import os
import sys
from pathlib import Path

from dispatcher.cli import main

WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def run_dispatcher(
    arguments: list[str], environment: dict[str, str], out: Path, err: Path, folder: Path
) -> None:
    """Become the command, in a forked process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    files = (os.open(os.devnull, os.O_RDONLY), *(os.open(f, WRITE, 0o600) for f in (out, err)))
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
    sys.stdin = open(0)  # noqa: SIM115 - the process ends with it
    sys.argv = ["dispatcher", *arguments]
    main()
