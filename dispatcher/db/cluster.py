"""The data of the embedded PostgreSQL: made once, and who may connect to them."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from dispatcher.db.binaries import Binaries
from dispatcher.db.errors import EmbeddedError
from dispatcher.db.launch import Account, reachable, run, user_name

# Not a role called like the schema: everything of it would be in that role's search path, and a
# statement that forgets the schema would work here and nowhere else.
ROLE: Final = "postgres"
DATABASE: Final = "dispatcher"
LOOPBACK: Final = "127.0.0.1"
_LONGEST_SOCKET: Final = 103  # bytes of a socket's path: 107 on Linux, 103 on macOS

# Over the socket only the operating system's user who owns the data, and root; over loopback TCP
# whoever knows the password in the address file.
_ACCESS: Final = f"""\
local all all peer map=owner
host all all {LOOPBACK}/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of the embedded PostgreSQL in a data directory."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own directory."""
        return self.data_dir / "postgres"

    @property
    def address(self) -> Path:
        """The address for other tools, with its password: ``psql "$(cat postgres.url)"``."""
        return self.data_dir / "postgres.url"

    @property
    def lock(self) -> Path:
        """Held by the process that owns the server."""
        return self.data_dir / "postgres.lock"

    @property
    def log(self) -> Path:
        """What the server says since it was started; the log before lies beside it."""
        return self.data_dir / "postgres.log"


def major_of(cluster: Path) -> int | None:
    """Return the major version that *cluster* is of, or None where there is none."""
    try:
        return int((cluster / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


@contextmanager
def way_to(cluster: Path, account: Account) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the path by which the server gets to its data, and the descriptors it needs for it.

    Where root keeps the data, ``nobody`` may not even pass (/root). There the server inherits
    the open directory, and its path is the link to that.
    """
    if reachable(cluster.parent, account):
        yield str(cluster), ()
        return
    if sys.platform != "linux":
        raise EmbeddedError(
            f"The user {account.name} cannot reach {cluster.parent}: set DISPATCHER_DATA_DIR to "
            "a directory that everybody may pass through."
        )
    descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def make_cluster(places: Places, binaries: Binaries, account: Account, *, sync: bool) -> None:
    """Make the data, whole or not at all; *sync* waits until they are on the disk.

    Raises EmbeddedError with the last line of what went wrong.
    """
    fresh = places.cluster.with_name("postgres.new")
    if fresh.exists():  # somebody was interrupted here
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    if account.switched:
        os.chown(fresh, account.uid, account.gid)
    with way_to(fresh, account) as (place, keep):
        code, output = run(
            binaries / "initdb",
            [
                f"--pgdata={place}",
                f"--username={ROLE}",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=peer",
                "--auth-host=reject",  # until the real rules are written
                *([] if sync else ["--no-sync"]),
            ],
            account=account,
            keep=keep,
        )
    if code != 0:
        raise EmbeddedError(trouble(output, places))
    set_password(places, fresh, binaries, account, then=f"CREATE DATABASE {DATABASE}")
    fresh.rename(places.cluster)


def stored_address(places: Places) -> str:
    """Return the address for other tools as it was written last; empty where there is none."""
    try:
        return places.address.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def set_password(
    places: Places, cluster: Path, binaries: Binaries, account: Account, *, then: str = ""
) -> None:
    """Give the role a new password, and keep it; *then* is one more statement."""
    password = secrets.token_urlsafe(24)
    with way_to(cluster, account) as (place, keep):
        code, output = run(
            binaries / "postgres",
            ["--single", "-D", place, "postgres"],
            account=account,
            feed=f"ALTER ROLE {ROLE} PASSWORD '{password}'\n{then}\n",  # a line is a statement
            keep=keep,
        )
    if code != 0 or "ERROR:" in output:
        raise EmbeddedError(trouble(output.replace(password, "***"), places))
    _write_address(places, password, 0)  # the port comes with the start


def write_port(places: Places, port: int) -> None:
    """Write the port of the running server into the address for other tools."""
    before = urlsplit(stored_address(places))
    if before.port != port:
        _write_address(places, before.password or "", port)


def _write_address(places: Places, password: str, port: int) -> None:
    dsn = f"postgresql://{ROLE}:{password}@{LOOPBACK}:{port}/{DATABASE}"
    _replace(places.address, f"{dsn}\n", mode=0o600)  # the password is for its owner alone


def write_access(cluster: Path) -> None:
    """Write who may connect: this user and root by the socket, the password's holders by TCP."""
    _replace(cluster / "pg_hba.conf", _ACCESS, mode=0o644)
    names = dict.fromkeys((user_name(os.geteuid()), "root"))
    lines = "".join(f'owner "{name}" {ROLE}\n' for name in names)
    _replace(cluster / "pg_ident.conf", lines, mode=0o644)


def own_dsn(places: Places, port: int) -> str:
    """Return the address for this user: by the socket, or by TCP where its path is too long."""
    folder = str(places.cluster)
    if len(os.fsencode(f"{folder}/.s.PGSQL.{port}")) > _LONGEST_SOCKET or "," in folder:
        return stored_address(places)
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(folder, safe='')}&port={port}"


def trouble(output: str, places: Places) -> str:
    """Return the one line for people out of what a program of PostgreSQL printed."""
    lines = [
        line
        for line in output.splitlines()
        if any(word in line for word in ("FATAL:", "PANIC:", "ERROR:", "error:"))
    ]
    said = (lines or output.splitlines() or ["no reason given"])[-1].strip()
    if any("No space left on device" in line for line in lines):
        return disk_full(places)
    if any("Permission denied" in line for line in lines):
        return not_writable(places, "Permission denied")
    return f"The embedded PostgreSQL in {places.data_dir} does not start: {said}"


def disk_full(places: Places) -> str:
    """Return the line for a full disk."""
    return (
        f"The disk of {places.data_dir} is full: make room there, or set DISPATCHER_DATA_DIR to "
        "a directory on another disk."
    )


def not_writable(places: Places, why: str) -> str:
    """Return the line for a directory that is not this user's to write."""
    return (
        f"{places.data_dir} cannot be written ({why}): set DISPATCHER_DATA_DIR to a directory "
        "of yours, or DISPATCHER_DATABASE_URL to a PostgreSQL that runs."
    )


def _replace(path: Path, text: str, *, mode: int) -> None:
    """Write a file as a whole; a link that somebody laid in its place is replaced, not followed."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(text)
    fresh.replace(path)
