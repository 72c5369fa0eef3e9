"""The bare handler: it parses the same POST and answers, and that is all it does."""

import asyncio

from aiohttp import web

from dispatcher.core.report import Malformed, parse_form
from dispatcher.service.http import serving

_SUCCESS = b'{"returnCode":0,"returnCodeDesc":"Success"}'


async def serve(port: int) -> None:
    """Serve POST /reports/<anything> for ever; print a line when it listens."""

    async def receive(request: web.Request) -> web.Response:
        parsed = parse_form(await request.read())
        return web.Response(
            status=parsed.status if isinstance(parsed, Malformed) else 200,
            body=_SUCCESS,
            content_type="application/json",
        )

    async with serving("127.0.0.1", port, [web.post("/reports/{token}", receive)]):
        print("ready", flush=True)  # noqa: T201 - the parent reads it
        await asyncio.Event().wait()
