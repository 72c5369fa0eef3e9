"""Runs the demo's child processes: the simulator, the worker and the cleanup."""

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
from dispatcher.core.language import _
from dispatcher.postgres.programs import signal_on_parent_exit
from dispatcher.settings import PREFIX

STOP_TIMEOUT_SECONDS: Final = 10.0  # from SIGTERM to SIGKILL


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Give a directory that is deleted afterwards, even if this process is killed."""
    path = Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))
    path.chmod(0o711)  # started by root, PostgreSQL runs as another user and passes through
    cleanup = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "dispatcher.cli.demo.cleanup", str(path)],
        cwd=_package_parent(),
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C must not stop it
    )
    try:
        yield path
    finally:
        cleanup.communicate()  # closes the pipe, which starts the deletion


@contextmanager
def child(
    arguments: list[str], *, settings: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[str]]:
    """Run ``dispatcher`` with *arguments* and *settings*, with its stderr in *log*.

    It has no other settings of the environment. It is stopped at the end, and killed if this
    process dies first.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    with log.open("wb") as stderr:
        process = _start(arguments, environment | dict(settings), stderr)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def check_running(process: "subprocess.Popen[str]", name: str, log: Path) -> None:
    """Raise CommandError with the last line of its log if *process* has ended."""
    if process.poll() is not None:
        lines = log.read_text("utf-8", errors="replace").splitlines() or [_("it said nothing")]
        raise CommandError(
            _("{process} ended with {code}: {line}").format(
                process=_(name), code=process.returncode, line=lines[-1]
            )
        )


def _start(
    arguments: list[str], environment: dict[str, str], stderr: IO[bytes]
) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "dispatcher", *arguments],
        cwd=_package_parent(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the demo only, which stops its children in order
        preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one system call, prepared before
    )


def _package_parent() -> Path:
    """Return the directory where ``-m dispatcher`` finds this package."""
    return Path(dispatcher.__file__).parent.parent
