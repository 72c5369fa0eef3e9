"""The files of the migrations, in dbmate's format, and what they say."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parent.parent
_NAME: Final = re.compile(r"(?P<version>\d+)_(?P<name>.+)\.sql")
_MARK: Final = re.compile(r"^--[ \t]*migrate:(?P<way>up|down)(?P<options>[^\n]*)$", re.MULTILINE)

# The checksum of an earlier text of the way up, that made the same: see Migration.formerly.
_FORMERLY: Final = re.compile(r"^--[ \t]*migrate:formerly[ \t]+(\w+)$", re.MULTILINE)


class MigrationError(Exception):
    """The database cannot be brought to this release's schema; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One way of a migration: its SQL, and whether all of it is one transaction."""

    statements: str
    transaction: bool


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: the way up and the way down again."""

    version: str  # as dbmate stores it: the digits the file's name begins with
    name: str
    up: Step
    down: Step
    # Checksums that are as good as its own. A text that some PostgreSQL cannot read is mended, and
    # where another one could, the database is what it would be.
    formerly: frozenset[str] = frozenset()

    @property
    def checksum(self) -> str:
        """What the way up is recognised by.

        Line ends do not count (a checkout may change them), nor does the way down: mending that
        changes nothing of what was done.
        """
        lines = "\n".join(line.rstrip() for line in self.up.statements.strip().splitlines())
        return hashlib.sha256(lines.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.version}_{self.name}"


def migrations_folder() -> Path:
    """Return where the files are: inside an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """Return the migrations of *folder* (default: this release's), by version.

    Raises MigrationError for a folder without any, and for a file that is not in the format.
    """
    folder = folder or migrations_folder()
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        migration = _read(path)
        if migration.version in found:
            raise MigrationError(
                f"Two migrations have the version {migration.version}: "
                f"{found[migration.version]} and {migration}."
            )
        found[migration.version] = migration
    if not found:
        raise MigrationError(f"There are no migrations in {folder}: install dispatcher again.")
    return sorted(found.values(), key=lambda migration: int(migration.version))


def _read(path: Path) -> Migration:
    name = _NAME.fullmatch(path.name)
    text = path.read_text(encoding="utf-8")  # any line end becomes \n
    marks = list(_MARK.finditer(text))
    if name is None or [mark["way"] for mark in marks] != ["up", "down"]:
        raise MigrationError(
            f"{path} is not a migration: it is named <digits>_<name>.sql and has one line "
            "`-- migrate:up` and after it one line `-- migrate:down`."
        )
    up, down = marks
    return Migration(
        version=name["version"],
        name=name["name"],
        up=Step(text[up.end() : down.start()], "transaction:false" not in up["options"]),
        down=Step(text[down.end() :], "transaction:false" not in down["options"]),
        formerly=frozenset(_FORMERLY.findall(text[: up.start()])),
    )
