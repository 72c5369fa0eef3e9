"""Runs an embedded PostgreSQL as a child process.

It stops when this process exits, however it exits.
"""

import errno
import fcntl
import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dispatcher.core.errors import os_reason
from dispatcher.core.language import _
from dispatcher.postgres.cluster import (
    LOOPBACK,
    ServerFiles,
    create_cluster,
    data_path,
    disk_full_message,
    explain_output,
    local_dsn,
    major_version,
    not_writable_message,
    reset_password,
    store_port,
    stored_address,
    write_access_rules,
)
from dispatcher.postgres.programs import (
    EmbeddedError,
    Programs,
    SystemUser,
    find_programs,
    server_user,
    start_program,
    user_name,
)

START_TIMEOUT_SECONDS: Final = 300.0  # after a crash it replays its log, which can take minutes
STOP_TIMEOUT_SECONDS: Final = 30.0  # for a clean stop, which writes what is in memory
_QUIT_TIMEOUT_SECONDS: Final = 5.0  # for an immediate stop, which writes nothing
_LOCK_TIMEOUT_SECONDS: Final = 1.0  # running_server holds the lock for a moment
_MAX_PORT_TRIES: Final = 5  # a port may be taken between the check and the server's start
_POLL_INTERVAL_SECONDS: Final = 0.01


@contextmanager
def embedded_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, programs: Path | None = None
) -> Iterator[str]:
    """Run PostgreSQL on *data_dir*, give its address, and stop it at the end.

    The address is that of a socket which only this user and root may use; ``postgres.url`` in
    *data_dir* has one for any tool on this machine. Call this from the main thread: the kernel
    stops the server when the thread that started it ends.

    Args:
        data_dir: is created if it does not exist.
        settings: PostgreSQL's own settings (``fsync``, ``shared_buffers`` ...).
        programs: the folder of PostgreSQL's programs, if not the first one found.

    Raises:
        EmbeddedError: the server does not start; the text is one line for users.

    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start the embedded PostgreSQL from the main thread")
    files = ServerFiles(data_dir.absolute())
    with ExitStack() as stack:
        with _os_errors_explained(files):
            files.data_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(files))
            process, dsn = _start(files, dict(settings or {}), programs)
            stack.callback(_stop, process)
        yield dsn


def may_have_server(data_dir: Path) -> bool:
    """Tell whether *data_dir* holds the data of a PostgreSQL, or cannot be looked into.

    A service with a database of its own keeps other files there.
    """
    try:
        return not stat.S_ISDIR(data_dir.stat().st_mode) or ServerFiles(data_dir).cluster.exists()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def running_server(data_dir: Path) -> str | None:
    """Return the address of the server that another process runs on *data_dir*, or None.

    Raises EmbeddedError if this user cannot look.
    """
    files = ServerFiles(data_dir.absolute())
    with _os_errors_explained(files):
        try:
            lock = os.open(files.lock, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        status = _status(files.cluster)
        return local_dsn(files, status.port) if status is not None and status.ready else None
    finally:
        os.close(lock)
    return None


@dataclass(frozen=True, slots=True)
class _Status:
    """The lines of postmaster.pid that are used here."""

    pid: int
    port: int
    ready: bool


def _status(cluster: Path) -> _Status | None:
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return _Status(int(lines[0]), int(lines[3]), lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):  # it does not exist, or is written just now
        return None


_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def _os_errors_explained(files: ServerFiles) -> Iterator[None]:
    """Turn an OSError into an EmbeddedError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = os_reason(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmbeddedError(disk_full_message(files)) from error
        missing = error.errno == errno.ENOENT and error.filename == str(files.data_dir)
        if missing or error.errno in _NOT_WRITABLE:
            raise EmbeddedError(not_writable_message(files, reason)) from error
        raise EmbeddedError(
            _("The embedded PostgreSQL in {data_dir} does not start: {reason}").format(
                data_dir=files.data_dir, reason=reason
            )
        ) from error


@contextmanager
def _locked(files: ServerFiles) -> Iterator[None]:
    """Lock the data directory against a second server; the kernel unlocks it when we exit."""
    lock = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
                    raise EmbeddedError(
                        _(
                            "The embedded PostgreSQL in {data_dir} is in use by process {owner}:"
                            " stop that one first, or set DISPATCHER_DATABASE_URL so that both"
                            " share one PostgreSQL."
                        ).format(data_dir=files.data_dir, owner=owner or "unknown")
                    ) from None
                time.sleep(_POLL_INTERVAL_SECONDS)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _start(
    files: ServerFiles, settings: dict[str, str], folder: Path | None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server, on new data if there are none; return it with its address when ready."""
    user = server_user(files.cluster)
    programs = find_programs(user, major=major_version(files.cluster), folder=folder)
    if not files.cluster.exists():
        create_cluster(files, programs, user, sync=settings.get("fsync") != "off")
    elif (owner := files.cluster.stat().st_uid) != user.uid:
        raise EmbeddedError(
            _(
                "{cluster} belongs to {user_name}, and PostgreSQL would run as {name}: start as"
                " the user who made it, or set another DISPATCHER_DATA_DIR."
            ).format(cluster=files.cluster, user_name=user_name(owner), name=user.name)
        )
    _stop_leftover(files.cluster)
    if not stored_address(files):
        reset_password(files, files.cluster, programs, user)
    write_access_rules(files.cluster)
    for attempt in itertools.count(1):
        port = _free_port(urlsplit(stored_address(files)).port or 0)
        process = _start_server(files, programs, user, {"port": str(port), **settings})
        try:
            output = _wait_until_ready(process, files)
        except BaseException:
            _stop(process)
            raise
        if output is None:
            store_port(files, port)
            return process, local_dsn(files, port)
        if "could not create any TCP/IP sockets" not in output or attempt == _MAX_PORT_TRIES:
            raise EmbeddedError(explain_output(output, files))
    raise AssertionError("unreachable: the loop ends by return or raise")


def _start_server(
    files: ServerFiles, programs: Programs, user: SystemUser, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    if files.log.exists():
        files.log.replace(files.log.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    all_settings = {
        "listen_addresses": LOOPBACK,
        "unix_socket_directories": ".",  # in the data directory, which no other user can enter
        **settings,
    }
    with (
        os.fdopen(os.open(files.log, flags, 0o600), "wb") as log,
        data_path(files.cluster, user) as (path, fds),
    ):
        return start_program(
            programs / "postgres",
            ["-D", path, *(f"--{name}={value}" for name, value in all_settings.items())],
            user=user,
            output=log.fileno(),
            inherited_fds=fds,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], files: ServerFiles) -> str | None:
    """Wait until the server is ready; return its log if it exits instead, else None."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None:
        status = _status(files.cluster)
        if status is not None and status.ready and status.pid == process.pid:
            return None
        if time.monotonic() > deadline:
            raise EmbeddedError(
                _(
                    "The embedded PostgreSQL in {data_dir} is not ready after"
                    " {start_timeout_seconds} s: see {log}."
                ).format(
                    data_dir=files.data_dir,
                    start_timeout_seconds=f"{START_TIMEOUT_SECONDS:.0f}",
                    log=files.log,
                )
            )
        time.sleep(_POLL_INTERVAL_SECONDS)
    return files.log.read_text(encoding="utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server: cleanly, else immediately, else by SIGKILL; and reap it."""
    for signum, timeout in (
        (signal.SIGINT, STOP_TIMEOUT_SECONDS),
        (signal.SIGQUIT, _QUIT_TIMEOUT_SECONDS),
    ):
        process.send_signal(signum)  # does nothing after its exit
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _stop_leftover(cluster: Path) -> None:
    """Stop a server whose parent process died; wait for one that is stopping.

    The lock proves that the parent is dead. When no process of the server is left, postmaster.pid
    is removed: its process id may belong to another process by then (in containers soon), and
    PostgreSQL would not start beside it.
    """
    status = _status(cluster)
    if status is None or sys.platform != "linux":  # elsewhere PostgreSQL's own check must do
        return
    left = _server_processes(cluster)
    if status.pid in left:  # the postmaster, which stops the others
        _send(status.pid, signal.SIGINT)
    else:
        for pid in left:
            _send(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while left := _server_processes(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                _("An earlier PostgreSQL on {cluster} does not stop: kill -QUIT {names}").format(
                    cluster=cluster, names=" ".join(map(str, left))
                )
            )
        time.sleep(_POLL_INTERVAL_SECONDS)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _send(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def _server_processes(cluster: Path) -> list[int]:
    """Return the processes of PostgreSQL whose working directory is *cluster*."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):  # it has exited, or is another user's
            if (process / "comm").read_text().strip() == "postgres" and (
                process / "cwd"
            ).readlink() == cluster.resolve():
                found.append(int(process.name))
    return found


def _free_port(wanted: int) -> int:
    """Return *wanted* if it is free, so that a stored address stays valid, else another port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise EmbeddedError(
        _("No port of {loopback} is free for the embedded PostgreSQL.").format(loopback=LOOPBACK)
    )
