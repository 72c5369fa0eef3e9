"""Serves POST /sms/batchSendDiffSms/v1, from the request to the answer."""

import email.utils
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from dispatcher.simulator.answer import Answer, encode_results, refusal_answer
from dispatcher.simulator.auth import ALGORITHM, check_signature, check_wsse
from dispatcher.simulator.fault_script import DeliveryFaultHit, FaultScript
from dispatcher.simulator.faults import RequestConnection
from dispatcher.simulator.ledger import Journal, Ledger, RequestRecord
from dispatcher.simulator.listener import ChangeSignal, ConnectionGate
from dispatcher.simulator.number_results import evaluate_numbers
from dispatcher.simulator.options import Options
from dispatcher.simulator.report_sender import ReportSender
from dispatcher.simulator.request import (
    ACCEPTED,
    RequestRefusedError,
    SmsRequest,
    read_request,
    top_code,
)

PATH: Final = "/sms/batchSendDiffSms/v1"


class Api:
    """The API call of the provider."""

    def __init__(
        self,
        keys: Mapping[str, str],
        options: Options,
        gate: ConnectionGate,
        *,
        changes: ChangeSignal,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = Ledger()
        self.journal = Journal()
        self.faults = FaultScript(
            gate,
            requests=lambda: len(self.journal),
            accepted=lambda: self.ledger.numbers,
        )
        self.reports = ReportSender(changes=changes, wall=wall)
        self._keys = keys
        self._options = options
        self._changes = changes
        self._wall = wall

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        record = self.journal.add(
            at=self._wall(),
            monotonic=time.monotonic(),
            host=request.headers.get("Host", ""),
            scheme=_scheme(request.headers.get("Authorization", "")),
        )
        date_offset, check_offset = 0.0, 0.0  # seconds the clock is ahead, in Date and in checks
        if self.faults:
            aborted, clocks = self.faults.at_arrival(record)
            date_offset = sum(clock.offset for clock in clocks)
            check_offset = sum(clock.offset for clock in clocks if clock.checks)
            if aborted is not None:
                self._changes.notify()
                return await aborted.end(RequestConnection(request))
        body = await request.read()
        record.size = len(body)
        if self._options.keep_bodies:
            record.body = body
        delivery: DeliveryFaultHit | None = None
        try:
            self._authenticate(request, body, now=self._wall() + check_offset)
            content_type = request.headers.get("Content-Type", "")
            sms_request = read_request(body, content_type, self._options)
            delivery = self._check_faults(record, sms_request)
        except RequestRefusedError as refusal:
            delivery = None
            if self.faults:
                refusal, delivery = self.faults.check_refused(record, refusal)
            answer = refusal_answer(refusal)
        else:
            answer = await self._accept(record, sms_request, delivery)
        response = self._response(answer, now=self._wall() + date_offset)
        if delivery is None:
            self._finish(record, answer.http_status, answer.code)
            return response
        self._changes.notify()
        delivered = await delivery.deliver(RequestConnection(request), response)
        if request.transport is None or request.transport.is_closing():
            self._finish(record, 0, "")
        elif delivered is response:
            self._finish(record, answer.http_status, answer.code)
        else:
            self._finish(record, delivered.status, "")
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

    def _check_faults(
        self, record: RequestRecord, sms_request: SmsRequest
    ) -> DeliveryFaultHit | None:
        """Raise RequestRefusedError if a fault refuses the request; return a fault of delivery."""
        record.numbers = len(sms_request.numbers)
        record.token = sms_request.token
        return self.faults.check_request(record, sms_request) if self.faults else None

    async def _accept(
        self, record: RequestRecord, sms_request: SmsRequest, delivery: DeliveryFaultHit | None
    ) -> Answer:
        """Evaluate each number, record the accepted ones in the ledger, and return the answer."""
        at = self._wall()
        id_prefix = str(uuid.uuid4())
        statuses, totals = evaluate_numbers(sms_request, self._options)
        if self.faults:
            statuses = self.faults.refuse_numbers(record, sms_request, statuses)
        results = encode_results(sms_request, statuses, totals, id_prefix=id_prefix, at=at)
        if statuses is None:
            answer = Answer(200, ACCEPTED, "Success", results)
        else:
            code = self._options.mixed_code
            answer = Answer(self._options.mixed_status, code, top_code(code).message, results)
        if delivery is not None and not delivery.accepts:
            return answer  # it is not sent
        accepted = self.ledger.record(
            sms_request.body.sms_content,
            sms_request.joined,
            statuses,
            serial=record.serial,
            at=at,
            token=sms_request.token,
            id_prefix=id_prefix,
            totals=totals,
            sender=sms_request.body.sender,
        )
        if accepted is not None:
            record.accepted = sum(accepted.counts)
            await self.reports.schedule(accepted, sms_request.body.status_callback)
        if self.faults:
            self.faults.alter_answer(record, sms_request, answer)
        return answer

    def _response(self, answer: Answer, *, now: float) -> web.Response:
        return web.Response(
            status=answer.http_status,
            body=answer.body(),
            headers={
                "Content-Type": "application/json;charset=UTF-8",
                "Date": email.utils.formatdate(now, usegmt=True),
                "Server": "WebServer",
            },
        )

    def _finish(self, record: RequestRecord, http_status: int, code: str) -> None:
        record.http_status = http_status
        record.code = code
        record.seconds = time.monotonic() - record.monotonic
        self._changes.notify()


def _scheme(authorization: str) -> str:
    if authorization.startswith(ALGORITHM):
        return "aksk"
    return "wsse" if authorization.startswith("WSSE") else ""
