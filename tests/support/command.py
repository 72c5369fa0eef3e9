"""Runs the real command in a process of its own, without settings of this process.

The processes are forked from one that has imported what commands import: a command takes a tenth of
the time that a new interpreter needs.
"""

import asyncio
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dispatcher.cli import main

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "dispatcher.cli.commands",
        "dispatcher.cli.connection",
        "dispatcher.cli.output",
        "dispatcher.cli.stdout",
        "dispatcher.core.health_checks",
        "dispatcher.db.campaigns",
        "dispatcher.db.operator",
        "dispatcher.db.status",
        "dispatcher.lists.file_load",
        "rich.console",
        "rich.table",
        "support.command",
        "typer._adapters",
    ]
)
TESTS = Path(__file__).parents[1]
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
DEADLINE = 60  # seconds for a command; the machine may be busy


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr; fails where there are several, or none."""
        (line,) = self.err.splitlines()
        return line


Command = Callable[..., Awaitable[Ended]]


@pytest.fixture
def environment() -> Callable[..., dict[str, str]]:
    """Makes this process's environment with the given settings as its only DISPATCHER_ ones."""
    return _environment


def _environment(**settings: object) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    named = {f"DISPATCHER_{name}": str(value) for name, value in settings.items()}
    return rest | {"LC_ALL": "C.UTF-8"} | named  # English on every machine


@pytest.fixture(scope="session")
def fork_server() -> None:
    """Start the process that commands are forked from; it finds this module too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        multiprocessing.forkserver.ensure_running()


@pytest.fixture
def command(tmp_path, fork_server) -> Command:
    """Runs ``dispatcher ARGUMENTS`` to its end; settings are keyword arguments."""
    del fork_server

    async def run(*arguments: object, locale: str = "C.UTF-8", **settings: object) -> Ended:
        with TemporaryDirectory(dir=tmp_path) as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = FORK.Process(
                target=run_dispatcher,
                args=(
                    [str(each) for each in arguments],
                    _environment(**{"DATA_DIR": tmp_path / "data", **settings})
                    | {"LC_ALL": locale},
                    out,
                    err,
                    Path.cwd(),
                ),
            )
            process.start()
            await asyncio.to_thread(process.join, DEADLINE)
            if process.exitcode is None:
                process.kill()
                raise TimeoutError
            ended = Ended(process.exitcode, *(_text(each) for each in (out, err)))
        assert "Traceback" not in ended.err, ended.err
        return ended

    return run


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


def _text(file: Path) -> str:
    return file.read_text("utf-8")


@pytest.fixture
def operate(command, dsn) -> Command:
    """Runs a command on this test's own database."""

    async def run(*arguments: object, **settings: object) -> Ended:
        return await command(*arguments, **{"DATABASE_URL": dsn, **settings})

    return run
