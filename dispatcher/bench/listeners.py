"""Runs a report receiver on a free port."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from dispatcher.bench.children import START_TIMEOUT_SECONDS, Child, ChildError, run_child
from dispatcher.bench.environment import Environment

TOKEN = "bench-bench-bench"  # noqa: S105 - of a receiver on loopback
PATH = f"/reports/{TOKEN}"
POLL_INTERVAL_SECONDS = 0.05

Listener = tuple[int, Child]  # port and process


@asynccontextmanager
async def run_receiver(environment: Environment, dsn: str) -> AsyncIterator[Listener]:
    """Run a receiver on a free port."""
    port = free_port()
    settings = {
        "DISPATCHER_DATABASE_URL": dsn,
        "DISPATCHER_DATA_DIR": str(environment.folder / "receiver"),
        "DISPATCHER_LISTEN": f"127.0.0.1:{port}",
        "DISPATCHER_REPORT_PATH_TOKEN": TOKEN,
        "DISPATCHER_LOG_FORMAT": "json",
    }
    log = environment.log("receiver")
    arguments = ["run", "--only", "reports"]
    async with run_child("receiver", arguments, log=log, settings=settings) as process:
        await _wait_until_listening(process, port)
        yield port, process


async def _wait_until_listening(receiver: Child, port: int) -> None:
    began = monotonic()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            receiver.check_running()
            if monotonic() - began > START_TIMEOUT_SECONDS:
                raise ChildError("the receiver does not listen") from None
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        else:
            writer.close()
            return


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
