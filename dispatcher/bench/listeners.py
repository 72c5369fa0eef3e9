"""The two that reports are posted to: a receiver, and the bare handler."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from dispatcher.bench.children import START_TIMEOUT, Child, ChildError, child
from dispatcher.bench.stage import Stage

TOKEN = "bench-bench-bench"  # noqa: S105 - of a receiver that nobody else can reach
PATH = f"/reports/{TOKEN}"
MODULE = "dispatcher.bench"
LOOK = 0.05

Listener = tuple[int, Child]  # its port, and it


@asynccontextmanager
async def receiving(stage: Stage, dsn: str) -> AsyncIterator[Listener]:
    """Run a receiver on a port of its own."""
    port = _free_port()
    settings = {
        "DISPATCHER_DATABASE_URL": dsn,
        "DISPATCHER_DATA_DIR": str(stage.folder / "receiver"),
        "DISPATCHER_LISTEN": f"127.0.0.1:{port}",
        "DISPATCHER_REPORT_PATH_TOKEN": TOKEN,
        "DISPATCHER_LOG_FORMAT": "json",
    }
    log = stage.log("receiver")
    async with child("receiver", ["run", "--only", "reports"], log=log, settings=settings) as one:
        await _listens(one, port)
        yield port, one


@asynccontextmanager
async def bare(stage: Stage) -> AsyncIterator[Listener]:
    """Run the bare handler on a port of its own."""
    port = _free_port()
    async with child("bare", ["bare", str(port)], log=stage.log("bare"), module=MODULE) as one:
        await one.line()
        yield port, one


async def _listens(receiver: Child, port: int) -> None:
    began = monotonic()
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            receiver.must_live()
            if monotonic() - began > START_TIMEOUT:
                raise ChildError("the receiver does not listen") from None
            await asyncio.sleep(LOOK)
        else:
            writer.close()
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
