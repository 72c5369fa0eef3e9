"""What the demo does, from its first line to its last."""

import asyncio
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from dispatcher.cli.database import connected
from dispatcher.cli.demo.output import Picture
from dispatcher.cli.demo.processes import child, must_live, temporary_directory
from dispatcher.cli.errors import CommandError
from dispatcher.cli.file_load import load_file
from dispatcher.db import admin
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.migrate import migrate
from dispatcher.postgres.programs import EmbeddedError
from dispatcher.postgres.server import embedded_server

START_TIMEOUT: Final = 15.0  # seconds for the simulator to say where it is
PACE: Final = 1_000  # numbers a second: quick to watch, slow enough to see
WORK_TIMEOUT: Final = 60.0  # seconds; 3,000 messages take 3 at that pace
LOOK: Final = 0.1  # seconds between two looks at the progress
FAST: Final = {"fsync": "off"}  # the data are thrown away, so they need not survive the machine
SENDER: Final = "csms100000001"  # of the rows that name none
SAMPLE: Final = Path(__file__).with_name("sample.csv")
PROVIDER: Final = Path(__file__).with_name("provider.json")


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and where."""

    folder: Path
    dsn: str
    provider: str  # address of the simulator
    token: str  # of the console
    worker: subprocess.Popen[str]

    @property
    def data(self) -> Path:
        """The data directory of the embedded PostgreSQL."""
        return self.folder / "data"

    @property
    def worker_log(self) -> Path:
        """What the worker says."""
        return self.folder / "worker.log"


def play(*, keep: bool) -> None:
    """Run the demo; raises Failure if it does not show what it should."""
    picture = Picture()
    try:
        with _stage(picture) as stage:
            asyncio.run(connected(stage.dsn, lambda connection: _show(stage, connection, picture)))
            if keep:
                picture.tell_where(stage.data, stage.provider, stage.worker_log)
                picture.tell_console(_console(stage), stage.token)
                _wait_for_interrupt()
    except EmbeddedError as error:
        raise CommandError(str(error)) from error
    picture.farewell(kept=keep)


@contextmanager
def _stage(picture: Picture) -> Iterator[Stage]:
    """Start everything; stop and remove it again in the opposite order."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_directory())
        dsn = stack.enter_context(embedded_server(folder / "data", settings=FAST))
        asyncio.run(migrate(dsn))
        picture.step("PostgreSQL", f"embedded, in {folder}")
        key, secret = "demo", secrets.token_hex(16)
        log = folder / "simulator.log"
        simulator = stack.enter_context(
            child(["simulate", "--listen", "127.0.0.1:0", "--key", key, "--secret", secret,
                   "--options", str(PROVIDER)], settings={}, log=log)
        )  # fmt: skip
        provider = _first_line(simulator, log)
        picture.step("Provider", f"simulated, at {provider}")
        token = secrets.token_urlsafe(16)
        stage = Stage(
            folder,
            dsn,
            provider,
            token,
            stack.enter_context(
                child(
                    ["run"],
                    settings={
                        "DISPATCHER_DATABASE_URL": dsn,
                        "DISPATCHER_LISTEN": "127.0.0.1:0",
                        "DISPATCHER_CONSOLE_TOKEN": token,
                        "DISPATCHER_LOG_FORMAT": "json",
                        "DISPATCHER_APPS__DEFAULT__ENDPOINT": provider,
                        "DISPATCHER_APPS__DEFAULT__APP_KEY": key,
                        "DISPATCHER_APPS__DEFAULT__APP_SECRET": secret,
                        "DISPATCHER_APPS__DEFAULT__SENDER": SENDER,
                        "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND": str(PACE),
                    },
                    log=folder / "worker.log",
                )
            ),
        )
        picture.step("Worker", f"dispatcher run, at most {PACE:,} numbers a second")
        yield stage


async def _show(stage: Stage, connection: Connection, picture: Picture) -> None:
    rejects = stage.folder / "rejects.csv"
    loaded = (await load_file(connection, SAMPLE, rejects)).progress
    taken, refused = loaded.taken, loaded.refused
    picture.step("Messages", f"{taken:,} of sample.csv inserted into dispatcher.message")
    await _watch(stage, connection, taken, picture)
    rows = await admin.outcome_summary(connection)
    picture.table(rows, rejects)
    accepted = sum(row.messages for row in rows if row.state == "accepted")
    async with aiohttp.ClientSession() as session, session.get(f"{stage.provider}/_accepted") as r:
        witness = await r.json()
    if refused != 1 or witness["numbers"] != accepted:
        raise CommandError(
            f"the provider counts {witness['numbers']} accepted numbers, the database {accepted}:"
            " they must be equal, please report this."
        )
    picture.step(
        "Witness",
        f"the provider counts {accepted:,} accepted numbers as well, in"
        f" {witness['requests']} requests",
    )


async def _watch(stage: Stage, connection: Connection, total: int, picture: Picture) -> None:
    """Show the progress until every message has its outcome."""
    deadline = time.monotonic() + WORK_TIMEOUT
    with picture.progress(total) as tell:
        while True:
            counts = await admin.outcome_counts(connection)
            tell(counts)
            if sum(counts.values()) >= total:
                return
            must_live(stage.worker, "worker", stage.worker_log)
            if time.monotonic() > deadline:
                raise CommandError(
                    f"after {WORK_TIMEOUT:.0f} s {total - sum(counts.values()):,} messages still"
                    " wait: is this machine very busy? Please try again."
                )
            await asyncio.sleep(LOOK)


def _console(stage: Stage) -> str:
    """Return the console's address: the worker says where it listens before it sends anything."""
    for line in stage.worker_log.read_bytes().splitlines():
        if b'"event":"listening"' in line:
            said = msgspec.json.decode(line)
            return f"http://{said['host']}:{said['port']}/console"
    raise CommandError(f"the worker does not say where it listens: see {stage.worker_log}.")


def _first_line(process: subprocess.Popen[str], log: Path) -> str:
    """Return the first line that *process* prints; the simulator's is its address."""
    assert process.stdout is not None  # noqa: S101 - child() makes it a pipe
    if not select.select([process.stdout], [], [], START_TIMEOUT)[0]:
        raise CommandError(
            f"the simulator said nothing for {START_TIMEOUT:.0f} s: please try again."
        )
    line = process.stdout.readline().strip()
    if not line:
        process.wait()
        must_live(process, "simulator", log)
    return line


def _wait_for_interrupt() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        pass
