"""Processes that run an embedded PostgreSQL, for tests to kill or query."""

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = """
import pathlib, signal, sys
from dispatcher.postgres.server import embedded_server
data_dir, programs = sys.argv[1:]
programs = pathlib.Path(programs) if programs else None
settings = {"fsync": "off"}
with embedded_server(pathlib.Path(data_dir), settings=settings, programs=programs) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(data_dir: Path, programs: Path | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a process that runs a server until its input ends; give both it and the address."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(data_dir), str(programs or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def postmaster(data_dir: Path) -> int:
    """Return the process id of the server on *data_dir*."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_dead(pid: int, *, deadline: float = 60) -> float:
    """Wait until a process has exited; return the seconds that took."""
    begun = time.monotonic()
    while alive(pid):
        assert time.monotonic() < begun + deadline, f"process {pid} still runs"
        time.sleep(0.005)
    return time.monotonic() - begun


def as_user(uid: int, function: Callable[[], str]) -> str:
    """Run *function* as another user in a fork; return its result, or fail with its traceback.

    It is a fork and no new process, because that user may be unable to reach root's Python.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            result = function()
        except BaseException:  # noqa: BLE001 - the parent reports it
            result = "failed: " + traceback.format_exc()
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    assert not result.startswith("failed: "), result
    return result
