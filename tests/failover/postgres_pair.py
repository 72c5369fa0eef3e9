"""A primary and a synchronous standby on loopback, to be killed and frozen."""

import os
import shutil
import signal
import subprocess  # noqa: TC003 - named in a signature
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dispatcher.bench.ports import free_port
from dispatcher.postgres.programs import find_programs, run_program, server_user, start_program

DEADLINE = 60.0


class Pair:
    def __init__(self, folder: Path, programs: Path | None) -> None:
        self.folder = folder
        self.account = server_user(folder)
        self.binaries = find_programs(self.account, major=None, folder=programs)
        self.ports = [free_port(), free_port()]
        self.servers: list[subprocess.Popen[bytes]] = []

    @property
    def dsn(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def start(self) -> None:
        primary, standby = (str(self.folder / name) for name in ("primary", "standby"))
        self._run(
            "initdb",
            "-D",
            primary,
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        )
        # Acknowledged means: on both. Given here and not in the file, which the standby copies:
        # a promoted standby has nobody to wait for.
        self._serve(primary, self.ports[0], "-c", "synchronous_standby_names=*")
        self._until_ready(self.ports[0])
        self._run(
            "pg_basebackup", "-D", standby, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            "-h", "127.0.0.1", "-p", str(self.ports[0]), "-U", "postgres",
        )  # fmt: skip
        self._serve(standby, self.ports[1])
        self._until_ready(self.ports[1])

    def kill_primary(self) -> None:
        os.killpg(self.servers[0].pid, signal.SIGKILL)

    def freeze_primary(self) -> None:
        for pid in self._processes(0):
            os.kill(pid, signal.SIGSTOP)

    def thaw_primary(self) -> None:
        for pid in self._processes(0):
            os.kill(pid, signal.SIGCONT)

    def promote_standby(self) -> None:
        self._run("pg_ctl", "promote", "-w", "-D", str(self.folder / "standby"))

    def stop(self) -> None:
        for at, server in enumerate(self.servers):
            for pid in self._processes(at):
                with suppress(ProcessLookupError):  # they end each other
                    os.kill(pid, signal.SIGKILL)
            server.wait()

    def _processes(self, at: int) -> list[int]:
        """The postmaster and its children, which are sessions of their own."""
        postmaster = self.servers[at].pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        listed = children.read_text().split() if children.exists() else []
        return [*map(int, listed), *([postmaster] if self.servers[at].poll() is None else [])]

    def _run(self, program: str, *arguments: str) -> None:
        code, output = run_program(self.binaries / program, arguments, user=self.account)
        assert code == 0, output

    def _serve(self, data: str, port: int, *settings: str) -> None:
        arguments = [
            "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
            "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=60",
            *settings,
        ]  # fmt: skip
        log = (self.folder / f"{Path(data).name}.log").open("wb")
        with log:
            self.servers.append(
                start_program(self.binaries / "postgres", arguments, user=self.account, output=log)
            )

    def _until_ready(self, port: int) -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            code, _ = run_program(
                self.binaries / "pg_isready",
                ["-h", "127.0.0.1", "-p", str(port)],
                user=self.account,
            )
            if code == 0:
                return
        raise TimeoutError(f"no PostgreSQL on port {port}")


@contextmanager
def running_pair(programs: Path | None) -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="pair"))
    account = server_user(folder / "none")
    if account.switched:
        os.chown(folder, account.uid, account.gid)
    pair = Pair(folder, programs)
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder)
