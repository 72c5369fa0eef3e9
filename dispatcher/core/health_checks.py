"""Health checks: find what stops or slows the messages of one app."""

import shlex
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

from msgspec import Struct

from dispatcher.core.codes import ALL_REFUSED, UNKNOWN_RESULTS, Kind, number_code, request_code
from dispatcher.core.format import duration, number, plural, sentences
from dispatcher.core.language import N_, _, in_english
from dispatcher.core.report_status import report_status
from dispatcher.core.status import AppState, EventCount, StatusSnapshot
from dispatcher.core.stored_texts import stored_text


class Level(IntEnum):
    """How severe a finding is."""

    FINE = 0
    NOTE = 1  # for information
    WARNING = 2  # a part fails, the rest is sent
    STOPPED = 3  # nothing is sent, for one app or for all


class Finding(Struct, frozen=True):
    """The result of a health check that failed."""

    level: Level
    app: str | None  # None: it concerns all apps
    title: str
    cause: str
    step: str  # what to do next
    act: str = ""  # the action that the console offers: pause or resume


WITHHELD = frozenset({"suppressed", "unsubscribed"})  # codes of messages not sent on purpose
SPIKE = "spike"  # the pause_code of an app with far more messages than usual
MAX_QUEUE_WAIT = timedelta(seconds=60)  # of a due message; a longer wait is reported
MAX_STALL = timedelta(seconds=120)  # of a due message while nothing is sent, decided or deferred
REJECTED_SHARE = 0.05  # of the messages of ten minutes; a larger share is reported
MAX_REPORT_SILENCE = timedelta(minutes=5)  # without a single report
MAX_REPORT_SILENCE_OF_FEW = timedelta(hours=1)  # of few messages: those phones may be off
MAX_GRANT_SECONDS = (
    15.0  # and as much more as 15 numbers take: as next_grant_at() in migrations/0002
)
# What only a claim or its request brings about. Maintenance expires messages too.
_SENDING_EVENTS = frozenset({"accepted", "rejected", "deferred", "returned", "unsure"})
# Of such events: from a report, and from what a worker left that is dead, or was not recorded.
_CODES_WITHOUT_SENDING = frozenset({"settled-by-report", "worker-lost", "record-lost"})
OVERDUE_SHARE = 0.2  # of the accepted messages; some phones are off for days, but not so many
MIN_SAMPLE_MESSAGES = 20  # messages; below, one bad row is a large share


def check_app(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Yield what stops or slows the messages of *app*, or their reports."""
    if not app.known:
        yield Finding(
            Level.STOPPED,
            app.name,
            _("{name}: no worker has ever had this app").format(name=app.name),
            _("Messages wait for it, and it is not configured."),
            _(
                "Set DISPATCHER_APPS__{name}__ENDPOINT, __APP_KEY and __APP_SECRET and start the"
                " worker again; or cancel them, and insert them with the right app."
            ).format(name=app.name.upper()),
        )
        return
    if app.paused_at is not None:
        yield _paused(app, app.paused_at)
    else:
        yield from _orphaned(app, now)
        yield from _unreachable(app, now)
        yield from _stalled(app, now)
        yield from _stopped_campaigns(app)
        yield from _clock(app, now)
        yield from _rate_limit(app, now)
    for country in app.paused_countries:
        row = request_code("E000630")
        yield Finding(
            Level.WARNING,
            app.name,
            _("{name}: nothing goes to {country}").format(name=app.name, country=country),
            row.meaning,
            row.advice,
        )
    if app.unsure_batches:
        yield Finding(
            Level.WARNING,
            app.name,
            _("{name}: {requests}").format(
                name=app.name, requests=plural(app.unsure_batches, "unsure request")
            ),
            (
                _(
                    "They may have been sent: the answer was lost, and no report that can be read"
                    " has come."
                )
                if not app.held_batches
                else _(
                    "They may have been sent: the answer was lost, and no report that can be read"
                    " has come. {count} of them are from before a restore, or before a time without"
                    " workers that looks like one. `on_unsure = resend` does not send those again."
                ).format(count=app.held_batches)
            ),
            _(
                "A report or a late answer settles them. If none comes, ask the provider, and"
                " settle each by hand: `dispatcher settle`, or Problems in the console."
            ),
        )
    yield from _answers(app, now)
    yield from _reports(app, now)


def _orphaned(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    alive = [worker for worker in now.workers if worker.alive]
    if alive and app.waiting and not any(app.name in worker.apps for worker in alive):
        yield Finding(
            Level.STOPPED,
            app.name,
            _("{name}: no running worker has this app").format(name=app.name),
            _(
                "Messages wait for it; it was configured once, and is not in any worker that"
                " runs now."
            ),
            _(
                "Start a worker with DISPATCHER_APPS__{name}__... set; or cancel them, and"
                " insert them with another app."
            ).format(name=app.name.upper()),
        )


def _unreachable(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find hosts that cannot reach the provider; others may reach it."""
    having = [worker for worker in now.workers if worker.alive and app.name in worker.apps]
    cut_off = [worker for worker in having if app.name in worker.unreachable_apps]
    if cut_off:
        hosts = sorted({worker.host for worker in cut_off})
        others = len(cut_off) < len(having)
        yield Finding(
            Level.WARNING if others else Level.STOPPED,
            app.name,
            (
                _("{name}: host {hosts} cannot send")
                if len(hosts) == 1
                else _("{name}: hosts {hosts} cannot send")
            ).format(name=app.name, hosts=_(", ").join(hosts)),
            sentences(
                _(
                    "The provider cannot be reached from there, its answers are lost on the way"
                    " there, or the clock there is wrong. The host claims nothing, and probes"
                    " until it can send again."
                ),
                _("Other workers send meanwhile.") if others else "",
            ),
            _(
                "Run `dispatcher check` there: it says which of network, DNS, certificate or"
                " clock it is. The worker goes on by itself."
            ),
        )


def _paused(app: AppState, since: datetime) -> Finding:
    if app.pause_code == SPIKE:
        return Finding(
            Level.STOPPED,
            app.name,
            _("{app} is paused: far more messages than usual").format(app=app.name),
            stored_text(app.pause_reason or ""),
            _(
                "See who sends them: `dispatcher campaign list`. If they are meant, `dispatcher"
                " resume {app}` goes on, and the app is not paused so again for a day."
            ).format(app=app.name),
            act="resume",
        )
    if app.paused_by == "operator":
        return Finding(
            Level.STOPPED,
            app.name,
            _("{name} is paused by an operator").format(name=app.name),
            stored_text(app.pause_reason or "") or _("No reason was given."),
            _("Resume it when the reason is gone. It waits since {since} UTC.").format(
                since=f"{since:%Y-%m-%d %H:%M}"
            ),
            act="resume",
        )
    if app.paused_by == "report":
        status = report_status(app.pause_code or "")
        return Finding(
            Level.STOPPED,
            app.name,
            _("{name} is paused: the platform refuses all it has accepted").format(name=app.name),
            sentences(status.status + _(": ") + status.meaning, _("Its reports say so.")),
            sentences(
                status.advice,
                _("Then resume it, and `dispatcher requeue --code {status}`.").format(
                    status=status.status
                )
                if status.resendable
                else _("Then resume it."),
            ),
            act="resume",
        )
    row = request_code(app.pause_code or "")
    with in_english():  # as it is stored
        stored = request_code(app.pause_code or "")
    reason = (app.pause_reason or stored.meaning).removesuffix(stored.advice).strip()
    cause = (app.pause_code + _(": ") if app.pause_code else "") + stored_text(reason)
    return Finding(
        Level.STOPPED,
        app.name,
        _("{name} is paused: {why}").format(
            name=app.name, why=_(_CODES.get(row.code) or _kind(row.kind))
        ),
        cause,
        sentences(
            row.advice.replace("<NAME>", app.name.upper()),
            _("Nothing is lost meanwhile. It waits since {since} UTC.").format(
                since=f"{since:%Y-%m-%d %H:%M}"
            ),
        ),
        act="resume",
    )


_CODES = {
    "daily-limit": N_("its daily limit is reached"),
    UNKNOWN_RESULTS: N_("the results of its requests are unknown"),
    ALL_REFUSED: N_("the provider refuses every message"),
}
_KINDS = {
    Kind.CONFIGURATION: N_("the provider refuses our settings"),
    Kind.CLOCK: N_("our clock is wrong"),
    Kind.ACCOUNT: N_("the provider refuses the account or its key"),
    Kind.ADDRESS: N_("our address is not on the white list"),
    Kind.QUOTA: N_("the quota is spent"),
    Kind.NOT_SENT: N_("the provider cannot be reached"),
}


def _kind(kind: Kind) -> str:
    return _KINDS.get(kind, N_("the provider refuses everything"))


def _rate_limit(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    setting, rate = app.numbers_per_second, app.rate
    slowed = _slowed(app)
    if slowed:
        row = number_code("E200015")
        yield Finding(
            Level.WARNING,
            app.name,
            _("{name} is slowed down: {rate} of {setting} numbers a second").format(
                name=app.name, rate=f"{rate or 0:.0f}", setting=f"{setting:.0f}"
            ),
            f"E200015: {row.meaning}",
            row.advice,
        )
    late = now.at - app.oldest_due_at if app.oldest_due_at else timedelta()
    if late > MAX_QUEUE_WAIT and not slowed:
        yield Finding(
            Level.NOTE,
            app.name,
            _("{name}: the oldest due message has waited {time}").format(
                name=app.name, time=duration(late.total_seconds())
            ),
            _("More messages are due than are sent.")
            if rate is None
            else _("More messages are due than are sent at {rate} numbers a second.").format(
                rate=f"{rate:.0f}"
            ),
            _(
                "Wait for it, or raise __NUMBERS_PER_SECOND if the provider allows more, or"
                " start another worker if this one is busy."
            ),
        )


def _stalled(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find an app of which messages are due, and nothing at all is sent."""
    late = now.at - app.oldest_due_at if app.oldest_due_at else timedelta()
    patience = max(MAX_STALL, timedelta(seconds=2 / max(app.rate or 1.0, 0.001)))
    lately = any(
        each.app == app.name and is_of_sending(each) and now.at - each.minute < patience
        for each in now.recent
    )
    served = any(worker.alive and app.name in worker.apps for worker in now.workers)
    if served and late > patience and not app.sending and not lately:
        yield Finding(
            Level.STOPPED,
            app.name,
            _("{name}: nothing goes out, and a message has been due for {time}").format(
                name=app.name, time=duration(late.total_seconds())
            ),
            _("A worker runs and claims nothing."),
            _(
                "See its log. The database may refuse it connections: `dispatcher check` counts"
                " them."
            ),
        )


def is_of_sending(each: EventCount) -> bool:
    """Tell whether an event shows that messages are claimed: reports come in without it."""
    return each.event in _SENDING_EVENTS and each.code not in _CODES_WITHOUT_SENDING


def _stopped_campaigns(app: AppState) -> Iterator[Finding]:
    """Name the campaigns that are paused or moved while messages of theirs are due."""
    for each in app.stopped_campaigns:
        if each.state == "paused":
            yield Finding(
                Level.NOTE,
                app.name,
                _("{app}: the campaign {campaign} is paused, and messages of it are due").format(
                    app=app.name, campaign=each.name
                ),
                stored_text(each.reason) or _("No reason was given."),
                _(
                    "`dispatcher campaign resume {campaign}` sends them, and `dispatcher campaign"
                    " cancel {campaign}` gives them up; so does its page in the console, under"
                    " Campaigns."
                ).format(campaign=shlex.quote(each.name)),
            )
        elif each.state == "moving":
            yield Finding(
                Level.NOTE,
                app.name,
                _("{app}: the campaign {campaign} is being moved").format(
                    app=app.name, campaign=each.name
                ),
                _("Nothing of it is claimed until all of its messages have moved."),
                _(
                    "A worker moves them in steps, and sends them when they are due. If it lasts"
                    " for minutes, see its log."
                ),
            )


def _clock(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find a send time that only a clock ahead of this one can have written."""
    ahead = (app.next_at - now.at).total_seconds() if app.next_at else 0.0
    if ahead > MAX_GRANT_SECONDS + MAX_GRANT_SECONDS / max(app.rate or 1.0, 0.001):
        yield Finding(
            Level.WARNING,
            app.name,
            _("{name}: its next send time lies {time} ahead").format(
                name=app.name, time=duration(ahead)
            ),
            _(
                "The clock of the database was ahead, or is behind now. The time counts for"
                " nothing: the next message goes out at once."
            ),
            _(
                "Check the clocks of the database's hosts (`timedatectl`): due times, expiry and"
                " leases follow them."
            ),
        )


def _slowed(app: AppState) -> bool:
    setting, rate = app.numbers_per_second, app.rate
    return setting is not None and rate is not None and rate < setting * 0.95


def _answers(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find codes that stop a large share of the messages, lately or within this hour."""
    passed_over = {("deferred", "never-sent"), *(("rejected", code) for code in WITHHELD)}
    if _slowed(app):
        passed_over.add(("deferred", "E200015"))  # reported with the rate limit
    failed: Counter[tuple[str, str]] = Counter()
    good = 0
    for each in now.recent:
        if each.app != app.name:
            continue
        if each.event == "accepted" and is_of_sending(each):
            good += each.count
        elif each.event in _FAILED and (each.event, each.code) not in passed_over:
            failed[each.event, each.code] += each.count
    whole = good + failed.total()
    reported = set()
    for (event, code), count in failed.most_common():
        # Of few messages, one bad row is a large share: then more than half must fail.
        if count < whole * REJECTED_SHARE if whole >= MIN_SAMPLE_MESSAGES else 2 * count <= whole:
            continue
        reported.add(code)
        yield _failing(app, event, code, count=count, good=good)
    least = _hourly(app, now) * REJECTED_SHARE
    for total in now.totals:
        late = total.event in ("rejected", "expired") and total.app == app.name and total.hour
        late = late and total.code not in WITHHELD
        if late and total.code not in reported and total.hour >= least:
            row = number_code(total.code)
            yield Finding(
                Level.NOTE,
                app.name,
                _("{name}: {messages} {event} in the last hour").format(
                    name=app.name, messages=plural(total.hour, "message"), event=_(total.event)
                ),
                total.code + _(": ") + row.meaning,
                row.advice.replace("<NAME>", app.name.upper()),
            )


_FAILED = frozenset({"rejected", "expired", "deferred"})


def _failing(app: AppState, event: str, code: str, *, count: int, good: int) -> Finding:
    row = number_code(code)
    if event == "deferred" and (good > count or row.level == "ours"):
        level = Level.NOTE  # they are sent later, as intended
    elif good or count < MIN_SAMPLE_MESSAGES:
        level = Level.WARNING
    else:
        level = Level.STOPPED
    if good:
        title = _("{name}: {share} of the last ten minutes' messages were {event}").format(
            name=app.name, share=f"{count / (count + good):.0%}", event=_(event)
        )
    else:
        title = _("{name}: {messages} {event} in ten minutes, none accepted").format(
            name=app.name, messages=plural(count, "message"), event=_(event)
        )
    advice = row.advice.replace("<NAME>", app.name.upper())
    return Finding(level, app.name, title, code + _(": ") + row.meaning, advice)


def _hourly(app: AppState, now: StatusSnapshot) -> int:
    ended = ("accepted", "rejected", "expired")
    return sum(
        each.hour
        for each in now.totals
        if each.app == app.name and each.event in ended and each.code not in WITHHELD
    )


def _reports(app: AppState, now: StatusSnapshot) -> Iterator[Finding]:
    """Find missing status reports: the only sign of a wrong callback address."""
    step = _(
        "See that DISPATCHER_CALLBACK_URL reaches this service from outside: `dispatcher check`"
        " posts a test report to it. A report that is not received is lost: the provider never"
        " repeats it."
    )
    for each in now.awaiting:
        if each.app != app.name:
            continue
        many = each.accepted >= MIN_SAMPLE_MESSAGES
        limit = MAX_REPORT_SILENCE if many else MAX_REPORT_SILENCE_OF_FEW
        silent = timedelta(seconds=each.oldest_seconds or 0.0) > limit
        if each.waiting == each.accepted and silent:
            yield Finding(
                Level.WARNING,
                app.name,
                _("{name}: not a single status report comes in").format(name=app.name),
                _(
                    "{messages} accepted, the first {time} ago, and nothing was reported of any."
                ).format(
                    messages=plural(each.accepted, "message"),
                    time=duration(each.oldest_seconds or 0.0),
                ),
                step,
            )
        elif each.since_last >= MIN_SAMPLE_MESSAGES:
            yield Finding(
                Level.WARNING,
                app.name,
                _("{name}: status reports are over an hour late, or come in no more").format(
                    name=app.name
                ),
                _(
                    "{messages} accepted more than an hour ago, after the last one with a report,"
                    " and nothing was reported of any."
                ).format(messages=plural(each.since_last, "message")),
                step,
            )
        elif each.accepted >= MIN_SAMPLE_MESSAGES and each.overdue >= each.accepted * OVERDUE_SHARE:
            yield Finding(
                Level.WARNING,
                app.name,
                _("{name}: {overdue} status reports are overdue").format(
                    name=app.name, overdue=number(each.overdue)
                ),
                _(
                    "Of {accepted} accepted messages, {share} have no report after more than an"
                    " hour."
                ).format(
                    accepted=number(each.accepted), share=f"{each.overdue / each.accepted:.0%}"
                ),
                step,
            )
