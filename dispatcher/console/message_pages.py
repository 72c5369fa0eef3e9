"""The list of messages with its filters, and actions on all messages that a filter chooses.

Filters are in the address, so that Back, reload and a link for a colleague work. A number is not:
proxies log addresses. In its place stands the id of a message to it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from urllib.parse import parse_qsl, urlencode

from aiohttp import hdrs, web
from msgspec import Struct
from msgspec.structs import asdict, replace

from dispatcher.console.auth import Auth, Session, is_secure, redirect, referring_page
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import (
    Invalid,
    message_id,
    plain_number,
    read_form,
    read_time,
    written_time,
)
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.format import number as in_digits
from dispatcher.core.format import plural
from dispatcher.core.language import N_, _, in_english
from dispatcher.core.message import as_stored, to_e164
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.roles import Role
from dispatcher.core.status import OTHER_EVENTS, EventTotal
from dispatcher.db.message_actions import ActionCount, ActionName, MessageAction
from dispatcher.db.message_lists import DEEP_PAGE_SECONDS, PAGE_SECONDS, STATES, MessageFilter

MESSAGES_PATH = "/console/messages"
MESSAGE_ACTION_PATH = "/console/message-action"
COLUMNS = (
    "state", "recipient", "app", "template_id", "campaign", "reference", "code", "reason",
    "segments", "provider_id", "queued_at", "accepted_at", "finished_at",
)  # fmt: skip
USUAL_COLUMNS = ("state", "recipient", "app", "reference", "code", "queued_at")
COLUMNS_COOKIE = "dispatcher_columns"
COLUMNS_COOKIE_SECONDS = 365 * 24 * 3600
MAX_FIELD_LENGTH = 200  # characters; references are the longest
EXACT_FIELDS = ("code", "template", "campaign", "reference")  # `May` and `May ` are two
MAX_PREFIX_LENGTH = 6  # of a number in its canonical form: as much as a masked one shows
MAX_LAST_DIGITS = 4  # as many as a masked number shows
SUGGESTED_CODES = 50
RETRY_SECONDS = 2.0  # between tries of a step while the database is unavailable


class ActionWords(Struct, frozen=True):
    """What an action on many messages is called."""

    title: str  # with the messages, also of the button that does it
    all: str  # the button beside a list
    effect: str
    done: str  # what it did, with the messages
    states: tuple[str, ...]  # of a list that offers it; a list of any state offers it too
    grave: bool = False  # it may send something twice, or prevent it from being sent
    role: Role = "act"  # that it takes


ACTIONS: dict[ActionName, ActionWords] = {
    "requeue": ActionWords(
        N_("Requeue {messages}"),
        N_("Requeue them …"),
        N_(
            "What was rejected, has expired, or was refused by the platform is sent again, as it"
            " was inserted. So is what a fail-over has lost, which may have been sent. Do it when"
            " the cause is fixed."
        ),
        N_("{changed} of {messages} wait again"),
        ("rejected", "expired", "undelivered", "lost"),
    ),
    "cancel": ActionWords(
        N_("Cancel {messages}"),
        N_("Cancel them …"),
        N_("What still waits is never sent. What is on its way or finished stays as it is."),
        N_("{changed} of {messages} cancelled"),
        ("queued",),
        grave=True,
    ),
    "settle-sent": ActionWords(
        N_("Settle as sent: {messages}"),
        N_("Settle as sent: …"),
        N_(
            "They count as accepted, and are not sent again. Reports still say whether they were"
            " delivered. Requests are settled as a whole."
        ),
        N_("{changed} of {messages} taken as sent"),
        ("unsure",),
    ),
    "settle-resend": ActionWords(
        N_("Send again: {messages}"),
        N_("Send again: …"),
        N_(
            "They go back into the queue. Recipients who have the message already get it twice: do"
            " this only if the provider says that it never had the requests."
        ),
        N_("{changed} of {messages} wait again"),
        ("unsure",),
        grave=True,
    ),
    "suppress": ActionWords(
        N_("Suppress the numbers of {messages}"),
        N_("Suppress the numbers of these …"),
        N_(
            "Nothing is sent to their numbers any more, by any app, until they are taken off the"
            " list."
        ),
        N_("{changed} new on the list"),
        STATES,
        grave=True,
        role="rules",  # as the list of numbers itself
    ),
}


def read_filter(fields: Mapping[str, str]) -> MessageFilter | Invalid:
    """Return the filter that an address or a form describes; blank fields do not count.

    A name counts if it is not empty: a campaign can be called by a blank, and without it the filter
    would be that of all messages.
    """
    given = {
        name: text[:MAX_FIELD_LENGTH]
        for name, value in fields.items()
        if name in MessageFilter.__struct_fields__
        and (text := value if name in EXACT_FIELDS else value.strip())
    }
    values: dict[str, object] = dict(given)
    if given.get("state") not in (None, *STATES):
        return Invalid(_("There is no such state."))
    if (same := given.get("same_number_as")) is not None:
        values["same_number_as"] = message_id(same)
        if values["same_number_as"] is None:
            return Invalid(_("A number in an address is the id of a message to it."))
    if (prefix := given.get("prefix")) is not None:
        values["prefix"] = plain_number(prefix)
    if (invalid := _check_parts_of_number(given)) is not None:
        return invalid
    for name in ("since", "until"):
        if name in given:
            moment = read_time(given[name])
            if isinstance(moment, Invalid):
                return moment
            values[name] = moment
    return MessageFilter(**values)  # type: ignore[arg-type]


def _check_parts_of_number(given: Mapping[str, str]) -> Invalid | None:
    """Return why a filter asks for more of a number than a masked one shows."""
    if (prefix := given.get("prefix")) is not None:
        prefix = plain_number(prefix)
        digits = prefix.removeprefix("+")
        if not (digits.isascii() and digits.isdigit()) or len(to_e164(prefix)) > MAX_PREFIX_LENGTH:
            return Invalid(
                _("A number begins as +86131 or 131 here, not longer; search for the whole one.")
            )
        if "same_number_as" in given:
            return Invalid(_("Give a number's beginning, or a message to it, not both."))
    if (last := given.get("last_digits")) is not None and (
        not (last.isascii() and last.isdigit()) or len(last) > MAX_LAST_DIGITS
    ):
        return Invalid(_("A number ends in at most 4 digits here; search for the whole one."))
    return None


def filter_address(wanted: MessageFilter, **more: str) -> str:
    """Return the query of the list of *wanted*: ``state=rejected&app=bank``."""
    fields = {name: value for name, value in asdict(wanted).items() if value is not None}
    for name in ("since", "until"):
        if name in fields:
            fields[name] = written_time(fields[name])
    return urlencode(fields | more)


def filter_words(wanted: MessageFilter) -> str:
    """Return *wanted* in words, for confirmations and the audit; it has no number."""
    parts = []
    for name, value in asdict(wanted).items():
        if value is None:
            continue
        words = _(value) if name == "state" else str(value)
        if isinstance(value, datetime):
            words = f"{value.astimezone(UTC):%Y-%m-%d %H:%M}{_seconds(value)} UTC"
        parts.append(_(_FILTER_WORDS[name]).format(value=words))
    return _(", ").join(parts) or _("all messages")


def _seconds(moment: datetime) -> str:
    return f":{moment:%S}" if moment.second or moment.microsecond else ""


_FILTER_WORDS = {
    "state": N_("state {value}"),
    "code": N_("code {value}"),
    "app": N_("app {value}"),
    "campaign": N_("campaign {value}"),
    "template": N_("template {value}"),
    "reference": N_("reference {value}"),
    "same_number_as": N_("to the number of message {value}"),
    "prefix": N_("number begins with {value}"),
    "last_digits": N_("number ends in {value}"),
    "since": N_("inserted since {value}"),
    "until": N_("inserted before {value}"),
}


def chosen_columns(cookie: str) -> list[str]:
    """Return the columns that a cookie names, in their order; the usual ones if it names none."""
    wanted = set(cookie.split("."))
    return [name for name in COLUMNS if name in wanted] or [*USUAL_COLUMNS]


class CampaignTotal(Struct, frozen=True):
    """How many messages of a campaign fit a filter."""

    messages: int
    counted_at: datetime


class MessagePages:
    """The list of messages, and actions on many of them."""

    def __init__(self, auth: Auth, backend: ConsoleBackend, stopping: asyncio.Event) -> None:
        self._auth = auth
        self._backend = backend
        self._stopping = stopping
        self._running: dict[int, asyncio.Task[None]] = {}

    async def show(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show a page of the list."""
        wanted = read_filter(request.query)
        if isinstance(wanted, Invalid):
            return self._invalid(session, wanted)
        position = request.query.get("position")
        deep = "deep" in request.query
        if position is not None and not _is_position(position):
            return self._invalid(session, Invalid(_("This page of the list does not exist.")))
        seconds = DEEP_PAGE_SECONDS if deep else PAGE_SECONDS
        page = await self._backend.message_page(wanted, position, seconds)
        counted = await self._backend.message_count(wanted)
        snapshot = await self._backend.snapshot()
        offered = [
            (name, words)
            for name, words in ACTIONS.items()
            if session.may(words.role) and (wanted.state is None or wanted.state in words.states)
        ]
        following = page.next_position and filter_address(
            wanted, position=page.next_position, **({} if page.complete else {"deep": "yes"})
        )
        values = {
            "session": session,
            "wanted": wanted,
            "in_words": filter_words(wanted),
            "fields": asdict(wanted),
            "states": STATES,
            "apps": [app.name for app in snapshot.apps],
            "codes": _frequent_codes(snapshot.totals),
            "page": page,
            "columns": chosen_columns(request.cookies.get(COLUMNS_COOKIE, "")),
            "following": following,
            "first": position is None,
            "counted": counted,
            "in_campaign": await self._in_campaign(wanted),
            "actions": offered,
        }
        return self._auth.page("messages.html", values)

    async def _in_campaign(self, wanted: MessageFilter) -> CampaignTotal | None:
        """Return how many messages fit, if the last count of a campaign says it."""
        known = MessageFilter(campaign=wanted.campaign, state=wanted.state, code=wanted.code)
        if wanted.campaign is None or wanted != known:
            return None
        campaign = await self._backend.campaign(wanted.campaign)
        if campaign is None or campaign.count is None or campaign.counted_at is None:
            return None
        fitting = (
            each.messages
            for each in campaign.count.codes
            if wanted.state in (None, each.state) and wanted.code in (None, each.code)
        )
        return CampaignTotal(sum(fitting), campaign.counted_at)

    async def choose_columns(self, request: web.Request, _session: Session) -> web.StreamResponse:
        """Keep the columns of the list in a cookie, and lead back to the list."""
        form = await read_form(request) or {}
        chosen = [name for name in COLUMNS if name in form]
        response = redirect(referring_page(request))
        response.set_cookie(
            COLUMNS_COOKIE,
            ".".join(chosen),
            max_age=COLUMNS_COOKIE_SECONDS,
            path=MESSAGES_PATH,
            httponly=True,
            samesite="Strict",
            secure=is_secure(request),
        )
        return response

    async def find_number(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Lead from a number in a form to the address of the list of its messages."""
        form = await read_form(request) or {}
        wanted = read_filter(form)
        if isinstance(wanted, Invalid):
            return self._invalid(session, wanted)
        text = form.get("number", "").strip()
        read = read_number(text, other_mainland=True)
        number = read.e164 if isinstance(read, ReadNumber) else as_stored(text)
        latest = await self._backend.latest_message_to(number) if number else None
        if latest is not None:
            wanted = replace(wanted, prefix=None, same_number_as=latest)
            return redirect(f"{MESSAGES_PATH}?{filter_address(wanted)}")
        what = _("There is no message to this number.")
        if not isinstance(read, ReadNumber):
            what = _("This is not a number: {why}.").format(why=read.reason)
        values = {
            "session": session,
            "what": what,
            "form": "number",
            "fields": asdict(wanted),
            "number": text,
            "back": f"{MESSAGES_PATH}?{filter_address(wanted)}",
        }
        return self._auth.page("again.html", values, status=400)

    async def preview(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Choose the messages of an action, and lead to its confirmation."""
        form = await read_form(request) or {}
        wanted = read_filter(form)
        action = next((name for name in ACTIONS if name == form.get("action")), None)
        if isinstance(wanted, Invalid) or action is None:
            reason = (
                wanted if isinstance(wanted, Invalid) else Invalid(_("There is no such action."))
            )
            return self._invalid(session, reason)
        if not session.may(ACTIONS[action].role):
            return self._auth.forbidden(session)
        with in_english():  # the audit log is for all
            words = (filter_words(wanted), filter_address(wanted))
        action_id = await self._backend.preview(session.actor, action, wanted, words)
        return redirect(f"{MESSAGE_ACTION_PATH}/{action_id}")

    async def action(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show what an action will do, how far it is, or what it did; a form starts it."""
        wanted = message_id(request.match_info["id"])
        action = await self._backend.message_action(wanted) if wanted is not None else None
        if action is None:
            return self._invalid(session, Invalid(_("There is no such action.")), status=404)
        words = ACTIONS[action.action]
        if request.method == hdrs.METH_POST:
            if not session.may(words.role):
                return self._auth.forbidden(session)
            await self._backend.start_message_action(session.actor, action.id)
            self._run(action.id)
            return redirect(f"{MESSAGE_ACTION_PATH}/{action.id}")
        if action.started_at and not action.finished_at:
            self._run(action.id)  # this process may have started after it
        values = {
            "session": session,
            "action": action,
            "words": words,
            "title": _(words.title).format(messages=plural(action.messages, "message")),
            "in_words": _in_words(action),
            "result": _result(action, words),
            "counts": [each for each in action.counts if each.left_alone is None],
            "left": _left_alone(action.counts),
            "found": sum(each.messages for each in action.counts),
        }
        return self._auth.page("message_action.html", values)

    def _run(self, action_id: int) -> None:
        if action_id not in self._running:
            task = asyncio.create_task(self._steps(action_id))
            self._running[action_id] = task
            task.add_done_callback(lambda _: self._running.pop(action_id, None))

    async def _steps(self, action_id: int) -> None:
        """Do the steps of an action until the last; it outlives a database that restarts."""
        more = True
        while more and not self._stopping.is_set():
            try:
                more = await self._backend.message_action_step(action_id)
            except DatabaseUnavailable:
                await asyncio.sleep(RETRY_SECONDS)

    def _invalid(self, session: Session, invalid: Invalid, *, status: int = 400) -> web.Response:
        values = {"session": session, "what": invalid.reason}
        return self._auth.page("missing.html", values, status=status)


def _frequent_codes(totals: Iterable[EventTotal]) -> list[str]:
    """Return the codes of messages of the last day, the most frequent first."""
    day: Counter[str] = Counter()
    for total in totals:
        if total.code and total.event not in OTHER_EVENTS:
            day[total.code] += total.day
    return [code for code, count in day.most_common(SUGGESTED_CODES) if count]


def _is_position(text: str) -> bool:
    place, _, skip = text.partition(".")
    return message_id(skip) is not None and place.isascii() and place.isdigit() and len(place) < 20  # noqa: PLR2004 - a bigint has 19 digits


def _result(action: MessageAction, words: ActionWords) -> str:
    """Return what an action did so far, in words."""
    if action.action == "suppress":
        return _(words.done).format(changed=plural(action.changed, "number"))
    return _(words.done).format(
        changed=in_digits(action.changed), messages=in_digits(action.messages)
    )


def _in_words(action: MessageAction) -> str:
    """Return the filter of an action in the reader's words; the stored ones are English."""
    wanted = read_filter(dict(parse_qsl(action.address)))
    return action.filter if isinstance(wanted, Invalid) else filter_words(wanted)


def _left_alone(counts: list[ActionCount]) -> list[tuple[str, list[ActionCount]]]:
    """Return the counts of what is left alone, by the reason."""
    left = sorted(
        (each for each in counts if each.left_alone is not None),
        key=lambda each: each.left_alone or "",
    )
    return [(why or "", [*of]) for why, of in groupby(left, key=lambda each: each.left_alone)]
