"""The language of the console's pages: the reader's choice in a cookie, else the browser's."""

from typing import cast

from aiohttp import hdrs, web

from dispatcher.console.auth import HOME_PATH, Handler, is_secure, redirect, referring_page
from dispatcher.core.language import LANGUAGES, accepted_language, language, use_language

LANGUAGE_PATH = "/console/language"
LANGUAGE_COOKIE = "dispatcher_language"
LANGUAGE_COOKIE_SECONDS = 365 * 24 * 3600


def in_readers_language(route: web.RouteDef) -> web.RouteDef:
    """Return *route* with pages in the language of each request."""
    handler = cast("Handler", route.handler)

    async def localised(request: web.Request) -> web.StreamResponse:
        cookie = request.cookies.get(LANGUAGE_COOKIE, "")
        header = request.headers.get(hdrs.ACCEPT_LANGUAGE, "")
        # A connection has one context for all of its requests, so each of them sets it.
        use_language(cookie if cookie in LANGUAGES else accepted_language(header))
        response = await handler(request)
        if not response.prepared:
            response.headers[hdrs.CONTENT_LANGUAGE] = language()
        return response

    return web.RouteDef(route.method, route.path, localised, route.kwargs)


async def choose_language(request: web.Request) -> web.Response:
    """Keep the choice of a language in a cookie, and lead back to the page it was made on."""
    chosen = request.match_info["language"]
    response = redirect(referring_page(request))
    if chosen in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE,
            chosen,
            max_age=LANGUAGE_COOKIE_SECONDS,
            path=HOME_PATH,
            httponly=True,
            samesite="Lax",
            secure=is_secure(request),
        )
    return response
