"""POST /sms/batchSendDiffSms/v1: from the request to the answer."""

import email.utils
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from dispatcher.simulator.answer import Answer, refuse, results
from dispatcher.simulator.bell import Bell
from dispatcher.simulator.codes import RefusedError, top_code
from dispatcher.simulator.faults.phases import Gate
from dispatcher.simulator.faults.script import Faults, Spoiled
from dispatcher.simulator.faults.wire import Wire
from dispatcher.simulator.journal import Journal, Visit
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.options import Options
from dispatcher.simulator.reports.reporter import Reporter
from dispatcher.simulator.signature import ALGORITHM, check_signature
from dispatcher.simulator.submission import Submission, read_submission
from dispatcher.simulator.verdict import judge
from dispatcher.simulator.wsse import check_wsse

PATH: Final = "/sms/batchSendDiffSms/v1"


class Api:
    """The one call of the provider."""

    def __init__(
        self,
        keys: Mapping[str, str],
        options: Options,
        gate: Gate,
        *,
        bell: Bell,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = Ledger()
        self.journal = Journal()
        self.faults = Faults(
            gate,
            requests=lambda: len(self.journal),
            accepted=lambda: self.ledger.numbers,
        )
        self.reports = Reporter(bell=bell, wall=wall)
        self._keys = keys
        self._options = options
        self._gate = gate
        self._bell = bell
        self._wall = wall

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        visit = self.journal.arrive(
            at=self._wall(),
            monotonic=time.monotonic(),
            host=request.headers.get("Host", ""),
            scheme=_scheme(request.headers.get("Authorization", "")),
        )
        ahead, checks_ahead = 0.0, 0.0  # how wrong the clock is, in Date and in the checks
        if self.faults:
            ending, clocks = self.faults.at_arrival(visit)
            ahead = sum(clock.offset for clock in clocks)
            checks_ahead = sum(clock.offset for clock in clocks if clock.checks)
            if ending is not None:
                self._bell.ring()
                return await ending.end(Wire(request), self._gate)
        body = await request.read()
        visit.size = len(body)
        if self._options.keep_bodies:
            visit.body = body
        delivery: Spoiled | None = None
        try:
            self._authenticate(request, body, now=self._wall() + checks_ahead)
            content_type = request.headers.get("Content-Type", "")
            submission = read_submission(body, content_type, self._options)
            delivery = self._meet(visit, submission)
        except RefusedError as refusal:
            answer = refuse(refusal)
        else:
            answer = await self._accept(visit, submission, delivery)
        response = self._write(answer, now=self._wall() + ahead)
        if delivery is None:
            self._close(visit, answer.http_status, answer.code)
            return response
        self._bell.ring()
        delivered = await delivery.deliver(Wire(request), response)
        if request.transport is None or request.transport.is_closing():
            self._close(visit, 0, "")
        elif delivered is response:
            self._close(visit, answer.http_status, answer.code)
        else:
            self._close(visit, delivered.status, "")
        return delivered

    def _authenticate(self, request: web.BaseRequest, body: bytes, *, now: float) -> None:
        if request.headers.get("Authorization", "").startswith(ALGORITHM):
            check_signature(
                request.headers,
                body,
                method=request.method,
                path=request.raw_path,
                now=now,
                keys=self._keys,
                options=self._options,
            )
        else:
            check_wsse(request.headers, now=now, keys=self._keys, options=self._options)

    def _meet(self, visit: Visit, submission: Submission) -> Spoiled | None:
        """Raise RefusedError if a fault refuses the request; return a fault of delivery."""
        visit.numbers = len(submission.numbers)
        visit.token = submission.token
        return self.faults.ending(visit, submission) if self.faults else None

    async def _accept(
        self, visit: Visit, submission: Submission, delivery: Spoiled | None
    ) -> Answer:
        """Judge each number, write the accepted ones into the ledger, and make the answer."""
        at = self._wall()
        id_prefix = str(uuid.uuid4())
        statuses, totals = judge(submission, self._options)
        if self.faults:
            statuses = self.faults.mark(visit, submission, statuses)
        made = results(submission, statuses, totals, id_prefix=id_prefix, at=at)
        if statuses is None:
            answer = Answer(200, "000000", "Success", made)
        else:
            code = self._options.mixed_code
            answer = Answer(self._options.mixed_status, code, top_code(code).message, made)
        if delivery is not None and not delivery.accepts:
            return answer  # nobody reads it
        accepted = self.ledger.record(
            submission.body.sms_content,
            submission.joined,
            statuses,
            serial=visit.serial,
            at=at,
            token=submission.token,
            id_prefix=id_prefix,
            segments=totals,
        )
        if accepted is not None:
            visit.accepted = sum(accepted.counts)
            await self.reports.accept(accepted, submission.body.status_callback)
        if self.faults:
            self.faults.bend(visit, submission, answer)
        return answer

    def _write(self, answer: Answer, *, now: float) -> web.Response:
        return web.Response(
            status=answer.http_status,
            body=answer.body(),
            headers={
                "Content-Type": "application/json;charset=UTF-8",
                "Date": email.utils.formatdate(now, usegmt=True),
                "Server": "WebServer",
            },
        )

    def _close(self, visit: Visit, http_status: int, code: str) -> None:
        visit.http_status = http_status
        visit.code = code
        visit.seconds = time.monotonic() - visit.monotonic
        self._bell.ring()


def _scheme(authorization: str) -> str:
    if authorization.startswith(ALGORITHM):
        return "aksk"
    return "wsse" if authorization.startswith("WSSE") else ""
