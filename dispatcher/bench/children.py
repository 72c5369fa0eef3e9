"""Runs the child processes of a benchmark: workers, the simulator, listeners, generators."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import dispatcher
from dispatcher.postgres.programs import signal_on_parent_exit

STOP_TIMEOUT_SECONDS = 60.0  # from SIGTERM to SIGKILL
START_TIMEOUT_SECONDS = 60.0  # until a child prints that it is ready
SETTINGS_PREFIX = "DISPATCHER_"


class ChildError(Exception):
    """A child process failed; the text names it and the reason."""


class Child:
    """A child process that reads and prints lines."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self.name = name
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def read_line(self, timeout: float = START_TIMEOUT_SECONDS) -> str:  # noqa: ASYNC109 - a deadline of this call alone
        """Return the next line of its output. Raises ChildError if none comes."""
        assert self._process.stdout is not None  # noqa: S101 - it was opened with a pipe
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildError(f"{self.name} said nothing for {timeout:g} s") from None
        if not line:
            raise self._ended()
        return line.decode().strip()

    def check_running(self) -> None:
        """Raise ChildError if the process has ended."""
        if self._process.returncode is not None:
            raise self._ended()

    def _ended(self) -> ChildError:
        logged = self._log.read_text("utf-8", "replace").splitlines()
        # An exception group ends with a line of dashes.
        lines = [line for line in logged if line.strip(" +-|")] or ["it said nothing"]
        return ChildError(f"{self.name} ended: {lines[-1]}")

    def write_line(self, line: str) -> None:
        """Write one line to its input."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        self._process.stdin.write(f"{line}\n".encode())

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._process.kill()

    async def stop(self) -> None:
        """Terminate it; kill it if it does not end in time."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def run_child(
    name: str,
    arguments: list[str],
    *,
    log: Path,
    settings: Mapping[str, str] | None = None,
    module: str = "dispatcher",
    under: Sequence[str] = (),
) -> AsyncIterator[Child]:
    """Run ``python -m module arguments`` with *settings* as its only settings; stop it at the end.

    *under* is a program, with its arguments, that runs Python, as valgrind does. Its stderr goes to
    *log*. It dies with this process, however this process ends.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS_PREFIX)}
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *under,
            sys.executable,
            "-m",
            module,
            *arguments,
            cwd=Path(dispatcher.__file__).parent.parent,  # where -m finds this package and tests
            env=environment | dict(settings or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches the benchmark only, which stops its children
            preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),
        )
    started = Child(process, name, log)
    try:
        yield started
    finally:
        await started.stop()
