"""/metrics, for Prometheus."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Refresh = Callable[[], Awaitable[None]]


def metrics_routes(registry: CollectorRegistry, refresh: Refresh) -> list[web.AbstractRouteDef]:
    """Return the route /metrics; *refresh* looks up what is not counted here, and never raises."""

    async def metrics(request: web.Request) -> web.Response:
        await refresh()
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(registry), headers={hdrs.CONTENT_TYPE: content_type})

    return [web.get("/metrics", metrics)]
