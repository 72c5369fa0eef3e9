"""Processes of a benchmark: workers, the simulator, and what is compared with them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import dispatcher
from dispatcher.postgres.programs import signal_on_parent_exit

STOP_TIMEOUT = 60.0  # seconds from SIGTERM to SIGKILL
START_TIMEOUT = 60.0  # seconds until a child says that it is ready
PREFIX = "DISPATCHER_"


class ChildError(Exception):
    """A process of the benchmark did not do its part; the text says which and why."""


class Child:
    """A process that speaks one line at a time."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self.name = name
        self._log = log

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def line(self, timeout: float = START_TIMEOUT) -> str:  # noqa: ASYNC109 - a deadline of this call alone
        """Return the next line it prints. Raises ChildError if none comes."""
        assert self._process.stdout is not None  # noqa: S101 - it was opened with a pipe
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildError(f"{self.name} said nothing for {timeout:g} s") from None
        if not line:
            raise self._ended()
        return line.decode().strip()

    def must_live(self) -> None:
        """Raise ChildError if it has ended."""
        if self._process.returncode is not None:
            raise self._ended()

    def _ended(self) -> ChildError:
        said = self._log.read_text("utf-8", "replace").splitlines()
        # An exception group ends with a rule, not with a word.
        lines = [line for line in said if line.strip(" +-|")] or ["it said nothing"]
        return ChildError(f"{self.name} ended: {lines[-1]}")

    def say(self, line: str) -> None:
        """Send it one line."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        self._process.stdin.write(f"{line}\n".encode())

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()

    async def stop(self) -> None:
        """Ask it to end, and see that it does."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def child(
    name: str,
    arguments: list[str],
    *,
    log: Path,
    settings: Mapping[str, str] | None = None,
    module: str = "dispatcher",
) -> AsyncIterator[Child]:
    """Run ``python -m module arguments`` with *settings* as the only settings; end it afterwards.

    Its stderr goes to *log*. It ends with this process, however that ends.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            cwd=Path(dispatcher.__file__).parent.parent,  # where -m finds this very package
            env=environment | dict(settings or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C is for the benchmark, which stops things in order
            preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),
        )
    started = Child(process, name, log)
    try:
        yield started
    finally:
        await started.stop()
