"""Gauges that are read at each scrape: the state in the database, connections, spools.

Gauges that cannot be read are absent, and `dispatcher_database_up` is 0: a gauge with its last
value would look like a database that answers.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.core.report_matching import Backlog
from dispatcher.core.status import AppState, MissingReports, StatusSnapshot
from dispatcher.telemetry.metrics import known


class Countable(Protocol):
    """A pool of connections that can be counted."""

    def get_size(self) -> int:
        """Return how many connections are open."""

    def get_idle_size(self) -> int:
        """Return how many of them are idle."""

    def get_max_size(self) -> int:
        """Return how many there may be."""


class State(Collector):
    """The last state of everything, as metrics."""

    def __init__(self, registry: CollectorRegistry, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._pools: dict[str, Countable] = {}
        self._spools: dict[str, Callable[[], tuple[int, int]]] = {}
        self._seen: StatusSnapshot | None = None
        self._backlog: Backlog | None = None
        registry.register(self)

    def watch(self, name: str, pool: Countable) -> None:
        """Show the connections of *pool* from now on."""
        self._pools[name] = pool

    def watch_spool(self, name: str, look: Callable[[], tuple[int, int]]) -> None:
        """Show from now on the number of files and bytes that *look* returns."""
        self._spools[name] = look

    def show(self, seen: StatusSnapshot | None, backlog: Backlog | None = None) -> None:
        """Show this state from now on; None if the database does not answer."""
        self._seen = seen
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        yield self._connections()
        yield GaugeMetricFamily(
            "dispatcher_database_up",
            "Whether the database answered at this scrape.",
            value=float(self._seen is not None),
        )
        apps = self._seen.apps if self._seen else []
        for name, text, value in _APP_GAUGES:
            family = GaugeMetricFamily(name, text, labels=["app"])
            for app in apps:
                figure = value(app, self._now())
                if figure is not None:
                    family.add_metric([app.name], float(figure))
            yield family
        yield _pauses(apps)
        yield from _awaiting(self._seen)
        yield from _waiting(self._backlog)
        yield from self._on_disk()
        yield _workers(self._seen)
        yield _unreachable(self._seen)

    def _on_disk(self) -> Iterator[Metric]:
        files = GaugeMetricFamily(
            "dispatcher_spool_files",
            "Spool files for the time when the database is unavailable, by content.",
            labels=["spool"],
        )
        length = GaugeMetricFamily(
            "dispatcher_spool_bytes", "Bytes of these files.", labels=["spool"]
        )
        for name, look in self._spools.items():
            try:
                counted, size = look()
            except OSError:
                continue  # absent, like all gauges that cannot be read
            files.add_metric([name], counted)
            length.add_metric([name], size)
        yield files
        yield length

    def _connections(self) -> Metric:
        family = GaugeMetricFamily(
            "dispatcher_pool_connections",
            "Connections to PostgreSQL, by pool and state.",
            labels=["pool", "state"],
        )
        for name, pool in self._pools.items():
            idle = pool.get_idle_size()
            family.add_metric([name, "used"], pool.get_size() - idle)
            family.add_metric([name, "idle"], idle)
            family.add_metric([name, "allowed"], pool.get_max_size())
        return family


def _oldest(app: AppState, now: datetime) -> float:
    if app.oldest_due_at is None:
        return 0.0
    return max(0.0, (now - app.oldest_due_at).total_seconds())


_Value = Callable[[AppState, datetime], float | None]
_APP_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    (
        "dispatcher_waiting_messages",
        "Messages in the queue, due or not; 10001 means more than 10,000.",
        lambda app, _: app.waiting,
    ),
    (
        "dispatcher_oldest_due_seconds",
        "For how long the oldest due message of no stopped campaign has waited.",
        _oldest,
    ),
    (
        "dispatcher_sending_messages",
        "Messages in open requests.",
        lambda app, _: app.sending,
    ),
    (
        "dispatcher_unsure_batches",
        "Requests that may have been sent, without a known result.",
        lambda app, _: app.unsure_batches,
    ),
    (
        "dispatcher_app_known",
        "0: messages wait for this app, but no worker ever had it.",
        lambda app, _: app.known,
    ),
    (
        "dispatcher_paused_countries",
        "Countries that this app does not send to now.",
        lambda app, _: len(app.paused_countries),
    ),
    (
        "dispatcher_rate_limit_configured",
        "Configured numbers a second of this app; absent without a limit.",
        lambda app, _: app.numbers_per_second,
    ),
    (
        "dispatcher_rate_limit_current",
        "Numbers a second that this app may send now; absent without a limit.",
        lambda app, _: app.rate,
    ),
)


def _pauses(apps: list[AppState]) -> Metric:
    family = GaugeMetricFamily(
        "dispatcher_app_paused",
        "1 for each app that is paused, with who paused it, and for which code.",
        labels=["app", "by", "code"],
    )
    for app in apps:
        if app.paused_at is not None:
            family.add_metric([app.name, app.paused_by or "", known(app.pause_code or "")], 1.0)
    return family


def _awaiting(seen: StatusSnapshot | None) -> Iterator[Metric]:
    for name, text, value in _REPORT_GAUGES:
        family = GaugeMetricFamily(name, text, labels=["app"])
        for each in seen.awaiting if seen else ():
            family.add_metric([each.app], value(each))
        yield family


_REPORT_GAUGES: tuple[tuple[str, str, Callable[[MissingReports], float]], ...] = (
    (
        "dispatcher_reports_overdue",
        "Accepted messages without a status report for over an hour, if reports are asked for.",
        lambda one: one.overdue,
    ),
    (
        "dispatcher_reports_overdue_since_last",
        "Of these, those that were accepted after the last message with a status report.",
        lambda one: one.since_last,
    ),
    (
        "dispatcher_reports_awaited",
        "Accepted messages without a status report, if reports are asked for.",
        lambda one: one.waiting,
    ),
    (
        "dispatcher_reports_awaited_oldest_seconds",
        "Since when the oldest of them was accepted; it grows if the callback address is broken.",
        lambda one: one.oldest_seconds or 0.0,
    ),
)


def _waiting(backlog: Backlog | None) -> Iterator[Metric]:
    reports = GaugeMetricFamily(
        "dispatcher_report_backlog", "Reports that are stored and wait to be matched."
    )
    oldest = GaugeMetricFamily(
        "dispatcher_report_backlog_oldest_seconds", "Since when the oldest of them was stored."
    )
    if backlog is not None:
        reports.add_metric([], backlog.reports)
        oldest.add_metric([], backlog.oldest_seconds)
    yield reports
    yield oldest


def _workers(seen: StatusSnapshot | None) -> Metric:
    family = GaugeMetricFamily(
        "dispatcher_workers",
        "Workers by state: alive, or silent for longer than their lease.",
        labels=["state"],
    )
    if seen is not None:
        alive = sum(worker.alive for worker in seen.workers)
        family.add_metric(["alive"], alive)
        family.add_metric(["silent"], len(seen.workers) - alive)
    return family


def _unreachable(seen: StatusSnapshot | None) -> Metric:
    family = GaugeMetricFamily(
        "dispatcher_unreachable_workers",
        "Live workers whose host cannot reach the provider for an app; absent without any.",
        labels=["app", "host"],
    )
    if seen is not None:
        unreachable = Counter(
            (a, w.host) for w in seen.workers if w.alive for a in w.unreachable_apps
        )
        for labels, count in unreachable.items():
            family.add_metric(labels, count)
    return family
