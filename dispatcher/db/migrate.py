"""Reads the migrations, in dbmate's format, and brings a database to the schema of this release.

Several processes may migrate at once: one does it, the others wait. Addresses given here must lead
to PostgreSQL itself: a PgBouncer in transaction mode would grant the lock to every client.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import asyncpg

from dispatcher.core.language import _
from dispatcher.db.database import Connection, OwnConnection, connect
from dispatcher.db.dsn import read_address
from dispatcher.db.queries import sql

_PACKAGE: Final = Path(__file__).parent.parent
_NAME: Final = re.compile(r"(?P<version>\d+)_(?P<name>.+)\.sql")
_MARK: Final = re.compile(r"^--[ \t]*migrate:(?P<way>up|down)(?P<options>[^\n]*)$", re.MULTILINE)


class MigrationError(Exception):
    """The database cannot be brought to this release's schema; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class MigrationScript:
    """One way of a migration: its SQL, and whether all of it is one transaction."""

    statements: str
    transaction: bool


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: the way up and the way down again."""

    version: str  # as dbmate stores it: the digits the file's name begins with
    name: str
    up: MigrationScript
    down: MigrationScript

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
                _("Two migrations have the version {version}: {value} and {migration}.").format(
                    version=migration.version, value=found[migration.version], migration=migration
                )
            )
        found[migration.version] = migration
    if not found:
        raise MigrationError(
            _("There are no migrations in {folder}: install dispatcher again.").format(
                folder=folder
            )
        )
    return sorted(found.values(), key=lambda migration: int(migration.version))


def _read(path: Path) -> Migration:
    name = _NAME.fullmatch(path.name)
    text = path.read_text(encoding="utf-8")  # any line end becomes \n
    marks = list(_MARK.finditer(text))
    if name is None or [mark["way"] for mark in marks] != ["up", "down"]:
        raise MigrationError(
            _(
                "{path} is not a migration: it is named <digits>_<name>.sql and has one line `--"
                " migrate:up` and after it one line `-- migrate:down`."
            ).format(path=path)
        )
    up, down = marks
    return Migration(
        version=name["version"],
        name=name["name"],
        up=MigrationScript(text[up.end() : down.start()], "transaction:false" not in up["options"]),
        down=MigrationScript(text[down.end() :], "transaction:false" not in down["options"]),
    )


LOCK_KEY: Final = int.from_bytes(b"dispatch")  # of the advisory lock; any fixed number will do
LOCK_TICK: Final = 0.1  # seconds between two tries for it
PATIENCE: Final = 600.0  # seconds; another process may be building a large index
# A statement that waits for a table holds up everything that comes after it. So it gives up
# quickly, lets the others pass, and tries again.
TABLE_TIMEOUT: Final = "2s"
TABLE_TRIES: Final = 30
TABLE_PAUSE: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """Where one migration stands in a database."""

    version: str
    name: str
    applied: bool
    applied_at: datetime | None = None
    edited: bool = False  # the file is not what was applied
    unknown: bool = False  # applied, but this release has no such file: the database is newer


async def migrate(
    dsn: str,
    *,
    folder: Path | None = None,
    patience: float = PATIENCE,
    warn: Callable[[str], None] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> list[str]:
    """Apply what is missing, in order; return the names of what was applied.

    Sequences that are behind their rows are set too: see `sequences_behind`.

    *warn* gets, in a line each, what a migration could not do and can be done without, and the
    sequences that were set. *on_wait* is called if another process migrates now.
    Several may call this at once: one works, the others wait and find it done. Raises
    MigrationError with one line for people, and what `dispatcher.db.errors.explain` explains.
    """
    files = read_migrations(folder)
    async with _connection(dsn) as connection:
        await _require_utf8(connection)
        if await _up_to_date(connection, files):
            await _repair_sequences(connection, warn)
            return []
        async with _locked(connection, patience, on_wait), _warnings(connection, warn):
            try:
                await connection.execute(sql("migrations_table"))
                missing = _missing(files, await _applied(connection))
                for migration in missing:
                    await _perform(connection, migration, "up")
            except asyncpg.InsufficientPrivilegeError as error:
                raise MigrationError(_not_allowed(dsn, error)) from None
            await _repair_sequences(connection, warn)
            return [str(migration) for migration in missing]


def _not_allowed(dsn: str, error: asyncpg.PostgresError) -> str:
    at = read_address(dsn)
    return _(
        "Tables are missing or old in {at}, and user {user!r} may not make them ({said}): run"
        " `dispatcher migrate` as their owner, the first time as a superuser or as the owner of"
        " the database with CREATEROLE. See deploy/docs/database.md, Roles."
    ).format(at=at, user=at.user, said=error.args[0])


async def _require_utf8(connection: Connection) -> None:
    encoding = await connection.fetchval(sql("server_encoding"))
    if encoding != "UTF8":
        raise MigrationError(
            _(
                "The database has the encoding {encoding}, which cannot hold every text: make"
                " one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."
            ).format(encoding=encoding)
        )


async def _repair_sequences(connection: Connection, warn: Callable[[str], None] | None) -> None:
    """Set the sequences that are behind their rows, unless this role may not."""
    if not await sequences_behind(connection):
        return
    for row in await connection.fetch(sql("repair_sequences")):
        if warn is not None:
            warn(
                _(
                    "{name} was at {last_value} and is set to {needed}, the last of its rows: data"
                    " were loaded without it."
                ).format(**row)
            )


async def sequences_behind(connection: Connection) -> list[str]:
    """Return the names of sequences that are behind their rows, so that inserts fail.

    That is so after a cut-over to a logical replica, or after data were loaded without them.
    """
    if not await connection.fetchval(sql("can_repair_sequences")):
        return []
    return [row["name"] for row in await connection.fetch(sql("sequences_behind"))]


async def status(dsn: str, *, folder: Path | None = None) -> list[MigrationStatus]:
    """Return where each migration stands, by version; changes nothing in the database."""
    files = {migration.version: migration for migration in read_migrations(folder)}
    async with _connection(dsn) as connection:
        applied = await _applied(connection)
    standings = []
    for version in sorted({*files, *applied}, key=int):
        file, row = files.get(version), applied.get(version)
        standings.append(
            MigrationStatus(
                version=version,
                name=file.name if file else "",
                applied=row is not None,
                applied_at=row["applied_at"] if row else None,
                edited=file is not None and row is not None and _edited(file, row),
                unknown=file is None,
            )
        )
    return standings


async def down(dsn: str, *, folder: Path | None = None, patience: float = PATIENCE) -> str | None:
    """Take the last applied migration back; return its name, or None where none is applied.

    Raises MigrationError where this release has no file for it.
    """
    files = {migration.version: migration for migration in read_migrations(folder)}
    async with _connection(dsn) as connection, _locked(connection, patience):
        applied = await _applied(connection)
        if not applied:
            return None
        last = max(applied, key=int)
        if last not in files:
            raise MigrationError(_newer([last]))
        await _perform(connection, files[last], "down")
        return str(files[last])


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[OwnConnection]:
    connection = await connect(dsn, application_name="dispatcher migrate")
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _warnings(
    connection: OwnConnection, warn: Callable[[str], None] | None
) -> AsyncIterator[None]:
    """Hand the server's warnings to *warn*, each once however often a migration is tried."""
    told: set[str] = set()

    def listen(_: Connection, said: asyncpg.PostgresLogMessage) -> None:
        if warn is not None and said.severity_en == "WARNING" and said.message not in told:
            told.add(said.message)
            warn(said.message)

    connection.add_log_listener(listen)
    try:
        yield
        await asyncio.sleep(0)  # asyncpg calls listeners in the next turn of the loop
    finally:
        connection.remove_log_listener(listen)


@asynccontextmanager
async def _locked(
    connection: Connection, patience: float, on_wait: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Hold the lock of the migrations.

    It is asked for again and again, and never waited for inside of PostgreSQL: there a waiter
    is an open transaction, for which CREATE INDEX CONCURRENTLY in the holder would wait in turn.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while not await connection.fetchval(sql("migrations_lock"), LOCK_KEY):
        if on_wait is not None:
            on_wait()
            on_wait = None
        if loop.time() > deadline:
            raise MigrationError(
                _(
                    "Another process has been migrating this database for {patience} s: see"
                    " pg_stat_activity, application_name 'dispatcher migrate'."
                ).format(patience=f"{patience:.0f}")
            )
        await asyncio.sleep(LOCK_TICK)
    try:
        yield
    finally:
        if not connection.is_closed():  # the lock ends with the connection
            await connection.execute(sql("migrations_unlock"), LOCK_KEY)


async def _up_to_date(connection: Connection, files: Sequence[Migration]) -> bool:
    """Look without the lock; the usual start finds nothing to do, and needs no right to do it."""
    return not _missing(files, await _applied(connection))


async def _applied(connection: Connection) -> dict[str, asyncpg.Record]:
    """Return the rows of what is applied, by version; none where nothing ever was."""
    if not await connection.fetchval(sql("migrations_exist")):
        return {}
    return {row["version"]: row for row in await connection.fetch(sql("migrations_applied"))}


def _missing(files: Sequence[Migration], applied: dict[str, asyncpg.Record]) -> list[Migration]:
    """Return what is to be applied; refuse a database that is newer, or of other files."""
    known = {migration.version for migration in files}
    if newer := sorted(set(applied) - known, key=int):
        raise MigrationError(_newer(newer))
    for migration in files:
        row = applied.get(migration.version)
        if row is not None and _edited(migration, row):
            raise MigrationError(
                _(
                    "The migration {migration} was edited after it was applied to this database:"
                    " take the edit back, and write it as a new migration."
                ).format(migration=migration)
            )
    return [migration for migration in files if migration.version not in applied]


def _edited(migration: Migration, row: asyncpg.Record) -> bool:
    return bool(row["checksum"] != migration.checksum)


def _newer(versions: Sequence[str]) -> str:
    return _(
        "The database is newer than this release (it has the migration {versions}): install the"
        " newer release of dispatcher, or go back with that one's `dispatcher migrate --down`."
    ).format(versions=", ".join(versions))


async def _perform(
    connection: Connection, migration: Migration, way: Literal["up", "down"]
) -> None:
    """Run one way of a migration and note it: in one transaction, unless the file says no.

    Without a transaction the file holds one statement (PostgreSQL makes a transaction of
    several), and one that may be repeated: it is noted after it, and we may die in between.
    """
    step = migration.up if way == "up" else migration.down
    for attempt in range(1, TABLE_TRIES + 1):
        try:
            async with connection.transaction() if step.transaction else nullcontext():
                await connection.execute(sql("migration_timeouts"), TABLE_TIMEOUT, step.transaction)
                await connection.execute(sql("act_as_owner"), step.transaction)
                await connection.execute(step.statements)
                if way == "up":
                    version, checksum = migration.version, migration.checksum
                    await connection.execute(sql("migration_applied"), version, checksum)
                else:
                    await connection.execute(sql("migration_reverted"), migration.version)
        except asyncpg.LockNotAvailableError:
            if attempt == TABLE_TRIES:
                raise MigrationError(
                    _(
                        "The migration {migration} gets no lock on a table that is in constant"
                        " use: end long transactions (pg_stat_activity, xact_start) and start"
                        " again."
                    ).format(migration=migration)
                ) from None
            await asyncio.sleep(TABLE_PAUSE)
        else:
            return
