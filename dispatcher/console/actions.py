"""What operators can do: confirmations and results of actions, the rules and the audit log."""

import time
from urllib.parse import urlencode

from aiohttp import web
from msgspec.structs import asdict

from dispatcher.console.auth import HOME_PATH, Auth, Session, redirect
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.campaign_actions import CAMPAIGN_ACTIONS, MOVE_FIELDS
from dispatcher.console.campaign_pages import campaign_address
from dispatcher.console.confirmation import (
    Confirmation,
    Known,
    OperatorAction,
    reason_of,
    unknown_app,
)
from dispatcher.console.forms import (
    Fields,
    Invalid,
    message_ids,
    read_form,
)
from dispatcher.console.rule_actions import RULE_ACTIONS, RULE_FIELDS
from dispatcher.core.format import plural
from dispatcher.core.language import _
from dispatcher.core.message import as_stored
from dispatcher.core.number import ReadNumber, read_number
from dispatcher.core.rules import Limits, Suppressed, describe_limits
from dispatcher.core.status import AppState
from dispatcher.core.templates import MAX_ID_CHARACTERS, Template

ACTIONS_PATH = "/console/actions"
DONE_PATH = "/console/done"
MAX_LENGTHS = {"app": 63, "campaign": 100, "token": 64, "template_id": MAX_ID_CHARACTERS}
LISTED_ROWS = 20  # of each list, until all of them are asked for
MAX_SEARCH_LENGTH = 100  # characters
EXACT_FIELDS = ("campaign",)  # `May` and `May ` are two
ACTION_FIELDS = ("app", "campaign", "ids", "token", "how", "reason", *MOVE_FIELDS, *RULE_FIELDS)


def check_action(action: str, fields: Fields, known: Known) -> Confirmation | Invalid:
    """Return what *action* will do with *fields*, or why it cannot be done."""
    found = _ACTIONS.get(action)
    if found is None:
        return Invalid(_("There is no such action."))
    checked = found.check(fields, known)
    for name, most in MAX_LENGTHS.items():  # a title holds it, and an address the title
        if isinstance(checked, Confirmation) and len(fields.get(name, "")) > most:
            return Invalid(
                _("{name} has more than {most} characters.").format(name=name, most=most)
            )
    return checked


def _pause(fields: Fields, known: Known) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid(_("Name the app."))
    if app not in known.apps:  # a misspelt one would stop nothing
        return unknown_app(app, known)
    return Confirmation(
        _("Pause {app}").format(app=app),
        _(
            "Requests on their way are finished. Everything else waits until an operator resumes"
            " it."
        ),
        _("Pause {app}").format(app=app),
        HOME_PATH,
        asks_reason=True,
    )


def _resume(fields: Fields, known: Known) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid(_("Name the app."))
    if app not in known.apps:
        return unknown_app(app, known)
    return Confirmation(
        _("Resume {app}").format(app=app),
        _(
            "Its messages go out at once. If the cause is not fixed, the next answer of the"
            " provider pauses it again; nothing is lost by that."
        ),
        _("Resume {app}").format(app=app),
        HOME_PATH,
    )


def _cancel(fields: Fields, _known: Known) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        _("Cancel {messages}"),
        _("What still waits is never sent. What is on its way or finished stays as it is."),
        grave=True,
    )


def _requeue(fields: Fields, _known: Known) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        _("Requeue {messages}"),
        _(
            "What was rejected or has expired is sent again, as it was inserted. So is what a"
            " fail-over has lost, which may have been sent. Do it when the cause is fixed."
        ),
    )


def _of_messages(
    fields: Fields, title: str, effect: str, *, grave: bool = False
) -> Confirmation | Invalid:
    ids = message_ids(fields.get("ids", ""))
    if ids is None:
        return Invalid(_("Give ids of messages, 1,000 at most, separated by blanks or commas."))
    messages, back = plural(len(ids), "message"), ACTIONS_PATH
    if len(ids) == 1:
        messages, back = _("message {id}").format(id=ids[0]), f"/console/message/{ids[0]}"
    title = title.format(messages=messages)
    return Confirmation(title, effect, title, back, grave=grave)


def _settle(fields: Fields, _known: Known) -> Confirmation | Invalid:
    token = fields.get("token")
    if not token and fields.get("ids"):
        return _settle_lost(fields)
    if not token:
        return Invalid(_("Name the request."))
    back = f"/console/batch/{token}"
    short = f"{token[:12]}…"  # as lists of requests have it
    match fields.get("how"):
        case "sent":
            return Confirmation(
                _("Settle the request {token} as sent").format(token=short),
                _(
                    "Its messages count as accepted, and are not sent again. Reports still say"
                    " whether they were delivered."
                ),
                _("They were sent"),
                back,
            )
        case "resend":
            return Confirmation(
                _("Send the messages of the request {token} again").format(token=short),
                _(
                    "They go back into the queue. Recipients who have the message already get it"
                    " twice: do this only if the provider says that it never had the request."
                ),
                _("Send them again"),
                back,
                grave=True,
            )
        case _:
            return Invalid(_("Say how: as sent, or to be sent again."))


def _settle_lost(fields: Fields) -> Confirmation | Invalid:
    match fields.get("how"):
        case "sent":
            return _of_messages(
                fields,
                _("Settle {messages} as sent"),
                _(
                    "What a fail-over has lost counts as accepted, and is not sent again. Reports"
                    " still say whether it was delivered. Anything else stays as it is."
                ),
            )
        case "resend":
            return _of_messages(
                fields,
                _("Send {messages} again"),
                _(
                    "What a fail-over has lost goes back into the queue. Recipients who have the"
                    " message already get it twice: do this only if the provider says that it"
                    " never had it. Anything else stays as it is."
                ),
                grave=True,
            )
        case _:
            return Invalid(_("Say how: as sent, or to be sent again."))


def _ids(fields: Fields) -> list[int]:
    return message_ids(fields.get("ids", "")) or []


_ACTIONS: dict[str, OperatorAction] = {
    "pause": OperatorAction(_pause, lambda b, a, f: b.pause(a, f["app"], reason_of(f))),
    "resume": OperatorAction(_resume, lambda b, a, f: b.resume(a, f["app"])),
    "cancel": OperatorAction(_cancel, lambda b, a, f: b.cancel(a, _ids(f))),
    "requeue": OperatorAction(_requeue, lambda b, a, f: b.requeue(a, _ids(f))),
    "settle": OperatorAction(
        _settle,
        lambda b, a, f: (
            b.settle(a, f["token"], f["how"])
            if f.get("token")
            else b.settle_lost(a, _ids(f), f["how"])
        ),
    ),
    **CAMPAIGN_ACTIONS,
    **RULE_ACTIONS,
}


def _paused_first(apps: list[AppState]) -> list[AppState]:
    return sorted(apps, key=lambda app: app.paused_at is None)


def _has(rule: object, text: str) -> bool:
    """Return whether a rule of a list has *text* in its name, or in a text or note."""
    match rule:
        case (Template(template_id), str(note), str(shown)):
            words = f"{template_id} {note} {shown}"
        case AppState(name):
            words = name
        case (str(name), _):  # limits and prices, by app and country
            words = name
        case _:
            return True
    return text.lower() in words.lower()


_KEPT_FORMS = ("cancel", "requeue", "campaign-move")  # which a refusal shows again
_YES_OR_NO = {True: "yes", False: "no", None: ""}


class ActionPages:
    """The pages Actions and Rules, and the confirmation of each action."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def overview(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the possible actions and the audit log."""
        apps = _paused_first((await self._backend.snapshot()).apps)
        audit = await self._backend.audit()
        rows = None if "all" in request.query else LISTED_ROWS
        values = {"session": session, "apps": apps, "rows": rows, "audit": audit}
        return self._auth.page("actions.html", values)

    async def rules(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show the rules; an address may name the app or the template whose form is filled."""
        rules = await self._backend.rules()
        draft: Fields = {}
        if (app := request.query.get("app")) is not None:
            limits = rules.limits.get(app, Limits())
            draft |= {"app": app} | {
                name: value.strftime("%H:%M") if name.startswith("quiet") else str(value)
                for name, value in asdict(limits).items()
                if value is not None
            }
        if (template_id := request.query.get("template")) is not None:
            for template, note in rules.templates:
                if template.template_id == template_id:
                    text = rules.texts.get(template_id, "")
                    kinds = "" if text else ",".join(template.kinds)
                    draft |= {"template_id": template_id, "text": text, "kinds": kinds}
                    draft |= {"note": note, "promotional": _YES_OR_NO[template.promotional]}
        text = request.query.get("q", "").strip()[:MAX_SEARCH_LENGTH]
        rows = None if "all" in request.query else LISTED_ROWS
        return await self._rules(session, draft, text=text, rows=rows)

    async def search_suppressed(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show whether a number is suppressed, and why."""
        text = (await read_form(request) or {}).get("number", "").strip()
        read = read_number(text, other_mainland=True)
        number = read.e164 if isinstance(read, ReadNumber) else as_stored(text)
        found = await self._backend.suppressions_of(number) if number else []
        if not found and not isinstance(read, ReadNumber):
            reason = _("This is not a number: {reason}.").format(reason=_(read.reason))
            draft = {"number": text}
            return await self._rules(session, draft, form="search", error=reason)
        return await self._rules(session, {"numbers": number}, found=found)

    async def _rules(
        self,
        session: Session,
        draft: Fields,
        *,
        form: str | None = None,
        error: str | None = None,
        found: list[Suppressed] | None = None,
        text: str = "",
        rows: int | None = LISTED_ROWS,
    ) -> web.StreamResponse:
        """Show the rules that have *text*, at most *rows* of each kind.

        With *error*, show why what was written in *form* cannot be done.
        """
        rules = await self._backend.rules()
        apps = (await self._backend.snapshot()).apps
        limits = {app: describe_limits(rules.limits[app]) for app in sorted(rules.limits)}
        listed: dict[str, list[object]] = {
            "templates": [
                (template, note, rules.texts.get(template.template_id, ""))
                for template, note in rules.templates
            ],
            "limits": [*limits.items()],
            "pauses": [app for app in _paused_first(apps) if app.known],
            "prices": [*sorted(rules.prices.items())],
        }
        values = {
            "session": session,
            "rules": rules,
            "apps": apps,
            "listed": {
                kind: [each for each in of if _has(each, text)] for kind, of in listed.items()
            },
            "many": any(len(of) > LISTED_ROWS for of in listed.values()),
            "text": text,
            "rows": rows,
            "draft": draft,
            "form": form,
            "error": error,
            "found": found,
        }
        return self._auth.page("rules.html", values, status=400 if error else 200)

    async def confirm(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show what an action will do, with a button that does it."""
        fields = {name: request.query[name] for name in ACTION_FIELDS if name in request.query}
        if "ids" in fields:  # each message that was chosen in a list has a field
            fields["ids"] = " ".join(request.query.getall("ids"))
        return await self._ask(session, request.match_info["action"], fields)

    async def act(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Do an action, and lead to its result.

        A form with *ask* is confirmed first: what must not be in an address comes that way.
        """
        action = request.match_info["action"]
        form = await read_form(request) or {}
        fields = {
            name: form[name] if name in EXACT_FIELDS else form[name].strip()
            for name in ACTION_FIELDS
            if name in form
        }
        if "ask" in form:
            return await self._ask(session, action, fields)
        if not self._permitted(session, action):
            return self._auth.forbidden(session)
        match check_action(action, fields, await self._known()):
            case Invalid(reason):
                return await self._refused(session, action, fields, reason)
            case Confirmation() as confirmation:
                result = await _ACTIONS[action].do(self._backend, session.actor, fields)
                changed = "changed" if result.count else ""
                lines = [confirmation.title, confirmation.back, result.said, changed]
                signed = self._auth.sessions.sign_result(lines)
                return redirect(f"{DONE_PATH}?{urlencode({'result': signed})}")

    async def done(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show what an action did; to load the page again does nothing."""
        signed = request.query.get("result", "")
        match self._auth.sessions.read_result(signed, now=time.time()):
            case [title, back, result, changed]:
                values = {"session": session, "title": title, "back": back}
                values |= {"result": result, "changed": bool(changed)}
                return self._auth.page("done.html", values)
            case _:
                values = {"session": session, "what": _("There is no such page.")}
                return self._auth.page("missing.html", values, status=404)

    def _permitted(self, session: Session, action: str) -> bool:
        found = _ACTIONS.get(action)
        return found is None or session.may(found.role)

    async def _ask(self, session: Session, action: str, fields: Fields) -> web.StreamResponse:
        if not self._permitted(session, action):
            return self._auth.forbidden(session)
        match check_action(action, fields, await self._known()):
            case Invalid(reason):
                return await self._refused(session, action, fields, reason)
            case Confirmation() as confirmation:
                values = {
                    "session": session,
                    "action": action,
                    "fields": fields,
                    "confirmation": confirmation,
                }
                return self._auth.page("confirm.html", values)

    async def _known(self) -> Known:
        apps = (await self._backend.snapshot()).apps
        return Known([app.name for app in apps if app.known], self._backend.other_mainland)

    async def _refused(
        self, session: Session, action: str, fields: Fields, reason: str
    ) -> web.StreamResponse:
        found = _ACTIONS.get(action)
        if found and found.form:  # it keeps what was written
            return await self._rules(session, fields, form=found.form, error=reason)
        if action in _KEPT_FORMS and (action != "campaign-move" or fields.get("campaign")):
            name = fields.get("campaign")
            values = {"session": session, "what": reason, "form": action, "fields": fields}
            values["back"] = campaign_address(name) if name else ACTIONS_PATH
            return self._auth.page("again.html", values, status=400)
        values = {"session": session, "what": reason}
        return self._auth.page("missing.html", values, status=400)
