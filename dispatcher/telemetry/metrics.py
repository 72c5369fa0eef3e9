"""What this process counts and times by itself."""

import re
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from dispatcher import __version__
from dispatcher.core.codes import NUMBER, OURS, REQUEST
from dispatcher.core.outcome import (
    Accepted,
    Deferred,
    Expired,
    Outcome,
    Rejected,
    Resolved,
    ReturnAll,
    UnknownResult,
)
from dispatcher.core.result import BatchResult

OTHER = "other"
_HTTP = re.compile(r"HTTP \d{3}")
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)  # seconds in the database
_REQUEST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds at the provider
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500)  # messages; 500 is the provider's limit


class Metrics:
    """The instruments of one process, and the registry they are in."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("dispatcher_build", "The release that runs.", registry=registry).info(
            {"version": __version__}
        )
        self._messages = Counter(
            "dispatcher_messages",
            "Messages by what became of them in this process.",
            ["app", "outcome"],
            registry=registry,
        )
        self._codes = Counter(
            "dispatcher_codes",
            "Messages that were not accepted, by the code that says why.",
            ["app", "outcome", "code"],
            registry=registry,
        )
        self._requests = Counter(
            "dispatcher_requests",
            "Requests that are over, by the code of their answer.",
            ["app", "code"],
            registry=registry,
        )
        self._tries = Counter(
            "dispatcher_request_tries",
            "HTTP requests made, those that were tried again included.",
            ["app"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "dispatcher_request_duration_seconds",
            "From the first try of a request to its last answer.",
            ["app"],
            buckets=_REQUEST,
            registry=registry,
        )
        self._batch = Histogram(
            "dispatcher_batch_messages",
            "Messages in one request.",
            ["app"],
            buckets=_SIZES,
            registry=registry,
        )
        self._claim_seconds = Histogram(
            "dispatcher_claim_duration_seconds",
            "Taking due messages out of the queue and writing their batches; empty looks too.",
            ["app"],
            buckets=_QUICK,
            registry=registry,
        )
        self._record_seconds = Histogram(
            "dispatcher_record_duration_seconds",
            "Writing the ends of requests, waiting for a database that is away included.",
            buckets=_QUICK,
            registry=registry,
        )
        self._trouble = Counter(
            "dispatcher_database_failures",
            "Calls to the database that failed because it was away.",
            ["call"],
            registry=registry,
        )
        self.reports = ReportMetrics(registry)

    def claimed(self, app: str, seconds: float, finished: Iterable[Outcome]) -> None:
        """Count a claim, and the messages that it finished without a request."""
        self._claim_seconds.labels(app).observe(seconds)
        for outcome in finished:
            self._count(app, outcome)

    def recorded(self, closings: Iterable[BatchResult], seconds: float) -> None:
        """Count requests whose ends have been written."""
        self._record_seconds.observe(seconds)
        for closing in closings:
            self._closed(closing)

    def database_away(self, call: str) -> None:
        """Count a call, named by a word, that the database was away for."""
        self._trouble.labels(call).inc()

    def _closed(self, closing: BatchResult) -> None:
        app = closing.batch.app
        messages = closing.batch.messages
        self._requests.labels(app, known(closing.code)).inc()
        if closing.tries:  # none: nothing was sent
            self._tries.labels(app).inc(closing.tries)
            self._request_seconds.labels(app).observe(closing.seconds)
            self._batch.labels(app).observe(len(messages))
        match closing.verdict:
            case UnknownResult(code=code):
                self._add(app, "unsure", code, len(messages))
            case ReturnAll(pause=pause):
                self._add(app, "returned", pause.code, len(messages))
            case Resolved(outcomes=outcomes, unsure=unsure):
                if unsure:
                    self._add(app, "unsure", closing.code, len(unsure))
                # One by one only what is not accepted: nearly all are, and this is the hot path.
                others = [each for each in outcomes if type(each) is not Accepted]
                if accepted := len(outcomes) - len(others):
                    self._messages.labels(app, "accepted").inc(accepted)
                for other in others:
                    self._count(app, other)

    def _count(self, app: str, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                self._messages.labels(app, "accepted").inc()
            case Rejected(code=code):
                self._add(app, "rejected", code)
            case Expired(code=code):
                self._add(app, "expired", code)
            case Deferred(code=code):
                self._add(app, "deferred", code)

    def _add(self, app: str, outcome: str, code: str, messages: int = 1) -> None:
        self._messages.labels(app, outcome).inc(messages)
        self._codes.labels(app, outcome, known(code)).inc(messages)


def known(code: str) -> str:
    """Return *code* as a label: itself if a table has it, or one word for all others."""
    if code in NUMBER or code in REQUEST or code in OURS or _HTTP.fullmatch(code):
        return code
    return OTHER if code else ""


_KEPT = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 20)  # seconds
_CARRIER = (1, 2, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400, 259_200)  # to three days
_WAIT = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


class ReportMetrics:
    """The instruments of one process for reports; without a registry nobody sees them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._taken = Counter(
            "dispatcher_reports_taken",
            "Reports that were answered 200, by where they were kept first.",
            ["place"],
            registry=registry,
        )
        # Shown as 0 from the start, or a rate misses the first.
        for place in ("database", "disk"):
            self._taken.labels(place)
        self._repeated = Counter(
            "dispatcher_reports_repeated",
            "Reports that told nothing new: of their segment as much was known.",
            registry=registry,
        )
        self._refused = Counter(
            "dispatcher_report_posts_refused",
            "Posts that were refused; the provider does not send them again.",
            ["kind", "detail"],
            registry=registry,
        )
        for kind in ("not kept", "signature", "network"):
            self._refused.labels(kind, "")
        self._kept_seconds = Histogram(
            "dispatcher_report_keep_duration_seconds",
            "From a whole post of reports to where it is safe.",
            buckets=_KEPT,
            registry=registry,
        )
        self._carrier_seconds = Histogram(
            "dispatcher_report_carrier_lag_seconds",
            "From the carrier's own time of a report to its receipt here.",
            buckets=_CARRIER,
            registry=registry,
        )
        self._matched = Counter(
            "dispatcher_reports_matched",
            "Reports that this process has looked at, to match them; again those that wait.",
            registry=registry,
        )
        self._unmatched = Counter(
            "dispatcher_reports_unmatched",
            "Reports that belong to no message.",
            registry=registry,
        )
        self._settled = Counter(
            "dispatcher_messages_settled_by_reports",
            "Unsure messages that a report has proved to be accepted.",
            registry=registry,
        )
        self._match_seconds = Histogram(
            "dispatcher_report_match_wait_seconds",
            "For how long the oldest report of a step of matching had been stored.",
            buckets=_WAIT,
            registry=registry,
        )

    def taken(self, place: str, reports: int, waits: Iterable[float]) -> None:
        """Count reports that are safe in *place*, and how long each post waited for that."""
        self._taken.labels(place).inc(reports)
        for seconds in waits:
            self._kept_seconds.observe(seconds)

    def carried(self, lags: Iterable[float]) -> None:
        """Note the seconds since the carrier's times; clocks may differ."""
        for seconds in lags:
            self._carrier_seconds.observe(max(0.0, seconds))

    def repeated(self, reports: int) -> None:
        """Count reports that told nothing new."""
        self._repeated.inc(reports)

    def refused(self, kind: str, detail: str = "") -> None:
        """Count a post that was refused; both are words of ours, not of the sender."""
        self._refused.labels(kind, detail).inc()

    def matched(self, reports: int, unmatched: int, settled: int, waited: float) -> None:
        """Count what a step of matching has done; its oldest report had waited so long."""
        self._matched.inc(reports)
        self._unmatched.inc(unmatched)
        self._settled.inc(settled)
        self._match_seconds.observe(waited)
