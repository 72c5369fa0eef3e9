"""What a process counts and times of status reports: taken in, refused, matched."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

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
        """Count a post that was refused; both are words of ours, not of whoever posted it."""
        self._refused.labels(kind, detail).inc()

    def matched(self, reports: int, unmatched: int, settled: int, waited: float) -> None:
        """Count what a step of matching has done; its oldest report had waited so long."""
        self._matched.inc(reports)
        self._unmatched.inc(unmatched)
        self._settled.inc(settled)
        self._match_seconds.observe(waited)
