"""Counters and histograms of this process."""

import re
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Collection, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.multiprocess import MultiProcessCollector

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

OTHER_CODE = "other"
_HTTP_STATUS_PATTERN = re.compile(r"HTTP \d{3}")
# Upper bounds: of seconds in the database, of seconds at the provider, of messages in a batch.
_DATABASE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500)


class Metrics:
    """The instruments of one process, and the registry they are in."""

    def __init__(self, *, together: bool = False) -> None:
        """With *together*, show the sums over all processes of PROMETHEUS_MULTIPROC_DIR."""
        registry = CollectorRegistry(auto_describe=True)
        self.registry = registry  # what is shown
        if together:
            self.registry = CollectorRegistry()
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call] # of the library
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("dispatcher_build", "The release that runs.", registry=registry).info(
            {"version": __version__}
        )
        self._messages = Counter(
            "dispatcher_messages",
            "Messages by their outcome in this process.",
            ["app", "outcome"],
            registry=registry,
        )
        self._codes = Counter(
            "dispatcher_codes",
            "Messages that were not accepted, by the code that says why.",
            ["app", "outcome", "code"],
            registry=registry,
        )
        self._missing = Counter(
            "dispatcher_messages_missing",
            "Messages that waited, and had no row in dispatcher.message when they were claimed.",
            ["app"],
            registry=registry,
        )
        self._requests = Counter(
            "dispatcher_requests",
            "Ended requests, by the code of their answer.",
            ["app", "code"],
            registry=registry,
        )
        self._tries = Counter(
            "dispatcher_request_tries",
            "HTTP requests, retries included.",
            ["app"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "dispatcher_request_duration_seconds",
            "From the first try of a request to its last answer.",
            ["app"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._batch = Histogram(
            "dispatcher_batch_messages",
            "Messages in one request.",
            ["app"],
            buckets=_BATCH_SIZE_BUCKETS,
            registry=registry,
        )
        self._claim_seconds = Histogram(
            "dispatcher_claim_duration_seconds",
            "Claiming due messages and recording their batches; empty claims too.",
            ["app"],
            buckets=_DATABASE_BUCKETS,
            registry=registry,
        )
        self._record_seconds = Histogram(
            "dispatcher_record_duration_seconds",
            "Recording results of requests; includes waiting for an unavailable database.",
            buckets=_DATABASE_BUCKETS,
            registry=registry,
        )
        self._database_failures = Counter(
            "dispatcher_database_failures",
            "Calls that failed because the database was unavailable.",
            ["call"],
            registry=registry,
        )
        self.reports = ReportMetrics(registry)

    def claimed(self, app: str, seconds: float, finished: Iterable[Outcome]) -> None:
        """Count a claim and the messages that it finished without a request."""
        self._claim_seconds.labels(app).observe(seconds)
        for outcome in finished:
            self._count(app, outcome)

    def missing(self, app: str, messages: int) -> None:
        """Count messages that waited and do not exist."""
        self._missing.labels(app).inc(messages)

    def recorded(self, closings: Iterable[BatchResult], seconds: float) -> None:
        """Count requests whose results are recorded."""
        self._record_seconds.observe(seconds)
        for closing in closings:
            self._count_request(closing)

    def database_away(self, call: str) -> None:
        """Count a *call* that failed because the database was unavailable."""
        self._database_failures.labels(call).inc()

    def _count_request(self, closing: BatchResult) -> None:
        app = closing.batch.app
        messages = closing.batch.messages
        self._requests.labels(app, known(closing.code)).inc()
        if closing.tries:  # 0: nothing was sent
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
                # Accepted messages are counted at once: nearly all are, and this is the hot path.
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
    """Return *code* as a label: itself if a table has it, otherwise OTHER_CODE."""
    if code in NUMBER or code in REQUEST or code in OURS or _HTTP_STATUS_PATTERN.fullmatch(code):
        return code
    return OTHER_CODE if code else ""


# Upper bounds in seconds: to store a report, since the carrier's time, and of the backlog.
_STORE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 20)
_CARRIER_LAG_BUCKETS = (1, 2, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400, 259_200)
_MATCH_WAIT_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


class _ManyHistogram(Histogram):
    """A histogram that takes many values at once, in a tenth of the time for each."""

    def observe_all(self, amounts: Collection[float]) -> None:
        """Observe each of *amounts*."""
        places = Counted(bisect_left(self._upper_bounds, amount) for amount in amounts)
        for place, times in places.items():
            self._buckets[place].inc(times)
        self._sum.inc(sum(amounts))


class ReportMetrics:
    """The instruments of one process for reports; without a registry they are not shown."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._taken = Counter(
            "dispatcher_reports_taken",
            "Reports that were answered 200, by where they were stored first.",
            ["place"],
            registry=registry,
        )
        self._replies = Counter(
            "dispatcher_replies_taken",
            "Replies of persons that were answered 200, by where they were stored first.",
            ["place"],
            registry=registry,
        )
        # Shown as 0 from the start, otherwise a rate misses the first event.
        for place in ("database", "disk"):
            self._taken.labels(place)
            self._replies.labels(place)
        self._repeated = Counter(
            "dispatcher_reports_repeated",
            "Reports without news: the same state of their segment was known.",
            registry=registry,
        )
        self._refused = Counter(
            "dispatcher_report_posts_refused",
            "Posts that were refused; the provider does not repeat them.",
            ["kind", "detail"],
            registry=registry,
        )
        for kind in ("not kept", "signature", "network"):
            self._refused.labels(kind, "")
        self._unreadable = Counter(
            "dispatcher_report_posts_unreadable",
            "Posts that were kept as they came, because they are no reports that can be read.",
            registry=registry,
        )
        self._kept_seconds = _ManyHistogram(
            "dispatcher_report_keep_duration_seconds",
            "From the end of a post of reports until they are stored.",
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self._carrier_seconds = _ManyHistogram(
            "dispatcher_report_carrier_lag_seconds",
            "From the carrier's own time of a report to its receipt here.",
            buckets=_CARRIER_LAG_BUCKETS,
            registry=registry,
        )
        self._matched = Counter(
            "dispatcher_reports_matched",
            "Attempts of this process to match a report.",
            registry=registry,
        )
        self._unmatched = Counter(
            "dispatcher_reports_unmatched",
            "Reports that belong to no message.",
            registry=registry,
        )
        self._settled = Counter(
            "dispatcher_messages_settled_by_reports",
            "Unsure messages that a report proved to be accepted.",
            registry=registry,
        )
        self._match_seconds = Histogram(
            "dispatcher_report_match_wait_seconds",
            "How long the oldest report of a matching step had been stored.",
            buckets=_MATCH_WAIT_BUCKETS,
            registry=registry,
        )

    def taken(self, place: str, reports: int, replies: int, waits: Collection[float]) -> None:
        """Count what is stored in *place*, and the seconds that each post waited."""
        self._taken.labels(place).inc(reports)
        if replies:
            self._replies.labels(place).inc(replies)
        self._kept_seconds.observe_all(waits)

    def carried(self, lags: Iterable[float]) -> None:
        """Record the seconds since the carriers' times; clocks may differ."""
        self._carrier_seconds.observe_all([max(0.0, seconds) for seconds in lags])

    def repeated(self, reports: int) -> None:
        """Count reports without news."""
        self._repeated.inc(reports)

    def unreadable(self) -> None:
        """Count a post that was kept as it came."""
        self._unreadable.inc()

    def refused(self, kind: str, detail: str = "") -> None:
        """Count a refused post; *kind* and *detail* are constants, not text of the sender."""
        self._refused.labels(kind, detail).inc()

    def matched(self, reports: int, unmatched: int, settled: int, waited: float) -> None:
        """Count the results of a matching step; its oldest report had *waited* so long."""
        self._matched.inc(reports)
        self._unmatched.inc(unmatched)
        self._settled.inc(settled)
        self._match_seconds.observe(waited)
