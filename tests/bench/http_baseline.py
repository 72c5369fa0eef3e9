"""`reports` beside its baseline: an HTTP handler that parses the same POST and only answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from dispatcher.bench import reports
from dispatcher.bench.children import run_child
from dispatcher.bench.environment import Environment, Listener
from dispatcher.bench.ports import free_port
from dispatcher.bench.results import Results
from dispatcher.core.report import read_push
from dispatcher.service.http import serving

NAME = "http baseline"
_SUCCESS = b'{"returnCode":0,"returnCodeDesc":"Success"}'


async def measure(
    environment: Environment,
    *,
    rounds: int,
    seconds: float,
    connections: int,
    progress: Callable[[str], None],
) -> Results:
    """Measure the receiver and the baseline, *rounds* times *seconds* each."""
    return await reports.measure(
        environment,
        rounds=rounds,
        seconds=seconds,
        connections=connections,
        progress=progress,
        baselines={NAME: run_http_baseline},
    )


@asynccontextmanager
async def run_http_baseline(environment: Environment) -> AsyncIterator[Listener]:
    """Run the handler in a child process on a free port."""
    port = free_port()
    log = environment.log("http-baseline")
    arguments = ["http-baseline", str(port)]
    async with run_child(NAME, arguments, log=log, module="bench.process") as process:
        await process.read_line()
        yield port, process


async def serve(port: int) -> None:
    """Serve POST /reports/<anything> until killed; print a line when it listens."""

    async def receive(request: web.Request) -> web.Response:
        parsed = read_push(await request.read())
        return web.Response(
            status=200 if parsed.reports else 400,
            body=_SUCCESS,
            content_type="application/json",
        )

    async with serving("127.0.0.1", port, [web.post("/reports/{token}", receive)]):
        print("ready", flush=True)  # noqa: T201 - the parent process reads it
        await asyncio.Event().wait()
