"""A real service under test: `dispatcher run` as a process of its own."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from support.forked import FORK, ForkedProcess

DEADLINE = 60.0


@dataclass
class Service:
    """A running service: its address, what it has said so far, and its process."""

    process: ForkedProcess
    url: str = ""
    log: list[str] = field(default_factory=list)

    async def get(self, path: str, **options) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path, **options) as r:
            return r.status, await r.text()

    async def stop(self) -> int:
        self.process.terminate()
        async with asyncio.timeout(DEADLINE):
            return await self.process.ended()


def app_settings(url: str, **more: str) -> dict[str, str]:
    """The settings of one app named default, at the provider of *url*."""
    values = {
        "endpoint": url,
        "app_key": "key",
        "app_secret": "secret",
        "sender": "csms100000001",
        **more,
    }
    return {f"DISPATCHER_APPS__DEFAULT__{name.upper()}": value for name, value in values.items()}


@contextlib.asynccontextmanager
async def running(dsn: str, **settings: str) -> AsyncIterator[Service]:
    """Run the service with *settings* until the context ends."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
    environment |= {
        "DISPATCHER_DATABASE_URL": dsn,
        "DISPATCHER_LISTEN": "127.0.0.1:0",
        "DISPATCHER_LOG_FORMAT": "json",
        "DISPATCHER_POLL_INTERVAL": "0.1",
        **settings,
    }
    ours, theirs = FORK.Pipe(duplex=False)
    process = ForkedProcess(["run"], environment, out=None, err=theirs)
    theirs.close()
    service = Service(process)
    listening = asyncio.Event()
    said = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(os.dup(ours.fileno()), "rb")
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), pipe)
    ours.close()

    async def read() -> None:
        async for raw in said:
            line = raw.decode()
            service.log.append(line)
            if '"event":"listening"' in line:
                place = json.loads(line)
                service.url = f"http://{place['host']}:{place['port']}"
                listening.set()
        listening.set()

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(DEADLINE):
            await listening.wait()
        assert service.url, "".join(service.log)
        yield service
    finally:
        with contextlib.suppress(TimeoutError):
            await service.stop()
        process.kill()
        await reader


async def until(check: Callable[[], Awaitable[object]], *, what: str = "it") -> object:
    """Ask *check* until it is true; fail after the deadline."""
    seen: object = None
    try:
        async with asyncio.timeout(DEADLINE):
            while not (seen := await check()):  # noqa: ASYNC110 - another process sends no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen; last seen: {seen!r}") from None
    return seen


async def command(*arguments: object, dsn: str, **settings: str) -> str:
    """Run ``dispatcher ARGUMENTS`` on a database; return all that it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHER_")}
    environment |= {"DISPATCHER_DATABASE_URL": dsn, **settings}
    with TemporaryDirectory() as folder:
        out = Path(folder, "out")
        await ForkedProcess([*map(str, arguments)], environment, out=out, err=out).ended()
        return await asyncio.to_thread(out.read_text, "utf-8")
