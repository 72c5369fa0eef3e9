"""The dashboard: whether messages go out, and if not, why and what to do; updated every second."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session, protected
from dispatcher.console.backend import ConsoleBackend
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.health import AppHealth, Diagnosis, Level, database_unavailable, diagnose
from dispatcher.core.status import AppState, MinuteCount, StatusSnapshot
from dispatcher.db.errors import shown_line
from dispatcher.db.reports import OVERDUE_SECONDS
from dispatcher.db.status import SeriesPoint

UPDATE_INTERVAL_SECONDS = 1.0
FRESH_MAX_AGE_SECONDS = 1.0  # one query a second, however many pages are open
LISTED_APPS = 30  # those with problems first, until all of them are asked for
LISTED_FINDINGS = 20
STREAM_SECONDS = 600.0  # then the browser asks anew, and a proxy checks again who is signed in
RECONNECT_MILLISECONDS = 500
MAX_LIVE_STREAMS = 50  # one more is refused, and the browser tries again later
CHART_SERIES = ("accepted", "delivered", "deferred", "failed")
FAILED_EVENTS = {"rejected", "undelivered"}
CHART_SPANS_SECONDS = {  # span, step
    "hour": (3600.0, 60.0),
    "day": (86_400.0, 900.0),
    "week": (7 * 86_400.0, 3600.0),
    "month": (30 * 86_400.0, 6 * 3600.0),
}
SPARK_MINUTES = 60
SPARK_HEIGHT = 20
FAILED_HEIGHT = 10  # of the strip below it, in the same scale of messages
MIN_RATE_WINDOW_SECONDS = 3.0  # a recorder writes in bursts
MAX_RATE_WINDOW_SECONDS = 15.0


class AppCard(Struct, frozen=True):
    """One app on the dashboard."""

    app: AppState
    health: AppHealth
    rate: float  # numbers accepted a second
    share: float  # of its configured rate, 0 to 100
    oldest: float | None  # seconds since the oldest waiting message was due
    recent: Counter[str]  # events of the last ten minutes
    overdue: int  # accepted messages whose report is overdue
    spark: "Spark"


class Spark(Struct, frozen=True):
    """The last hour of one app as a small picture, a minute a unit."""

    accepted: int
    failed: int
    line: str  # points of the accepted
    bars: list[tuple[int, float]]  # minute and height of what failed


class Dashboard:
    """The first page, and the stream that updates it."""

    def __init__(self, auth: Auth, backend: ConsoleBackend, stopping: asyncio.Event) -> None:
        self._auth = auth
        self._backend = backend
        self._stopping = stopping
        self._meter = RateMeter()
        self._streams = 0

    async def show(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the page."""
        values = await self._values(request)
        return self._auth.page("dashboard.html", {"session": session, **values})

    async def stream(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Send the page's live part every second, as server-sent events."""
        if self._streams >= MAX_LIVE_STREAMS:
            return protected(web.Response(status=503, text="too many live pages are open\n"))
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # proxies must not buffer the stream
        response.headers["X-Content-Type-Options"] = "nosniff"
        await response.prepare(request)
        self._streams += 1
        try:
            ends_at = time.monotonic() + STREAM_SECONDS
            await response.write(b"retry: %d\n" % RECONNECT_MILLISECONDS)  # of the first event
            # A write detects a closed browser; the end of the session ends the stream of others.
            while not self._stopping.is_set() and time.monotonic() < ends_at:
                try:
                    if await self._auth.session(request) is None:
                        break
                    values = await self._values(request)
                except DatabaseUnavailable as error:  # whether a token was revoked is not known
                    values = _unavailable_values(request, error)
                text = self._auth.fragment("_dashboard.html", values, session)
                await response.write(_event(text))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(UPDATE_INTERVAL_SECONDS):
                        await self._stopping.wait()
        except ConnectionResetError:
            pass
        finally:
            self._streams -= 1
        return response

    async def delivery(self, _request: web.Request, session: Session) -> web.StreamResponse:
        """Show success and time of delivery by app, template and country."""
        groups = await self._backend.delivery()
        return self._auth.page("delivery.html", {"session": session, "groups": groups})

    async def fresh(self, _: web.Request, __: Session) -> web.StreamResponse:
        """Return the time of the newest data; pages warn when they have not had any for 5 s."""
        snapshot = await self._backend.snapshot(FRESH_MAX_AGE_SECONDS)
        diagnosis = diagnose(snapshot)
        trouble = sum(each.level >= Level.WARNING for each in diagnosis.findings)
        body = msgspec.json.encode({"at": snapshot.at, "trouble": trouble})
        return protected(web.Response(body=body, content_type="application/json"))

    async def chart(self, request: web.Request, _: Session) -> web.StreamResponse:
        """Return the numbers of a chart."""
        spans = CHART_SPANS_SECONDS
        span, step = spans.get(request.query.get("span", ""), spans["hour"])
        points = await self._backend.series(request.query.get("app") or None, span, step)
        return protected(
            web.Response(
                body=msgspec.json.encode(_columns(points, span, step, now=time.time())),
                content_type="application/json",
            )
        )

    async def _values(self, request: web.Request) -> dict[str, object]:
        try:
            snapshot = await self._backend.snapshot()
        except DatabaseUnavailable as error:
            return _unavailable_values(request, error)
        rates = self._meter.rates(snapshot)
        minutes = await self._backend.last_hour()
        diagnosis = diagnose(snapshot)
        shown = [*zip(snapshot.apps, diagnosis.apps, strict=True)]
        if len(shown) > LISTED_APPS and "all" not in request.query:
            shown.sort(key=lambda each: -each[1].level)
            del shown[LISTED_APPS:]
        cards = [
            _card(
                app,
                snapshot,
                health,
                rates.get(app.name, 0.0),
                spark(app.name, minutes, now=snapshot.at),
            )
            for app, health in shown
        ]
        apps = [app.name for app in snapshot.apps]
        return _template_values(request, diagnosis, cards, apps)


def _unavailable_values(request: web.Request, error: DatabaseUnavailable) -> dict[str, object]:
    return _template_values(request, database_unavailable(shown_line(str(error))), [], [])


def _template_values(
    request: web.Request, diagnosis: Diagnosis, cards: list[AppCard], apps: list[str]
) -> dict[str, object]:
    overdue_before = datetime.now(UTC) - timedelta(seconds=OVERDUE_SECONDS)
    return {
        "diagnosis": diagnosis,
        "findings": None if "all" in request.query else LISTED_FINDINGS,
        "cards": cards,
        "apps": apps,
        "overdue_before": f"{overdue_before:%Y-%m-%dT%H:%M}",
    }


def spark(app: str, minutes: Iterable[MinuteCount], *, now: datetime) -> Spark:
    """Return the picture of an app's last hour; the present minute is not complete."""
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=SPARK_MINUTES)
    accepted, failed = [0] * SPARK_MINUTES, [0] * SPARK_MINUTES
    for each in minutes:
        place = int((each.minute - first).total_seconds() // 60)
        if each.app == app and 0 <= place < SPARK_MINUTES:
            accepted[place], failed[place] = each.accepted, each.failed
    most = max(1, *accepted, *failed)
    points = (
        f"{place},{SPARK_HEIGHT - SPARK_HEIGHT * value / most:.1f}"
        for place, value in enumerate(accepted)
    )
    bars = [
        (place, max(1.0, FAILED_HEIGHT * value / most))  # a single one is seen
        for place, value in enumerate(failed)
        if value
    ]
    return Spark(sum(accepted), sum(failed), " ".join(points), bars)


def _card(
    app: AppState, snapshot: StatusSnapshot, health: AppHealth, rate: float, picture: Spark
) -> AppCard:
    recent: Counter[str] = Counter()
    for each in snapshot.recent:
        if each.app == app.name:
            recent[each.event] += each.count
    due_at = app.oldest_due_at
    return AppCard(
        app,
        health,
        rate,
        min(100.0, 100 * rate / app.numbers_per_second) if app.numbers_per_second else 0.0,
        max(0.0, (snapshot.at - due_at).total_seconds()) if due_at else None,
        recent,
        sum(each.overdue for each in snapshot.awaiting if each.app == app.name),
        picture,
    )


def _event(text: str) -> bytes:
    return ("".join(f"data: {line}\n" for line in text.splitlines()) + "\n").encode()


def _columns(
    points: list[SeriesPoint], span: float, step: float, *, now: float
) -> dict[str, list[float]]:
    """Return one list for the times and one for each series, without gaps.

    The current step is left out: it is not complete and would look like a fall.
    """
    first = (now - span) // step * step
    times = [first + index * step for index in range(int(span // step))]
    counts: Counter[tuple[str, float]] = Counter()
    for at, event, count in points:
        counts["failed" if event in FAILED_EVENTS else event, at.timestamp()] += count
    columns: dict[str, list[float]] = {"time": times}
    return columns | {event: [counts[event, at] for at in times] for event in CHART_SERIES}


class RateMeter:
    """Computes the rate of accepted numbers from the snapshots of the last seconds."""

    def __init__(self) -> None:
        self._snapshots: deque[StatusSnapshot] = deque()

    def rates(self, snapshot: StatusSnapshot) -> dict[str, float]:
        """Return numbers accepted a second, by app, at the time of *snapshot*."""
        snapshots = self._snapshots
        if not snapshots or snapshot.at > snapshots[-1].at:
            snapshots.append(snapshot)
        while (snapshot.at - snapshots[0].at).total_seconds() > MAX_RATE_WINDOW_SECONDS:
            snapshots.popleft()
        seconds = (snapshot.at - snapshots[0].at).total_seconds()
        if seconds < MIN_RATE_WINDOW_SECONDS:
            return _rates_by_minute(snapshot)
        before = _accepted(snapshots[0])
        accepted: Counter[str] = Counter()
        for (app, minute), count in _accepted(snapshot).items():
            accepted[app] += max(0, count - before[app, minute])
        return {app: count / seconds for app, count in accepted.items()}


def _accepted(snapshot: StatusSnapshot) -> Counter[tuple[str, float]]:
    counts: Counter[tuple[str, float]] = Counter()
    for each in snapshot.recent:
        if each.event == "accepted":
            counts[each.app, each.minute.timestamp()] += each.count
    return counts


def _rates_by_minute(snapshot: StatusSnapshot) -> dict[str, float]:
    """Return the rates of this minute and the one before: a single snapshot has no others."""
    begin = snapshot.at.replace(second=0, microsecond=0).timestamp() - 60
    seconds = snapshot.at.timestamp() - begin
    counts: Counter[str] = Counter()
    for (app, minute), count in _accepted(snapshot).items():
        if minute >= begin:
            counts[app] += count
    return {app: count / seconds for app, count in counts.items()}
