"""What operators can do: confirmations and results of actions, the rules and the audit log."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import HOME_PATH, Auth, Session
from dispatcher.console.backend import CampaignChange, ConsoleBackend
from dispatcher.console.campaign_pages import campaign_address
from dispatcher.console.forms import Fields, Invalid, message_ids, read_form, read_template
from dispatcher.core.format import plural
from dispatcher.core.language import _
from dispatcher.core.rules import describe_limits
from dispatcher.core.templates import Template

ACTIONS_PATH = "/console/actions"
RULES_PATH = "/console/rules"
MAX_REASON_LENGTH = 200  # characters
ACTION_FIELDS = ("app", "campaign", "ids", "token", "how", "reason", "template_id", "text", "note")


class Confirmation(Struct, frozen=True):
    """What an action will do, for the operator to confirm."""

    title: str
    effect: str
    button: str
    back: str  # path of the page to return to
    grave: bool = False  # it may send something twice, or prevent it from being sent
    asks_reason: bool = False


Do = Callable[[ConsoleBackend, str, Fields], Awaitable[str]]  # with the actor; returns the result


class OperatorAction(Struct, frozen=True):
    """An action: what it will do or why it cannot, and how it is done."""

    check: Callable[[Fields], Confirmation | Invalid]
    do: Do


def check_action(action: str, fields: Fields) -> Confirmation | Invalid:
    """Return what *action* will do with *fields*, or why it cannot be done."""
    known = _ACTIONS.get(action)
    return known.check(fields) if known else Invalid(_("There is no such action."))


def _pause(fields: Fields) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid(_("Name the app."))
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


def _resume(fields: Fields) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid(_("Name the app."))
    return Confirmation(
        _("Resume {app}").format(app=app),
        _(
            "Its messages go out again at once. If the cause is not fixed, the next answer of the"
            " provider pauses it again; nothing is lost by that."
        ),
        _("Resume {app}").format(app=app),
        HOME_PATH,
    )


def _campaign_pause(fields: Fields) -> Confirmation | Invalid:
    return _of_campaign(
        fields,
        _("Pause the campaign {name}"),
        _("Requests on their way are finished. The rest of it waits until an operator resumes it."),
        asks_reason=True,
    )


def _campaign_resume(fields: Fields) -> Confirmation | Invalid:
    return _of_campaign(
        fields, _("Resume the campaign {name}"), _("What waits of it goes out again at once.")
    )


def _campaign_cancel(fields: Fields) -> Confirmation | Invalid:
    return _of_campaign(
        fields,
        _("Cancel the campaign {name} for good"),
        _(
            "Nothing more of it is sent, from now on; its messages become cancelled within minutes."
            " It cannot be resumed."
        ),
        asks_reason=True,
        grave=True,
    )


def _of_campaign(
    fields: Fields, title: str, effect: str, *, asks_reason: bool = False, grave: bool = False
) -> Confirmation | Invalid:
    name = fields.get("campaign")
    if not name:
        return Invalid(_("Name the campaign."))
    title = title.format(name=name)
    return Confirmation(
        title, effect, title, campaign_address(name), asks_reason=asks_reason, grave=grave
    )


def _cancel(fields: Fields) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        _("Cancel {messages}"),
        _("What still waits is never sent. What is on its way or finished stays as it is."),
        grave=True,
    )


def _requeue(fields: Fields) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        _("Requeue {messages}"),
        _(
            "What was rejected or has expired is sent again, as it was inserted. Do it when the"
            " cause is fixed."
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


def _settle(fields: Fields) -> Confirmation | Invalid:
    token = fields.get("token")
    if not token:
        return Invalid(_("Name the request."))
    back = f"/console/batch/{token}"
    match fields.get("how"):
        case "sent":
            return Confirmation(
                _("Settle the request as sent"),
                _(
                    "Its messages count as accepted, and are not sent again. Reports still say"
                    " whether they were delivered."
                ),
                _("They were sent"),
                back,
            )
        case "resend":
            return Confirmation(
                _("Send the request's messages again"),
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


def _define_template(fields: Fields) -> Confirmation | Invalid:
    match read_template(fields):
        case Invalid() as invalid:
            return invalid
        case Template(template_id, kinds):
            variables = ", ".join(kinds) if kinds else _("no variables")
            return Confirmation(
                _("Define the template {id}").format(id=template_id),
                _(
                    "It takes {variables}. From a few seconds on, a message whose variables do not"
                    " fit is rejected with a reason before it costs a request."
                ).format(variables=variables),
                _("Define it"),
                RULES_PATH,
            )


def _drop_template(fields: Fields) -> Confirmation | Invalid:
    template_id = fields.get("template_id")
    if not template_id:
        return Invalid(_("Name the template."))
    return Confirmation(
        _("Remove the template {id}").format(id=template_id),
        _("Its variables are not checked here any more; the provider still checks them."),
        _("Remove it"),
        RULES_PATH,
    )


def _reason(fields: Fields) -> str:
    return fields.get("reason", "")[:MAX_REASON_LENGTH]


def _ids(fields: Fields) -> list[int]:
    return message_ids(fields.get("ids", "")) or []


async def _do_define_template(backend: ConsoleBackend, actor: str, fields: Fields) -> str:
    match read_template(fields):
        case Invalid(reason):
            return reason
        case template:
            note = fields.get("note", "")[:MAX_REASON_LENGTH]
            return await backend.define_template(actor, template, note, fields["text"])


def _campaign(change: CampaignChange) -> Do:
    def do(backend: ConsoleBackend, actor: str, fields: Fields) -> Awaitable[str]:
        return backend.change_campaign(actor, fields["campaign"], change, _reason(fields))

    return do


_ACTIONS: dict[str, OperatorAction] = {
    "pause": OperatorAction(_pause, lambda b, a, f: b.pause(a, f["app"], _reason(f))),
    "resume": OperatorAction(_resume, lambda b, a, f: b.resume(a, f["app"])),
    "cancel": OperatorAction(_cancel, lambda b, a, f: b.cancel(a, _ids(f))),
    "requeue": OperatorAction(_requeue, lambda b, a, f: b.requeue(a, _ids(f))),
    "settle": OperatorAction(_settle, lambda b, a, f: b.settle(a, f["token"], f["how"])),
    "campaign-pause": OperatorAction(_campaign_pause, _campaign("pause")),
    "campaign-resume": OperatorAction(_campaign_resume, _campaign("resume")),
    "campaign-cancel": OperatorAction(_campaign_cancel, _campaign("cancel")),
    "template": OperatorAction(_define_template, _do_define_template),
    "template-remove": OperatorAction(
        _drop_template, lambda b, a, f: b.drop_template(a, f["template_id"])
    ),
}


class ActionPages:
    """The pages Actions and Rules, and the confirmation of each action."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def overview(self, _request: web.Request, session: Session) -> web.StreamResponse:
        """Show the possible actions and the audit log."""
        snapshot = await self._backend.snapshot()
        audit = await self._backend.audit()
        values = {"session": session, "apps": snapshot.apps, "audit": audit}
        return self._auth.page("actions.html", values)

    async def rules(self, _request: web.Request, session: Session) -> web.StreamResponse:
        """Show the rules for templates, limits, suppressed numbers and prices."""
        return await self._rules(session, {}, None)

    async def _rules(
        self, session: Session, draft: Fields, error: str | None
    ) -> web.StreamResponse:
        """Show the rules; with *error*, why the template that *draft* has cannot be defined."""
        rules = await self._backend.rules()
        limits = {app: describe_limits(limits) for app, limits in rules.limits.items()}
        values = {
            "session": session,
            "rules": rules,
            "limits": limits,
            "draft": draft,
            "error": error,
        }
        return self._auth.page("rules.html", values, status=400 if error else 200)

    async def confirm(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show what an action will do, with a button that does it."""
        action = request.match_info["action"]
        fields = {name: request.query[name] for name in ACTION_FIELDS if name in request.query}
        match check_action(action, fields):
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

    async def act(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Do an action, and show its result."""
        action = request.match_info["action"]
        form = await read_form(request) or {}
        fields = {name: form[name].strip() for name in ACTION_FIELDS if name in form}
        match check_action(action, fields):
            case Invalid(reason):
                return await self._refused(session, action, fields, reason)
            case Confirmation() as confirmation:
                result = await _ACTIONS[action].do(self._backend, session.actor, fields)
                values = {"session": session, "confirmation": confirmation, "result": result}
                return self._auth.page("done.html", values)

    async def _refused(
        self, session: Session, action: str, fields: Fields, reason: str
    ) -> web.StreamResponse:
        if action == "template":  # its form keeps what was written
            return await self._rules(session, fields, reason)
        return self._invalid(session, reason)

    def _invalid(self, session: Session, reason: str) -> web.Response:
        return self._auth.page("missing.html", {"session": session, "what": reason}, status=400)
