"""Three PostgreSQL under Patroni, and etcd, on loopback: synchronous, and to be crashed."""

import asyncio
import json
import os
import shutil
import signal
import subprocess  # noqa: TC003 - named in a signature
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from support.waiting import until

from dispatcher.bench.ports import free_port
from dispatcher.postgres.programs import (
    SystemUser,
    find_programs,
    run_program,
    server_user,
    start_program,
)

SCOPE = "sms"
SIZE = 3  # one to lead, one that has all that was acknowledged, and one more to become that
TTL = 20  # seconds, Patroni's shortest: so long a dead leader's place is kept
START = 90.0

# The settings that matter are those under dcs; deploy/docs/replication.md shows and explains them.
CONFIG = {
    "scope": SCOPE,
    "bootstrap": {
        "dcs": {
            "ttl": TTL,
            "loop_wait": 2,
            "retry_timeout": 3,
            "synchronous_mode": True,
            "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 60}},
        },
        "initdb": ["no-sync", {"auth": "trust"}, {"encoding": "UTF8"}],
    },
}


@dataclass
class Node:
    """One PostgreSQL and its Patroni."""

    name: str
    folder: Path
    port: int
    patroni: "subprocess.Popen[bytes]"

    @property
    def dsn(self) -> str:
        """The address of this server alone."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?target_session_attrs=any"

    def crash(self) -> None:
        """Kill Patroni and PostgreSQL at once, as a power cut does."""
        postmaster = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        self.patroni.kill()
        os.kill(postmaster, signal.SIGKILL)
        self.patroni.wait()


class Cluster:
    """All of it."""

    def __init__(self, folder: Path, tools: Path, programs: Path | None, stack: ExitStack) -> None:
        self._folder = folder
        self._tools = tools
        self._stack = stack
        self._account: SystemUser = server_user(folder)
        self._binaries = find_programs(self._account, major=None, folder=programs).folder
        self._etcd = free_port()
        self._rest = free_port()
        self.nodes: dict[str, Node] = {}

    @property
    def dsn(self) -> str:
        """The address that names all of them, as applications and workers use it."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    async def start(self) -> None:
        """Start etcd, then each node; wait until one leads and all others follow."""
        peers, clients = (f"http://127.0.0.1:{port}" for port in (free_port(), self._etcd))
        self._launch(
            "etcd", Path(shutil.which("etcd") or "etcd"),
            "--name", "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"etcd={peers}",
        )  # fmt: skip
        for number in range(SIZE):
            self._add(f"node{number}", self._rest if number == 0 else free_port())
            if number == 0:
                await until(self.leader, deadline=START, what="the first node leads")
        await until(self.whole, deadline=START, every=0.3, what="all nodes follow")

    async def leader(self) -> Node | None:
        """Return the node that leads, by Patroni's own word."""
        return next((self.nodes[m["name"]] for m in await self._members() if _leads(m)), None)

    async def switch_over(self, node: Node) -> None:
        """Hand the lead from *node* to the one that has everything, as an operator does."""
        config = str(node.folder / "patroni.json")
        code, said = await asyncio.to_thread(
            run_program, self._tools / "patronictl",
            ["-c", config, "switchover", SCOPE, "--leader", node.name, "--force"],
            user=self._account,
        )  # fmt: skip
        assert code == 0, said
        assert "Successfully switched over" in said, said

    async def whole(self) -> bool:
        """Tell whether one leads, one follows synchronously, and the others follow too."""
        members = await self._members()
        roles = sorted(member["role"] for member in members if member["state"] in GOOD)
        return roles == sorted(["leader", "sync_standby", *["replica"] * (SIZE - 2)])

    async def _members(self) -> list[dict[str, str]]:
        for node in self.nodes.values():
            with suppress(URLError, OSError, ValueError):
                return await asyncio.to_thread(self._ask, node)
        return []

    @staticmethod
    def _ask(node: Node) -> list[dict[str, str]]:
        config = json.loads((node.folder / "patroni.json").read_text())
        address = config["restapi"]["connect_address"]
        with urlopen(f"http://{address}/cluster", timeout=1) as answer:
            members: list[dict[str, str]] = json.load(answer)["members"]
            return members

    def _add(self, name: str, rest: int) -> None:
        folder, port = self._folder / name, free_port()
        folder.mkdir(mode=0o700)
        config = folder / "patroni.json"
        config.write_text(json.dumps(self._config(name, folder, port, rest)))
        if self._account.switched:
            for path in (folder, config):
                os.chown(path, self._account.uid, self._account.gid)
        process = self._launch(name, self._tools / "patroni", str(config))
        self.nodes[name] = Node(name, folder, port, process)

    def _config(self, name: str, folder: Path, port: int, rest: int) -> dict[str, object]:
        login = {"username": "postgres", "password": "of-the-drill"}
        return CONFIG | {
            "name": name,
            "etcd3": {"hosts": [f"127.0.0.1:{self._etcd}"]},
            "restapi": dict.fromkeys(("listen", "connect_address"), f"127.0.0.1:{rest}"),
            "postgresql": {
                **dict.fromkeys(("listen", "connect_address"), f"127.0.0.1:{port}"),
                "data_dir": str(folder / "data"),
                "pgpass": str(folder / "pgpass"),
                "bin_dir": str(self._binaries),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "parameters": {"unix_socket_directories": "", "fsync": "off"},
                "pg_hba": ["host all all all trust", "host replication all all trust"],
            },
        }

    def _launch(self, name: str, program: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("wb") as log:
            process = start_program(program, arguments, user=self._account, output=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.send_signal, signal.SIGINT)  # Patroni stops its PostgreSQL
        return process


GOOD = ("running", "streaming")


def _leads(member: dict[str, str]) -> bool:
    return member["role"] == "leader" and member["state"] in GOOD


@contextmanager
def patroni_cluster(tools: Path, programs: Path | None) -> Iterator[Cluster]:
    """Give a cluster that is not started yet; all of it ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="patroni-"))
    account = server_user(folder / "none")
    if account.switched:
        os.chown(folder, account.uid, account.gid)
    try:
        with ExitStack() as stack:
            yield Cluster(folder, tools, programs, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
