"""Creates the data of the embedded PostgreSQL, and its rules of access."""

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

from dispatcher.core.language import _
from dispatcher.postgres.programs import (
    EmbeddedError,
    Programs,
    SystemUser,
    can_reach,
    run_program,
    user_name,
)

# The role is not named like the schema: the schema would be in its search path ("$user"), and a
# statement that omits the schema would work only here.
ROLE: Final = "postgres"
DATABASE: Final = "dispatcher"
LOOPBACK: Final = "127.0.0.1"
_MAX_SOCKET_PATH_BYTES: Final = 103  # the limit is 107 on Linux, 103 on macOS

# By the socket: the user of the operating system who owns the data, and root. By TCP on loopback:
# every user who knows the password in the address file.
_ACCESS_RULES: Final = f"""\
local all all peer map=owner
host all all {LOOPBACK}/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The files of the embedded PostgreSQL in a data directory."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        """The data directory of PostgreSQL itself."""
        return self.data_dir / "postgres"

    @property
    def address(self) -> Path:
        """The address for other tools, with the password: ``psql "$(cat postgres.url)"``."""
        return self.data_dir / "postgres.url"

    @property
    def lock(self) -> Path:
        """A lock held by the process that runs the server."""
        return self.data_dir / "postgres.lock"

    @property
    def log(self) -> Path:
        """The server's log since its last start; the log before that lies beside it."""
        return self.data_dir / "postgres.log"


def major_version(cluster: Path) -> int | None:
    """Return the major version of PostgreSQL that made *cluster*, or None if it does not exist."""
    try:
        return int((cluster / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


@contextmanager
def data_path(cluster: Path, user: SystemUser) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give the path by which the server reaches its data, and the descriptors it must inherit.

    Below a directory of root's, such as /root, ``nobody`` reaches nothing. There the server
    inherits the open directory, and the path is /proc's link to it.
    """
    if can_reach(cluster.parent, user):
        yield str(cluster), ()
        return
    if sys.platform != "linux":
        raise EmbeddedError(
            _(
                "The user {name} cannot reach {parent}: set DISPATCHER_DATA_DIR to a directory"
                " that everybody may pass through."
            ).format(name=user.name, parent=cluster.parent)
        )
    descriptor = os.open(cluster, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def create_cluster(files: ServerFiles, programs: Programs, user: SystemUser, *, sync: bool) -> None:
    """Create the data, complete or not at all; with *sync* wait until they are on the disk.

    Raises EmbeddedError with the last error line of the program that failed.
    """
    fresh = files.cluster.with_name("postgres.new")
    if fresh.exists():  # an earlier start was interrupted
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    if user.switched:
        os.chown(fresh, user.uid, user.gid)
    with data_path(fresh, user) as (path, fds):
        code, output = run_program(
            programs / "initdb",
            [
                f"--pgdata={path}",
                f"--username={ROLE}",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=peer",
                "--auth-host=reject",  # until write_access_rules replaces it
                *([] if sync else ["--no-sync"]),
            ],
            user=user,
            inherited_fds=fds,
        )
    if code != 0:
        raise EmbeddedError(explain_output(output, files))
    reset_password(files, fresh, programs, user, statement=f"CREATE DATABASE {DATABASE}")
    fresh.rename(files.cluster)


def stored_address(files: ServerFiles) -> str:
    """Return the stored address for other tools, or an empty string if there is none."""
    try:
        return files.address.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def reset_password(
    files: ServerFiles, cluster: Path, programs: Programs, user: SystemUser, *, statement: str = ""
) -> None:
    """Set a new password and store it in the address file; also run *statement*."""
    password = secrets.token_urlsafe(24)  # in single-user mode, each line is a statement
    with data_path(cluster, user) as (path, fds):
        code, output = run_program(
            programs / "postgres",
            ["--single", "-D", path, "postgres"],
            user=user,
            stdin=f"ALTER ROLE {ROLE} PASSWORD '{password}'\n{statement}\n",
            inherited_fds=fds,
        )
    if code != 0 or "ERROR:" in output:
        raise EmbeddedError(explain_output(output.replace(password, "***"), files))
    _write_address(files, password, 0)  # the port is known after the start


def store_port(files: ServerFiles, port: int) -> None:
    """Store the port of the running server in the address for other tools."""
    before = urlsplit(stored_address(files))
    if before.port != port:
        _write_address(files, before.password or "", port)


def _write_address(files: ServerFiles, password: str, port: int) -> None:
    dsn = f"postgresql://{ROLE}:{password}@{LOOPBACK}:{port}/{DATABASE}"
    _replace(files.address, f"{dsn}\n", mode=0o600)  # it holds the password


def write_access_rules(cluster: Path) -> None:
    """Write pg_hba.conf and pg_ident.conf: this user and root by socket, a password by TCP."""
    _replace(cluster / "pg_hba.conf", _ACCESS_RULES, mode=0o644)
    names = dict.fromkeys((user_name(os.geteuid()), "root"))
    lines = "".join(f'owner "{name}" {ROLE}\n' for name in names)
    _replace(cluster / "pg_ident.conf", lines, mode=0o644)


def local_dsn(files: ServerFiles, port: int) -> str:
    """Return the address for this user: by socket, or by TCP where its path is too long."""
    folder = str(files.cluster)
    if len(os.fsencode(f"{folder}/.s.PGSQL.{port}")) > _MAX_SOCKET_PATH_BYTES or "," in folder:
        return stored_address(files)
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(folder, safe='')}&port={port}"


def explain_output(output: str, files: ServerFiles) -> str:
    """Return one line for users from what a program of PostgreSQL printed."""
    lines = [
        line
        for line in output.splitlines()
        if any(word in line for word in ("FATAL:", "PANIC:", "ERROR:", "error:"))
    ]
    reason = (lines or output.splitlines() or ["no reason given"])[-1].strip()
    if any("No space left on device" in line for line in lines):
        return disk_full_message(files)
    if any("Permission denied" in line for line in lines):
        return not_writable_message(files, _("Permission denied"))
    return _("The embedded PostgreSQL in {data_dir} does not start: {reason}").format(
        data_dir=files.data_dir, reason=reason
    )


def disk_full_message(files: ServerFiles) -> str:
    """Return the line for users about a full disk."""
    return _(
        "The disk of {data_dir} is full: make room there, or set DISPATCHER_DATA_DIR to a"
        " directory on another disk."
    ).format(data_dir=files.data_dir)


def not_writable_message(files: ServerFiles, why: str) -> str:
    """Return the line for users about a directory that this user cannot write."""
    return _(
        "{data_dir} cannot be written ({why}): set DISPATCHER_DATA_DIR to a directory of"
        " yours, or DISPATCHER_DATABASE_URL to a PostgreSQL that runs."
    ).format(data_dir=files.data_dir, why=why)


def _replace(path: Path, text: str, *, mode: int) -> None:
    """Replace a file atomically; a symbolic link at *path* is replaced, not followed."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(text)
    fresh.replace(path)
