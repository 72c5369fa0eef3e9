"""A PostgreSQL of our own, for as long as its owner lives and not a moment longer."""

import errno
import fcntl
import itertools
import os
import signal
import socket
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

from dispatcher.db.binaries import Binaries, find_binaries
from dispatcher.db.cluster import (
    LOOPBACK,
    Places,
    disk_full,
    major_of,
    make_cluster,
    not_writable,
    own_dsn,
    set_password,
    stored_address,
    trouble,
    way_to,
    write_access,
    write_port,
)
from dispatcher.db.errors import EmbeddedError
from dispatcher.db.launch import Account, account_for, launch, user_name

START_TIMEOUT: Final = 300.0  # seconds; after a crash it reads its log again, and that can be long
STOP_TIMEOUT: Final = 30.0  # seconds for a clean stop, which writes what is in memory
_LOCK_TIMEOUT: Final = 1.0  # seconds; a look at the lock (see running_server) holds it shortly
_PORT_TRIES: Final = 5  # somebody may take the port between our look and the server's start
_TICK: Final = 0.01  # seconds between two looks


@contextmanager
def embedded_server(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, programs: Path | None = None
) -> Iterator[str]:
    """Run PostgreSQL on *data_dir* and give its address; stop it at the end.

    *settings* are the server's own (``fsync``, ``shared_buffers`` ...), *programs* the folder of
    PostgreSQL's programs if not the first to be found. The address is that of a
    socket only this user and root may use; ``postgres.url`` in *data_dir* has one for any tool
    on this machine. Call it from the main thread: the server is stopped when the thread that
    started it ends, by whatever death. Raises EmbeddedError with one line for people.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start the embedded PostgreSQL from the main thread")
    places = Places(data_dir.absolute())
    with ExitStack() as stack:
        with _explained(places):
            places.data_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(places))
            process, dsn = _start(places, dict(settings or {}), programs)
            stack.callback(_stop, process)
        yield dsn


def running_server(data_dir: Path) -> str | None:
    """Return the address of the server that another process runs on *data_dir*, or None."""
    places = Places(data_dir.absolute())
    try:
        lock = os.open(places.lock, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        status = _status(places.cluster)
        return own_dsn(places, status.port) if status is not None and status.ready else None
    finally:
        os.close(lock)
    return None


@dataclass(frozen=True, slots=True)
class _Status:
    """What the server tells of itself in postmaster.pid."""

    pid: int
    port: int
    ready: bool


def _status(cluster: Path) -> _Status | None:
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return _Status(int(lines[0]), int(lines[3]), lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):  # not there, or half written
        return None


@contextmanager
def _explained(places: Places) -> Iterator[None]:
    """Turn what the file system refuses into the line that says what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmbeddedError(disk_full(places)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise EmbeddedError(not_writable(places, why)) from error
        raise EmbeddedError(
            f"The embedded PostgreSQL in {places.data_dir} does not start: {why}"
        ) from error


@contextmanager
def _locked(places: Places) -> Iterator[None]:
    """Hold the data directory against a second starter; the kernel lets go when we end."""
    lock = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
                    raise EmbeddedError(
                        f"The embedded PostgreSQL in {places.data_dir} is in use by process "
                        f"{owner or 'unknown'}: stop that one first, or set "
                        "DISPATCHER_DATABASE_URL so that both share one PostgreSQL."
                    ) from None
                time.sleep(_TICK)
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _start(
    places: Places, settings: dict[str, str], programs: Path | None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server, making its data first where there are none; return it once it is ready."""
    account = account_for(places.cluster)
    binaries = find_binaries(account, major=major_of(places.cluster), programs=programs)
    if not places.cluster.exists():
        make_cluster(places, binaries, account, sync=settings.get("fsync") != "off")
    elif (owner := places.cluster.stat().st_uid) != account.uid:
        raise EmbeddedError(
            f"{places.cluster} belongs to {user_name(owner)}, and PostgreSQL would run as "
            f"{account.name}: start as the user who made it, or set another DISPATCHER_DATA_DIR."
        )
    _stop_leftover(places.cluster)
    if not stored_address(places):
        set_password(places, places.cluster, binaries, account)
    write_access(places.cluster)
    for attempt in itertools.count(1):
        port = _free_port(urlsplit(stored_address(places)).port or 0)
        process = _launch(places, binaries, account, {"port": str(port), **settings})
        try:
            output = _until_ready(process, places)
        except BaseException:
            _stop(process)
            raise
        if output is None:
            write_port(places, port)
            return process, own_dsn(places, port)
        if "could not create any TCP/IP sockets" not in output or attempt == _PORT_TRIES:
            raise EmbeddedError(trouble(output, places))
    raise AssertionError("unreachable: the loop ends by return or raise")


def _launch(
    places: Places, binaries: Binaries, account: Account, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    if places.log.exists():
        places.log.replace(places.log.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    given = {
        "listen_addresses": LOOPBACK,
        "unix_socket_directories": ".",  # in the data: nobody else can come near it
        **settings,
    }
    with (
        os.fdopen(os.open(places.log, flags, 0o600), "wb") as log,
        way_to(places.cluster, account) as (place, keep),
    ):
        return launch(
            binaries / "postgres",
            ["-D", place, *(f"--{name}={value}" for name, value in given.items())],
            account=account,
            output=log.fileno(),
            keep=keep,
        )


def _until_ready(process: subprocess.Popen[bytes], places: Places) -> str | None:
    """Wait until the server is ready; return what it printed if it ends instead."""
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None:
        status = _status(places.cluster)
        if status is not None and status.ready and status.pid == process.pid:
            return None
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"The embedded PostgreSQL in {places.data_dir} is not ready after "
                f"{START_TIMEOUT:.0f} s: see {places.log}."
            )
        time.sleep(_TICK)
    return places.log.read_text(encoding="utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server: cleanly, or else at once, or else by force; and reap it."""
    for order, patience in ((signal.SIGINT, STOP_TIMEOUT), (signal.SIGQUIT, 5.0)):
        process.send_signal(order)  # does nothing to one that has ended
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _stop_leftover(cluster: Path) -> None:
    """Stop a server that outlived its owner, whom the lock proves dead; wait for one that stops.

    Its postmaster.pid is removed once no process of it is left, because the number in it may by
    then be anybody's (in containers soon), and PostgreSQL would not start beside it.
    """
    status = _status(cluster)
    if status is None or sys.platform != "linux":  # elsewhere PostgreSQL's own look must do
        return
    left = _servers(cluster)
    for pid in left:
        # The postmaster takes the others with it; without one they are told each.
        order = signal.SIGINT if pid == status.pid else signal.SIGTERM
        if pid == status.pid or status.pid not in left:
            _signal(pid, order)
    deadline = time.monotonic() + STOP_TIMEOUT
    while left := _servers(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"An earlier PostgreSQL on {cluster} does not stop: "
                f"kill -QUIT {' '.join(map(str, left))}"
            )
        time.sleep(_TICK)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _signal(pid: int, order: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, order)


def _servers(cluster: Path) -> list[int]:
    """Return the processes of PostgreSQL at work in *cluster*; each stays in its directory."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if (process / "comm").read_text().strip() == "postgres" and (
                process / "cwd"
            ).readlink() == cluster.resolve():
                found.append(int(process.name))
    return found


def _free_port(wanted: int) -> int:
    """Return *wanted* if it is free, so that an address once noted stays true; or another."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise EmbeddedError(f"No port of {LOOPBACK} is free for the embedded PostgreSQL.")
