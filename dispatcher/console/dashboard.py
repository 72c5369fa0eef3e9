"""Now: do texts go out, and if not, why and what to do; live."""

import asyncio
import contextlib
import time
from collections import Counter, deque

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.auth import HOME, Auth, Session, protected
from dispatcher.console.backend import AwayError, Desk, Step
from dispatcher.core.health import AppHealth, Diagnosis, database_unavailable, diagnose
from dispatcher.core.status import AppState, StatusSnapshot

EVERY = 1.0  # seconds between two pictures of a live page
MOST_LIVE = 50  # live pages; one more is told to look again later
LINES = ("accepted", "delivered", "deferred", "failed")  # of the charts
FAILED = {"rejected", "undelivered"}
SPANS = {"hour": (3600.0, 60.0), "day": (86_400.0, 900.0)}  # seconds: whole, and step


class Card(Struct, frozen=True):
    """One app, as it is drawn."""

    app: AppState
    said: AppHealth  # whether its messages go out
    rate: float  # numbers accepted a second
    share: float  # of what it may send, 0 to 100
    oldest: float | None  # seconds
    recent: Counter[str]  # events of the last ten minutes
    overdue: int  # accepted messages without a report for too long


class Dashboard:
    """The first page, and the stream that keeps it fresh."""

    def __init__(self, guard: Auth, desk: Desk, stopping: asyncio.Event) -> None:
        self._guard = guard
        self._desk = desk
        self._stopping = stopping
        self._pace = Pace()
        self._streams = 0

    async def show(self, _: web.Request, session: Session) -> web.StreamResponse:
        """Show the page."""
        values = await self._picture()
        return self._guard.page("now.html", {"session": session, **values})

    async def stream(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Send the picture again and again, as server-sent events."""
        if self._streams >= MOST_LIVE:
            return protected(web.Response(status=503, text="too many live pages are open\n"))
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        protected_stream(response)
        await response.prepare(request)
        self._streams += 1
        try:
            # A browser that is gone is found by writing to it; one that is logged out, by time.
            while not self._stopping.is_set() and time.time() < session.until:
                await response.write(_event(await self._drawn(session)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await self._stopping.wait()
        except ConnectionResetError:
            pass
        finally:
            self._streams -= 1
        return response

    async def chart(self, request: web.Request, _: Session) -> web.StreamResponse:
        """Return the numbers of a chart."""
        span, step = SPANS.get(request.query.get("span", ""), SPANS["hour"])
        steps = await self._desk.series(request.query.get("app") or None, span, step)
        return protected(
            web.Response(
                body=msgspec.json.encode(_columns(steps, span, step, now=time.time())),
                content_type="application/json",
            )
        )

    async def _drawn(self, session: Session) -> str:
        return self._guard.fragment("_now.html", await self._picture(), session)

    async def _picture(self) -> dict[str, object]:
        try:
            now = await self._desk.now()
        except AwayError as away:
            return _values(database_unavailable(str(away)), [], [])
        rates = self._pace.rates(now)
        found = diagnose(now)
        cards = [
            _card(app, now, said, rates.get(app.name, 0.0))
            for app, said in zip(now.apps, found.apps, strict=True)
        ]
        return _values(found, cards, [app.name for app in now.apps])


def routes(guard: Auth, desk: Desk, stopping: asyncio.Event) -> list[web.AbstractRouteDef]:
    """Return the routes of the first page."""
    live = Dashboard(guard, desk, stopping)
    return [
        web.get(HOME, guard.inside(live.show)),
        web.get("/console/live", guard.inside(live.stream)),
        web.get("/console/chart", guard.inside(live.chart)),
    ]


def protected_stream(response: web.StreamResponse) -> None:
    """Keep proxies from holding a stream back."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["X-Content-Type-Options"] = "nosniff"


def _values(diagnosis: Diagnosis, cards: list[Card], apps: list[str]) -> dict[str, object]:
    return {"diagnosis": diagnosis, "cards": cards, "apps": apps}


def _card(app: AppState, now: StatusSnapshot, said: AppHealth, rate: float) -> Card:
    recent: Counter[str] = Counter()
    for each in now.recent:
        if each.app == app.name:
            recent[each.event] += each.count
    return Card(
        app,
        said,
        rate,
        min(100.0, 100 * rate / app.numbers_per_second) if app.numbers_per_second else 0.0,
        max(0.0, (now.at - app.oldest_due_at).total_seconds()) if app.oldest_due_at else None,
        recent,
        sum(each.overdue for each in now.awaiting if each.app == app.name),
    )


def _event(text: str) -> bytes:
    return ("".join(f"data: {line}\n" for line in text.splitlines()) + "\n").encode()


def _columns(steps: list[Step], span: float, step: float, *, now: float) -> dict[str, list[float]]:
    """Return one list for the times and one for each event, without gaps.

    The step that is not over is left out: it would look like a fall.
    """
    first = (now - span) // step * step
    times = [first + place * step for place in range(int(span // step))]
    counts: Counter[tuple[str, float]] = Counter()
    for at, event, count in steps:
        counts["failed" if event in FAILED else event, at.timestamp()] += count
    columns: dict[str, list[float]] = {"time": times}
    return columns | {event: [counts[event, at] for at in times] for event in LINES}


SHORTEST = 3.0  # seconds between the looks that are compared: a recorder writes in bursts
LONGEST = 15.0


class Pace:
    """Remembers looks for some seconds, and says how fast it went between them."""

    def __init__(self) -> None:
        self._looks: deque[StatusSnapshot] = deque()

    def rates(self, now: StatusSnapshot) -> dict[str, float]:
        """Return numbers accepted a second, by app, at *now*."""
        looks = self._looks
        if not looks or now.at > looks[-1].at:
            looks.append(now)
        while looks and (now.at - looks[0].at).total_seconds() > LONGEST:
            looks.popleft()
        before = looks[0]
        seconds = (now.at - before.at).total_seconds()
        if seconds < SHORTEST:
            return _over_minutes(now)
        known = _accepted(before)
        fresh: Counter[str] = Counter()
        for (app, minute), count in _accepted(now).items():
            fresh[app] += max(0, count - known[app, minute])
        return {app: count / seconds for app, count in fresh.items()}


def _accepted(now: StatusSnapshot) -> Counter[tuple[str, float]]:
    counts: Counter[tuple[str, float]] = Counter()
    for each in now.recent:
        if each.event == "accepted":
            counts[each.app, each.minute.timestamp()] += each.count
    return counts


def _over_minutes(now: StatusSnapshot) -> dict[str, float]:
    """Return the rates of this minute and the one before: all that one look can tell."""
    begin = now.at.replace(second=0, microsecond=0).timestamp() - 60
    seconds = now.at.timestamp() - begin
    counts: Counter[str] = Counter()
    for (app, minute), count in _accepted(now).items():
        if minute >= begin:
            counts[app] += count
    return {app: count / seconds for app, count in counts.items()}
