"""What operators can do: confirmations and results of actions, the rules and the audit log."""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import HOME_PATH, Auth, Session
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import Fields, Invalid, message_ids, read_form, read_template
from dispatcher.core.rules import describe_limits
from dispatcher.core.templates import Template

ACTIONS_PATH = "/console/actions"
RULES_PATH = "/console/rules"
MAX_REASON_LENGTH = 200  # characters
ACTION_FIELDS = ("app", "ids", "token", "how", "reason", "template_id", "text", "note")


class Confirmation(Struct, frozen=True):
    """What an action will do, for the operator to confirm."""

    title: str
    effect: str
    button: str
    back: str  # path of the page to return to
    grave: bool = False  # it may send something twice, or prevent it from being sent
    asks_reason: bool = False


def check_action(action: str, fields: Fields) -> Confirmation | Invalid:
    """Return what *action* will do with *fields*, or why it cannot be done."""
    check = _CHECKS.get(action)
    return check(fields) if check else Invalid("There is no such action.")


def _pause(fields: Fields) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid("Name the app.")
    return Confirmation(
        f"Pause {app}",
        "Requests on their way are finished. Everything else waits until an operator resumes it.",
        f"Pause {app}",
        HOME_PATH,
        asks_reason=True,
    )


def _resume(fields: Fields) -> Confirmation | Invalid:
    app = fields.get("app")
    if not app:
        return Invalid("Name the app.")
    return Confirmation(
        f"Resume {app}",
        "Its messages go out again at once. If the cause is not fixed, the next answer of the"
        " provider pauses it again; nothing is lost by that.",
        f"Resume {app}",
        HOME_PATH,
    )


def _cancel(fields: Fields) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        "Cancel",
        "What still waits is never sent. What is on its way or finished stays as it is.",
        grave=True,
    )


def _requeue(fields: Fields) -> Confirmation | Invalid:
    return _of_messages(
        fields,
        "Requeue",
        "What was rejected or has expired is sent again, as it was inserted. Do it when the cause"
        " is fixed.",
    )


def _of_messages(
    fields: Fields, verb: str, effect: str, *, grave: bool = False
) -> Confirmation | Invalid:
    ids = message_ids(fields.get("ids", ""))
    if ids is None:
        return Invalid("Give ids of messages, 1,000 at most, separated by blanks or commas.")
    title, back = f"{verb} {len(ids):,} messages", ACTIONS_PATH
    if len(ids) == 1:
        title, back = f"{verb} message {ids[0]}", f"/console/message/{ids[0]}"
    return Confirmation(title, effect, title, back, grave=grave)


def _settle(fields: Fields) -> Confirmation | Invalid:
    token = fields.get("token")
    if not token:
        return Invalid("Name the request.")
    back = f"/console/batch/{token}"
    match fields.get("how"):
        case "sent":
            return Confirmation(
                "Settle the request as sent",
                "Its messages count as accepted, and are not sent again. Reports still say whether"
                " they were delivered.",
                "They were sent",
                back,
            )
        case "resend":
            return Confirmation(
                "Send the request's messages again",
                "They go back into the queue. Recipients who have the message already get it"
                " twice: do this only if the provider says that it never had the request.",
                "Send them again",
                back,
                grave=True,
            )
        case _:
            return Invalid("Say how: as sent, or to be sent again.")


def _define_template(fields: Fields) -> Confirmation | Invalid:
    match read_template(fields):
        case Invalid() as invalid:
            return invalid
        case Template(template_id, kinds):
            variables = ", ".join(kinds) if kinds else "no variables"
            return Confirmation(
                f"Define the template {template_id}",
                f"It takes {variables}. From a few seconds on, a message whose variables do not"
                " fit is rejected with a reason before it costs a request.",
                "Define it",
                RULES_PATH,
            )


def _drop_template(fields: Fields) -> Confirmation | Invalid:
    template_id = fields.get("template_id")
    if not template_id:
        return Invalid("Name the template.")
    return Confirmation(
        f"Remove the template {template_id}",
        "Its variables are not checked here any more; the provider still checks them.",
        "Remove it",
        RULES_PATH,
    )


_CHECKS: dict[str, Callable[[Fields], Confirmation | Invalid]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "requeue": _requeue,
    "settle": _settle,
    "template": _define_template,
    "template-remove": _drop_template,
}


class ActionPages:
    """The pages Actions and Rules, and the confirmation of each action."""

    def __init__(self, auth: Auth, backend: ConsoleBackend) -> None:
        self._auth = auth
        self._backend = backend

    async def overview(self, _: web.Request, session: Session) -> web.StreamResponse:
        """Show the possible actions and the audit log."""
        snapshot = await self._backend.snapshot()
        audit = await self._backend.audit()
        values = {"session": session, "apps": snapshot.apps, "audit": audit}
        return self._auth.page("actions.html", values)

    async def rules(self, _: web.Request, session: Session) -> web.StreamResponse:
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
                result = await self._act(action, fields, session.actor)
                values = {"session": session, "confirmation": confirmation, "result": result}
                return self._auth.page("done.html", values)

    async def _act(self, action: str, fields: Fields, actor: str) -> str:
        ids = message_ids(fields.get("ids", "")) or []
        match action:
            case "pause":
                reason = fields.get("reason", "")[:MAX_REASON_LENGTH]
                return await self._backend.pause(actor, fields["app"], reason)
            case "resume":
                return await self._backend.resume(actor, fields["app"])
            case "cancel":
                return await self._backend.cancel(actor, ids)
            case "requeue":
                return await self._backend.requeue(actor, ids)
            case "template" | "template-remove":
                return await self._change_template(action, fields, actor)
            case _:
                return await self._backend.settle(actor, fields["token"], fields["how"])

    async def _change_template(self, action: str, fields: Fields, actor: str) -> str:
        if action == "template-remove":
            return await self._backend.drop_template(actor, fields["template_id"])
        match read_template(fields):
            case Invalid(reason):
                return reason
            case template:
                note = fields.get("note", "")[:MAX_REASON_LENGTH]
                return await self._backend.define_template(actor, template, note, fields["text"])

    async def _refused(
        self, session: Session, action: str, fields: Fields, reason: str
    ) -> web.StreamResponse:
        if action == "template":  # its form keeps what was written
            return await self._rules(session, fields, reason)
        return self._invalid(session, reason)

    def _invalid(self, session: Session, reason: str) -> web.Response:
        return self._auth.page("missing.html", {"session": session, "what": reason}, status=400)
