"""A PostgreSQL that is restarted, killed, frozen and set back on request; a process of its own.

It reads words from its input and answers `ready ADDRESS` after each: `restart`, `crash`,
`freeze SECONDS`, `backup`, and `restore SECONDS`: the backup, as if it had been made so long ago. A
process of its own, because the server ends with the thread that started it, and starting it takes a
moment in which nothing else should stand still.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
from support.fast_forward import make_older

from dispatcher.bench.ports import free_port
from dispatcher.postgres.cluster import ServerFiles, store_port
from dispatcher.postgres.server import embedded_server

# The data outlive the processes; only a power cut would need fsync.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}


def main() -> None:
    """Serve until the input ends."""
    places = ServerFiles(Path(sys.argv[1]).absolute())
    programs = Path(sys.argv[2]) if sys.argv[2:] else None
    backup = places.data_dir.with_name("backup")
    with embedded_server(places.data_dir, settings=SETTINGS, programs=programs):
        pass
    store_port(places, free_port())
    word = "start"
    while word:
        match word.split():
            case ["backup"]:
                _copy(places.data_dir, backup)
            case ["restore", seconds]:
                with embedded_server(backup, settings=SETTINGS) as dsn:
                    asyncio.run(_make_older(dsn, float(seconds)))
                shutil.rmtree(places.data_dir)
                backup.rename(places.data_dir)
        with embedded_server(places.data_dir, settings=SETTINGS, programs=programs) as dsn:
            print("ready", dsn, flush=True)  # noqa: T201 - the process that started it reads this
            word = _serve(places, dsn)


def _copy(folder: Path, copy: Path) -> None:
    """Copy *folder*, with the owners of its files."""
    if copy.exists():
        shutil.rmtree(copy)
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)


async def _make_older(dsn: str, seconds: float) -> None:
    db = await asyncpg.connect(dsn)
    await make_older(db, seconds)
    await db.close()


def _serve(places: ServerFiles, dsn: str) -> str:
    """Return with the word that ends this server; empty at the end of the input."""
    for line in sys.stdin:
        match line.split():
            case ["freeze", seconds]:
                processes = _processes(places.cluster)
                _signal(processes, signal.SIGSTOP)
                time.sleep(float(seconds))
                _signal(processes, signal.SIGCONT)
                print("ready", dsn, flush=True)  # noqa: T201 - as above
            case ["crash"]:
                _signal(_processes(places.cluster)[:1], signal.SIGKILL)
                return "crash"
            case _:
                return line.strip()
    return ""


def _processes(cluster: Path) -> list[int]:
    """Return the server's processes, the postmaster first."""
    postmaster = int((cluster / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def _signal(processes: list[int], sign: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
