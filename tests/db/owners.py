"""Processes that own an embedded PostgreSQL, to be killed or asked by tests."""

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
from dispatcher.db.embedded import embedded_server
data_dir, programs = sys.argv[1:]
programs = pathlib.Path(programs) if programs else None
settings = {"fsync": "off"}
with embedded_server(pathlib.Path(data_dir), settings=settings, programs=programs) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(data_dir: Path, programs: Path | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a process that owns a server until its input ends; give it and the server's address."""
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(data_dir), str(programs or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def postmaster(data_dir: Path) -> int:
    """Return the process of the server that runs on *data_dir*."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def alive(pid: int) -> bool:
    """Tell whether a process has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_dead(pid: int, *, deadline: float = 10) -> float:
    """Wait until a process has ended; return the seconds it took."""
    begun = time.monotonic()
    while alive(pid):
        assert time.monotonic() < begun + deadline, f"process {pid} still lives"
        time.sleep(0.005)
    return time.monotonic() - begun


def as_user(uid: int, function: Callable[[], str]) -> str:
    """Run *function* in a fork that is another user; return its word, or fail with its trace.

    A fork and not a new process: root's Python may lie where that user cannot reach it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = function()
        except BaseException:  # noqa: BLE001 - whatever it is, the parent tells it
            said = "failed: " + traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert not said.startswith("failed: "), said
    return said
