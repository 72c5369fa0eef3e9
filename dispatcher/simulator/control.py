"""Control paths: read what arrived and was accepted, and set faults and reports."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice

import msgspec
from aiohttp import web

from dispatcher.simulator.fault_script import FaultScript
from dispatcher.simulator.json_config import ConfigTextError, read_faults, read_reports
from dispatcher.simulator.ledger import Journal, Ledger
from dispatcher.simulator.report_sender import ReportSender

_CHUNK_ROWS = 2_000  # encoded between two writes

Route = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Control:
    """The paths that begin with an underscore. The provider has none of them."""

    def __init__(
        self, ledger: Ledger, journal: Journal, faults: FaultScript, reports: ReportSender
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._faults = faults
        self._reports = reports
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/_accepted"): self.accepted,
            ("GET", "/_ledger"): self.ledger_rows,
            ("GET", "/_bill"): self.bill,
            ("GET", "/_requests"): self.requests,
            ("GET", "/_faults"): self.faults,
            ("PUT", "/_faults"): self.set_faults,
            ("DELETE", "/_faults"): self.clear_faults,
            ("GET", "/_reports"): self.reports,
            ("PUT", "/_reports"): self.set_reports,
            ("DELETE", "/_reports"): self.stop_reports,
            ("GET", "/_reports/answered"): self.answered,
        }

    async def accepted(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer how often each number was accepted, and which ones repeatedly with one token."""
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
        """Answer one line of JSON for each accepted number; ?after=SERIAL omits older requests."""
        after = _after(request)
        newer = (accepted for accepted in self._ledger if accepted.serial > after)
        return await stream_lines(request, (row for accepted in newer for row in accepted.rows()))

    async def bill(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer what would be charged so far, in segments, by each way of billing."""
        return answer_json(self._reports.bill.sums(self._ledger))

    async def requests(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one line of JSON for each request; ?after=SERIAL omits older ones."""
        return await stream_lines(request, self._journal.since(_after(request)))

    async def faults(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer the active faults, and how often each type was injected."""
        return answer_json(self._faults.describe())

    async def set_faults(self, request: web.BaseRequest) -> web.StreamResponse:
        """Replace the active faults by those in the body."""
        try:
            faults = read_faults(await request.read())
        except ConfigTextError as error:
            return answer_json({"error": str(error)}, status=400)
        await self._faults.arm(faults, spare=request.protocol)
        return answer_json(self._faults.describe())

    async def clear_faults(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Clear all faults; the counts stay."""
        await self._faults.clear()
        return answer_json(self._faults.describe())

    async def reports(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer the options of reports, and how many reports got which answer."""
        reports = self._reports
        return answer_json(
            {
                "options": reports.options,
                "waiting": reports.waiting,
                "idle": reports.idle,
                "sent": reports.sent,
                "lost": reports.lost,
                "answers": reports.answers,
                "replies": reports.replies,
            }
        )

    async def set_reports(self, request: web.BaseRequest) -> web.StreamResponse:
        """Set the options of reports, from the next request on."""
        try:
            self._reports.options = read_reports(await request.read())
        except ConfigTextError as error:
            return answer_json({"error": str(error)}, status=400)
        return await self.reports(request)

    async def stop_reports(self, request: web.BaseRequest) -> web.StreamResponse:
        """Make no more reports, and drop the waiting ones; the counts stay."""
        self._reports.options = None
        return await self.reports(request)

    async def answered(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one line of JSON for each report that was answered with 200."""
        return await stream_lines(request, self._reports.acknowledged())


def answer_json(value: object, status: int = 200) -> web.Response:
    """Answer *value* as JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


async def stream_lines(request: web.BaseRequest, rows: Iterable[object]) -> web.StreamResponse:
    """Answer *rows* as one JSON per line, without all of them in memory at once."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    encoder = msgspec.json.Encoder()
    remaining: Iterator[object] = iter(rows)
    while chunk := list(islice(remaining, _CHUNK_ROWS)):
        await response.write(encoder.encode_lines(chunk))
    await response.write_eof()
    return response


def _after(request: web.BaseRequest) -> int:
    text = request.query.get("after", "0")
    if not text.isdecimal():
        raise web.HTTPBadRequest(text="after is a serial number")
    return int(text)
