"""A PostgreSQL of its own on TCP, for what reaches none by its socket: poolers and containers."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from dispatcher.db.binaries import find_binaries
from dispatcher.db.launch import account_for, launch, run

DEADLINE = 60.0


@contextmanager
def loopback_server(programs: Path | None = None) -> Iterator[str]:
    """Run one until the context ends; give the address, without a password, of its superuser."""
    folder = Path(tempfile.mkdtemp(prefix="loopback-"))
    account = account_for(folder / "none")
    if account.switched:
        os.chown(folder, account.uid, account.gid)
    binaries = find_binaries(account, major=None, programs=programs)
    data, port = str(folder / "data"), str(free_port())
    code, said = run(
        binaries / "initdb",
        ["-D", data, "-A", "trust", "-U", "postgres", "--no-sync"],
        account=account,
    )
    assert code == 0, said
    arguments = [
        "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c",
        "unix_socket_directories=", "-c", "fsync=off",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = launch(binaries / "postgres", arguments, account=account, output=log)
    try:
        end = monotonic() + DEADLINE
        asked = ["-h", "127.0.0.1", "-p", port]
        while run(binaries / "pg_isready", asked, account=account)[0] != 0:
            assert monotonic() < end, (folder / "log").read_text()
            sleep(0.05)  # it is another process, and tells no event
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # fast: sessions are ended, and all of it goes anyway
        server.wait()
        shutil.rmtree(folder)


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
