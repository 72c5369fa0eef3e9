"""PostgreSQL servers that can be killed: copies of one that is migrated."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS
from dispatcher.db.migrate import migrate
from dispatcher.postgres.programs import (
    Programs,
    SystemUser,
    find_programs,
    run_program,
    server_user,
    start_program,
)

if TYPE_CHECKING:
    import subprocess

TEMPLATE = "migrated"
PORT = 5432  # names the socket; nothing listens on TCP
START = 60.0  # seconds
# The data outlive the processes that are killed; only a power cut would need fsync.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "700",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "listen_addresses": "",
    "log_min_messages": "fatal",
    # What a run would only pay for: it has 36 messages.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


class Server:
    """One PostgreSQL, on a socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user: SystemUser = server_user(folder / "none")
        self._programs: Programs = find_programs(self._user, major=None)
        self._process: subprocess.Popen[bytes] | None = None
        self.up = asyncio.Event()

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return f"{self.folder}/.s.PGSQL.{PORT}"

    def dsn(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={PORT}"

    async def create(self) -> None:
        """Make its files, with a migrated database to copy."""
        self.folder.mkdir(parents=True)
        self._own(self.folder)
        arguments = ["-D", f"{self.folder}/data", "-A", "trust", "-U", "postgres", "--no-sync"]
        arguments += ["-E", "UTF8", "--locale=C"]
        code, said = await asyncio.to_thread(
            run_program, self._programs / "initdb", arguments, user=self._user
        )
        assert code == 0, said
        await self.start()
        db = await connect(self.dsn("postgres"))
        await db.execute(f"CREATE DATABASE {TEMPLATE}")
        await db.close()
        await migrate(self.dsn(TEMPLATE))
        self.stop()

    def copy_of(self, other: Path) -> None:
        """Be a copy of a server that is stopped."""
        shutil.copytree(other, self.folder, ignore=shutil.ignore_patterns(".s.*", "*.pid"))
        for path in (self.folder, *self.folder.rglob("*")):
            self._own(path)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = ["-D", f"{self.folder}/data", "-p", str(PORT)]
        arguments += ["-c", f"unix_socket_directories={self.folder}"]
        for name, value in SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        end = monotonic() + START
        while monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    self._process = start_program(
                        self._programs / "postgres", arguments, user=self._user, output=log
                    )
            try:
                db = await connect(self.dsn("postgres"))
            except (*UNAVAILABLE_ERRORS, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
                continue
            await db.close()
            self.up.set()
            return
        raise RuntimeError(f"PostgreSQL does not start, see {self.folder}/log")

    def stop(self) -> None:
        """End it in good order."""
        self.up.clear()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def crash(self) -> None:
        """Kill all its processes at once."""
        self.up.clear()
        assert self._process is not None
        postmaster = self._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None
        (self.folder / "data/postmaster.pid").unlink(missing_ok=True)

    def _own(self, path: Path) -> None:
        if self._user.switched:
            os.chown(path, self._user.uid, self._user.gid)
