"""A PostgreSQL of its own on TCP, for other hosts, containers and TLS."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from dispatcher.bench.ports import free_port
from dispatcher.postgres.programs import find_programs, run_program, server_user, start_program

DEADLINE = 60.0
LOOPBACK = "127.0.0.1"


@contextmanager
def loopback_server(
    programs: Path | None = None, *, host: str = LOOPBACK, key: tuple[str, str] | None = None
) -> Iterator[str]:
    """Run one until the context ends; give the address, without a password, of its superuser.

    *host*: the address of this machine that it listens at; with another than the loopback's, it
    lets everybody in. *key*: its key and its certificate, as PEM, to speak TLS with.
    """
    folder = Path(tempfile.mkdtemp(prefix="loopback-"))
    account = server_user(folder / "none")
    if account.switched:
        os.chown(folder, account.uid, account.gid)
    binaries = find_programs(account, major=None, folder=programs)
    data, port = str(folder / "data"), str(free_port())
    code, said = run_program(
        binaries / "initdb",
        ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "--no-sync"],
        user=account,
    )
    assert code == 0, said
    if host != LOOPBACK:
        with (folder / "data" / "pg_hba.conf").open("a") as allowed:
            allowed.write("host all all all trust\n")
    arguments = [
        "-D", data, "-p", port, "-c", f"listen_addresses={host}", "-c",
        "unix_socket_directories=", "-c", "fsync=off",
    ]  # fmt: skip
    if key is not None:
        arguments += ["-c", "ssl=on"]
        for name, pem in zip(("server.key", "server.crt"), key, strict=True):
            file = folder / "data" / name
            file.write_text(pem)
            file.chmod(0o600)
            if account.switched:
                os.chown(file, account.uid, account.gid)
    with (folder / "log").open("wb") as log:
        server = start_program(binaries / "postgres", arguments, user=account, output=log)
    try:
        end = monotonic() + DEADLINE
        asked = ["-h", host, "-p", port]
        while run_program(binaries / "pg_isready", asked, user=account)[0] != 0:
            assert monotonic() < end, (folder / "log").read_text()
            sleep(0.05)  # it is another process, and sets no event
        yield f"postgresql://postgres@{host}:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # fast: sessions are ended, and all of it goes anyway
        server.wait()
        shutil.rmtree(folder)
