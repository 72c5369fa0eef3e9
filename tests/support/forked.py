"""Runs `dispatcher` in processes that are forked from one with all imports.

A process starts in a tenth of the time that a new interpreter needs. What an interpreter reads from
the environment at its own start (PYTHONPATH, LD_PRELOAD) has no effect on it.
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from dispatcher.cli import main
from dispatcher.postgres.programs import signal_on_parent_exit

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
        "dispatcher.service.run",
        "rich.console",
        "rich.table",
        "support.forked",
        "typer._adapters",
    ]
)
TESTS = Path(__file__).parents[1]
WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class ForkedProcess:
    """One `dispatcher ARGUMENTS`, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        out: Path | None,
        err: Path | Connection,
        folder: Path | None = None,
    ) -> None:
        """Start it in *folder*; what it prints goes to the file *out*, or nowhere."""
        _start_server()
        self._process = FORK.Process(
            target=_become, args=(arguments, dict(environ), out, err, folder or Path.cwd())
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait until it has ended; return its exit code."""
        self._process.join()
        return self.poll()

    async def ended(self) -> int:
        """Wait in the event loop until it has ended; return its exit code."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _start_server() -> None:
    """Start the process that others are forked from; it must find this module, and this tree."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(TESTS), str(TESTS.parent), before or ""))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _become(
    arguments: Sequence[str],
    environ: dict[str, str],
    out: Path | None,
    err: Path | Connection,
    folder: Path,
) -> None:
    """Become the command, in a forked process."""
    if request_signal := signal_on_parent_exit(os.getppid(), signal.SIGKILL):
        request_signal()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out or os.devnull, WRITE, 0o600), 1)
    os.dup2(err.fileno() if isinstance(err, Connection) else os.open(err, WRITE, 0o600), 2)
    if isinstance(err, Connection):
        err.close()
    # Those of the process before may be for files of another kind.
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - the process ends with them
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.argv = ["dispatcher", *arguments]
    main()
