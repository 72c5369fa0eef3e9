"""POST /sms/batchSendDiffSms/v1: from the request to the answer."""

import email.utils
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from dispatcher.simulator.answer import Answer, refuse, results
from dispatcher.simulator.codes import RefusedError, top_code
from dispatcher.simulator.journal import Journal, Visit
from dispatcher.simulator.ledger import Ledger
from dispatcher.simulator.options import Options
from dispatcher.simulator.signature import ALGORITHM, check_signature
from dispatcher.simulator.submission import Submission, read_submission
from dispatcher.simulator.verdict import judge
from dispatcher.simulator.wsse import check_wsse

PATH: Final = "/sms/batchSendDiffSms/v1"


class Api:
    """The one call of the provider."""

    def __init__(
        self, keys: Mapping[str, str], options: Options, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.ledger = Ledger()
        self.journal = Journal()
        self._keys = keys
        self._options = options
        self._wall = wall

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        visit = self.journal.arrive(
            at=self._wall(),
            monotonic=time.monotonic(),
            host=request.headers.get("Host", ""),
            scheme=_scheme(request.headers.get("Authorization", "")),
        )
        body = await request.read()
        visit.size = len(body)
        if self._options.keep_bodies:
            visit.body = body
        try:
            self._authenticate(request, body)
            content_type = request.headers.get("Content-Type", "")
            submission = read_submission(body, content_type, self._options)
        except RefusedError as refusal:
            answer = refuse(refusal)
        else:
            answer = self._accept(visit, submission)
        return self._respond(visit, answer)

    def _authenticate(self, request: web.BaseRequest, body: bytes) -> None:
        if request.headers.get("Authorization", "").startswith(ALGORITHM):
            check_signature(
                request.headers,
                body,
                method=request.method,
                path=request.raw_path,
                now=self._wall(),
                keys=self._keys,
                options=self._options,
            )
        else:
            check_wsse(request.headers, now=self._wall(), keys=self._keys, options=self._options)

    def _accept(self, visit: Visit, submission: Submission) -> Answer:
        """Judge each number, write the accepted ones into the ledger, and make the answer."""
        at = self._wall()
        id_prefix = str(uuid.uuid4())
        statuses, totals = judge(submission, self._options)
        visit.numbers = len(submission.numbers)
        visit.token = submission.token
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
        visit.accepted = 0 if accepted is None else sum(accepted.counts)
        made = results(submission, statuses, totals, id_prefix=id_prefix, at=at)
        if statuses is None:
            return Answer(200, "000000", "Success", made)
        code = self._options.mixed_code
        return Answer(self._options.mixed_status, code, top_code(code).message, made)

    def _respond(self, visit: Visit, answer: Answer) -> web.Response:
        visit.http_status = answer.http_status
        visit.code = answer.code
        visit.seconds = time.monotonic() - visit.monotonic
        return web.Response(
            status=answer.http_status,
            body=answer.body(),
            headers={
                "Content-Type": "application/json;charset=UTF-8",
                "Date": email.utils.formatdate(self._wall(), usegmt=True),
                "Server": "WebServer",
            },
        )


def _scheme(authorization: str) -> str:
    if authorization.startswith(ALGORITHM):
        return "aksk"
    return "wsse" if authorization.startswith("WSSE") else ""
