"""Whether the provider signed a push: what the request says, and what a proxy has changed in it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct

from dispatcher.core.signing import AppKey, Refused, Verified, verify_push


class Signatures(Struct, frozen=True):
    """How pushes are verified; without keys they are not."""

    keys: Sequence[AppKey]
    clock: Callable[[], datetime]
    assume: Mapping[str, str]  # host, connection: as they were before a proxy changed them
    callback: str | None = None  # the public address, whose path a proxy may have changed

    def refuse(self, request: web.BaseRequest, body: bytes) -> str | None:
        """Return why *request* is not the provider's, or None if it is, or nobody asks."""
        if not self.keys:
            return None
        verdict = self._verify(request, body, request.rel_url.raw_path)
        if isinstance(verdict, Refused) and self.callback is not None:
            public = urlsplit(self.callback).path
            if public != request.rel_url.raw_path:
                verdict = self._verify(request, body, public)
        return verdict.reason if isinstance(verdict, Refused) else None

    def _verify(self, request: web.BaseRequest, body: bytes, path: str) -> Verified | Refused:
        return verify_push(
            self.keys,
            method=request.method,
            path=path,
            query=request.rel_url.raw_query_string,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            now=self.clock(),
            assume=self.assume,
        )
