"""The steps of the demo, from the first line of output to the last."""

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

from dispatcher.cli.connection import connected
from dispatcher.cli.demo.processes import check_running, child, temporary_directory
from dispatcher.cli.demo.screen import Screen
from dispatcher.cli.errors import CommandError
from dispatcher.core.language import N_, _
from dispatcher.db import status
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.migrate import migrate
from dispatcher.lists.file_load import load_file
from dispatcher.postgres.programs import EmbeddedError
from dispatcher.postgres.server import embedded_server

START_TIMEOUT_SECONDS: Final = 15.0  # for the simulator to print its address
NUMBERS_PER_SECOND: Final = 1_000  # fast, and slow enough to see
WORK_TIMEOUT_SECONDS: Final = 60.0  # without a result; 3,000 messages take 3 s at that rate
POLL_INTERVAL_SECONDS: Final = 0.1  # of the progress
SERVER_SETTINGS: Final = {"fsync": "off"}  # the data are temporary
DEFAULT_SENDER: Final = "csms100000001"  # of rows without a sender
SAMPLE_FILE: Final = Path(__file__).with_name("sample.csv")
REFUSED_LINES: Final = 6  # of the sample: five are past their time, one has a wrong priority
PROVIDER_FILE: Final = Path(__file__).with_name("provider.json")


@dataclass(frozen=True, slots=True)
class Stage:
    """The running processes and their addresses."""

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
        """The log of the worker."""
        return self.folder / "worker.log"


def run_demo(*, keep: bool) -> None:
    """Run the demo; raises CommandError if its result is wrong."""
    screen = Screen()
    try:
        with _stage(screen) as stage:
            asyncio.run(connected(stage.dsn, lambda connection: _show(stage, connection, screen)))
            if keep:
                screen.show_addresses(stage.data, stage.provider, stage.worker_log)
                screen.show_console(_console(stage), stage.token)
                _wait_for_interrupt()
    except EmbeddedError as error:
        raise CommandError(str(error)) from error
    screen.finish(kept=keep)


@contextmanager
def _stage(screen: Screen) -> Iterator[Stage]:
    """Start everything; stop and remove it again in the opposite order."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_directory())
        dsn = stack.enter_context(embedded_server(folder / "data", settings=SERVER_SETTINGS))
        asyncio.run(migrate(dsn))
        screen.step("PostgreSQL", _("embedded, in {folder}").format(folder=folder))
        key, secret = "demo", secrets.token_hex(16)
        log = folder / "simulator.log"
        simulator = stack.enter_context(
            child(["simulate", "--listen", "127.0.0.1:0", "--key", key, "--secret", secret,
                   "--options", str(PROVIDER_FILE)], settings={}, log=log)
        )  # fmt: skip
        provider = _first_line(simulator, log)
        screen.step(_("Provider"), _("simulated, at {address}").format(address=provider))
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
                        "DISPATCHER_APPS__DEFAULT__SENDER": DEFAULT_SENDER,
                        "DISPATCHER_APPS__DEFAULT__NUMBERS_PER_SECOND": str(NUMBERS_PER_SECOND),
                    },
                    log=folder / "worker.log",
                )
            ),
        )
        screen.step(
            _("Worker"),
            _("dispatcher run, at most {rate} numbers a second").format(
                rate=f"{NUMBERS_PER_SECOND:,}"
            ),
        )
        yield stage


async def _show(stage: Stage, connection: Connection, screen: Screen) -> None:
    rejects = stage.folder / "rejects.csv"
    progress = (await load_file(connection, SAMPLE_FILE, rejects)).progress
    taken, refused = progress.imported, progress.rejected
    screen.step(
        _("Messages"),
        _("{count} of sample.csv inserted into dispatcher.message").format(count=f"{taken:,}"),
    )
    await _watch(stage, connection, taken, screen)
    rows = await status.outcome_summary(connection)
    screen.table(rows, rejects)
    accepted = sum(row.messages for row in rows if row.state == "accepted")
    async with aiohttp.ClientSession() as session, session.get(f"{stage.provider}/_accepted") as r:
        provider_count = await r.json()
    if refused != REFUSED_LINES or provider_count["numbers"] != accepted:
        raise CommandError(
            _(
                "the provider counts {theirs} accepted numbers, the database {ours}: they must be"
                " equal, please report this."
            ).format(theirs=provider_count["numbers"], ours=accepted)
        )
    screen.step(
        _("Compared"),
        _("the provider counts {count} accepted numbers as well, in {requests} requests").format(
            count=f"{accepted:,}", requests=provider_count["requests"]
        ),
    )


async def _watch(stage: Stage, connection: Connection, total: int, screen: Screen) -> None:
    """Show the progress until every message has its outcome."""
    done, deadline = 0, time.monotonic() + WORK_TIMEOUT_SECONDS
    with screen.progress(total) as show_counts:
        while True:
            counts = await status.outcome_counts(connection)
            show_counts(counts)
            if sum(counts.values()) >= total:
                return
            if sum(counts.values()) > done:
                done = sum(counts.values())
                deadline = time.monotonic() + WORK_TIMEOUT_SECONDS
            check_running(stage.worker, N_("the worker"), stage.worker_log)
            if time.monotonic() > deadline:
                raise CommandError(
                    _(
                        "{messages} messages still wait, and none had a result for {seconds} s: is"
                        " this machine very busy? Please try again."
                    ).format(seconds=f"{WORK_TIMEOUT_SECONDS:.0f}", messages=f"{total - done:,}")
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)


def _console(stage: Stage) -> str:
    """Return the console's address, from the worker's log."""
    for line in stage.worker_log.read_bytes().splitlines():
        if b'"event":"listening"' in line:
            said = msgspec.json.decode(line)
            return f"http://{said['host']}:{said['port']}/console"
    raise CommandError(
        _("the worker does not say where it listens: see {log}.").format(log=stage.worker_log)
    )


def _first_line(process: subprocess.Popen[str], log: Path) -> str:
    """Return the first line that *process* prints; the simulator's is its address."""
    assert process.stdout is not None  # noqa: S101 - child() makes it a pipe
    if not select.select([process.stdout], [], [], START_TIMEOUT_SECONDS)[0]:
        raise CommandError(
            _("the simulator said nothing for {seconds} s: please try again.").format(
                seconds=f"{START_TIMEOUT_SECONDS:.0f}"
            )
        )
    line = process.stdout.readline().strip()
    if not line:
        process.wait()
        check_running(process, N_("the simulator"), log)
    return line


def _wait_for_interrupt() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        pass
