"""Programs of the embedded PostgreSQL: as whom they run, and that none outlives its owner."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from dispatcher.db.errors import EmbeddedError

# What the programs see of the environment. Not the rest: it holds secrets, and libpq's own
# variables (PGDATA, PGPORT ...) would lead them elsewhere.
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's user that PostgreSQL runs as."""

    uid: int
    gid: int
    name: str
    switched: bool  # whether this process must change into it, which only root can


def account_for(cluster: Path) -> Account:
    """Return who runs the server on *cluster*: this user, or for root somebody without rights.

    PostgreSQL refuses to run as root. Then it is the owner of the data if there are any, so that
    root can go on with what an ordinary user began, else ``nobody``.
    """
    uid = os.geteuid()
    if uid != 0:
        return _account(uid, switched=False)
    owner = cluster.stat().st_uid if cluster.exists() else 0
    try:
        return _account(owner or pwd.getpwnam("nobody").pw_uid, switched=True)
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and this system has no user called nobody: start "
            "as an ordinary user, or set DISPATCHER_DATABASE_URL."
        ) from None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where the system knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account(uid: int, *, switched: bool) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(uid, os.getegid() if not switched else uid, str(uid), switched)
    return Account(uid, entry.pw_gid, entry.pw_name, switched)


def reachable(path: Path, account: Account) -> bool:
    """Tell whether *account* can get to the directory *path*, by the permissions of its parents."""
    if not account.switched:
        return True
    return all(
        folder.stat().st_mode & 0o001 or folder.stat().st_uid == account.uid
        for folder in (path, *path.parents)
    )


def launch(
    program: Path,
    arguments: Sequence[str],
    *,
    account: Account,
    output: IO[bytes] | int,
    feed: int = subprocess.DEVNULL,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start *program* as *account*, with the descriptors *keep*; it ends when this thread ends.

    It is interrupted then; on Linux that holds however the owner ends. It is in a session of its
    own, so that Ctrl-C in a terminal reaches the owner alone, which then stops things in order.
    """
    return subprocess.Popen(  # noqa: S603 - our own program and arguments
        [str(program), *arguments],
        cwd="/",
        env={key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        | {"LC_ALL": "C", "TZ": "UTC"},
        stdin=feed,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=keep,
        user=account.uid if account.switched else None,
        group=account.gid if account.switched else None,
        extra_groups=[] if account.switched else None,
        preexec_fn=die_with(os.getpid(), signal.SIGINT),  # noqa: PLW1509 - one prepared call
    )


def run(
    program: Path,
    arguments: Sequence[str],
    *,
    account: Account,
    feed: str = "",
    keep: Sequence[int] = (),
) -> tuple[int, str]:
    """Run *program* to its end with *feed* as its input; return its exit code and its output."""
    with launch(
        program,
        arguments,
        account=account,
        output=subprocess.PIPE,
        feed=subprocess.PIPE,
        keep=keep,
    ) as process:
        output, _ = process.communicate(feed.encode())
    return process.returncode, output.decode(errors="replace")


def die_with(owner: int, sign: signal.Signals) -> Callable[[], None] | None:
    """Return what a new child calls to be sent *sign* when its parent, *owner*, ends."""
    if sys.platform != "linux":
        return None  # macOS has nothing like it: what is left over is stopped at the next start
    prctl = ctypes.CDLL(None).prctl  # found before the fork, where nothing may be loaded

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, sign)
        if os.getppid() != owner:  # it ended before the call
            os._exit(1)

    return die_with_parent
