"""What tests and people ask the simulator: what came, what was accepted."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice

import msgspec
from aiohttp import web

from dispatcher.simulator.journal import Journal
from dispatcher.simulator.ledger import Ledger

_CHUNK = 2_000  # rows encoded between two looks at the socket

Route = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Control:
    """The addresses that begin with an underscore; none of them is the provider's."""

    def __init__(self, ledger: Ledger, journal: Journal) -> None:
        self._ledger = ledger
        self._journal = journal
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/_accepted"): self.accepted,
            ("GET", "/_ledger"): self.ledger_rows,
            ("GET", "/_requests"): self.requests,
        }

    async def accepted(self, _request: web.BaseRequest) -> web.StreamResponse:
        """How often each number was accepted, and which ones repeatedly with one token."""
        return answer_json(
            {
                "requests": len(self._journal),
                "numbers": self._ledger.numbers,
                "accepted": self._ledger.counts(),
                "repeated": [
                    {"number": number, "token": token, "count": count}
                    for (number, token), count in self._ledger.repeated().items()
                ],
            }
        )

    async def ledger_rows(self, request: web.BaseRequest) -> web.StreamResponse:
        """One line of JSON for each accepted number; ?after=SERIAL leaves out older requests."""
        after = _after(request)
        newer = (accepted for accepted in self._ledger if accepted.serial > after)
        return await stream_lines(request, (row for accepted in newer for row in accepted.rows()))

    async def requests(self, request: web.BaseRequest) -> web.StreamResponse:
        """One line of JSON for each request; ?after=SERIAL leaves out older ones."""
        return await stream_lines(request, self._journal.since(_after(request)))


def answer_json(value: object, status: int = 200) -> web.Response:
    """Answer *value* as JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


async def stream_lines(request: web.BaseRequest, rows: Iterable[object]) -> web.StreamResponse:
    """Answer *rows* as one JSON a line, without ever holding all of them."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    encoder = msgspec.json.Encoder()
    remaining: Iterator[object] = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        await response.write(encoder.encode_lines(chunk))
    await response.write_eof()
    return response


def _after(request: web.BaseRequest) -> int:
    text = request.query.get("after", "0")
    if not text.isdecimal():
        raise web.HTTPBadRequest(text="after is a serial number")
    return int(text)
