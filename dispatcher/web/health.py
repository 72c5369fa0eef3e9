"""Is it alive, is it ready: for load balancers, containers and whoever is on call."""

from collections.abc import Awaitable, Callable

from aiohttp import web

Ready = Callable[[], Awaitable[str | None]]  # None: ready; otherwise why not, in one line


def health_routes(ready: Ready) -> list[web.AbstractRouteDef]:
    """Return the routes /healthz (the process answers) and /readyz (it can do its work)."""

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def is_ready(_: web.Request) -> web.Response:
        why_not = await ready()
        if why_not is None:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {why_not}\n")

    return [web.get("/healthz", alive), web.get("/readyz", is_ready)]
