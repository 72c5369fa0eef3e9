"""Processes that live no longer than the demo: the simulator, the worker, and the broom."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import dispatcher
from dispatcher.cli.errors import CommandError
from dispatcher.postgres.programs import signal_on_parent_exit
from dispatcher.settings import PREFIX

STOP_TIMEOUT: Final = 10.0  # seconds from SIGTERM to SIGKILL


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Give a directory that is gone afterwards, even if this process is killed."""
    path = Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))
    path.chmod(0o711)  # as root, PostgreSQL runs as somebody who must get through it
    broom = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "dispatcher.cli.demo.broom", str(path)],
        cwd=_home(),
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    try:
        yield path
    finally:
        broom.communicate()  # closes the pipe, which is its sign to begin


@contextmanager
def child(
    arguments: list[str], *, settings: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[str]]:
    """Run ``dispatcher`` with *arguments* and *settings*, with its stderr in *log*.

    Settings of the user's own environment do not reach it. It is stopped at the end, and killed
    if this process dies first.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    with log.open("wb") as stderr:
        process = _started(arguments, environment | dict(settings), stderr)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def must_live(process: "subprocess.Popen[str]", name: str, log: Path) -> None:
    """Raise a Failure with the last line of its log if *process* has ended."""
    if process.poll() is not None:
        lines = log.read_text("utf-8", errors="replace").splitlines() or ["it said nothing"]
        raise CommandError(f"the {name} ended with {process.returncode}: {lines[-1]}")


def _started(
    arguments: list[str], environment: dict[str, str], stderr: IO[bytes]
) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "dispatcher", *arguments],
        cwd=_home(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,  # Ctrl-C is for the demo, which stops things in their order
        preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one system call, prepared before
    )


def _home() -> Path:
    """Return where ``-m dispatcher`` finds this very package."""
    return Path(dispatcher.__file__).parent.parent
