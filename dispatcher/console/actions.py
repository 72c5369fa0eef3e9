"""What each deed would do, as it is confirmed before it is done; or why it cannot be done."""

from collections.abc import Callable
from typing import Literal

from aiohttp import web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session
from dispatcher.console.backend import Desk
from dispatcher.console.forms import form_of, message_ids
from dispatcher.core.templates import Template, TemplateError, variable_kinds

MAX_REASON = 200  # characters
MAX_TEMPLATE_ID = 32  # characters; the provider's limit
RULES = "/console/rules"


class Confirmation(Struct, frozen=True):
    """What is about to be done, as it is confirmed."""

    title: str
    effect: str  # what will happen
    button: str
    back: str  # where to go instead
    grave: bool = False  # it may send something twice, or for ever not at all
    asks_reason: bool = False


class Invalid(Struct, frozen=True):
    """Why it cannot be done."""

    why: str


Fields = dict[str, str]
Planned = Confirmation | Invalid


def plan(deed: str, fields: Fields) -> Planned:
    """Return what *deed* would do with *fields*."""
    planner = _PLANS.get(deed)
    return planner(fields) if planner else Invalid("There is no such deed.")


def _pause(fields: Fields) -> Planned:
    app = fields.get("app", "")
    return _of_app(
        app,
        Confirmation(
            f"Pause {app}",
            "Requests on their way are finished. Everything else waits until somebody resumes it.",
            f"Pause {app}",
            "/console",
            asks_reason=True,
        ),
    )


def _resume(fields: Fields) -> Planned:
    app = fields.get("app", "")
    return _of_app(
        app,
        Confirmation(
            f"Resume {app}",
            "Its messages go out again at once. If the cause is not mended, the next answer of the"
            " provider pauses it again; nothing is lost by that.",
            f"Resume {app}",
            "/console",
        ),
    )


def _of_app(app: str, made: Confirmation) -> Planned:
    return made if app else Invalid("Name the app.")


def _cancel(fields: Fields) -> Planned:
    return _of_messages(
        fields,
        lambda what, back: Confirmation(
            f"Cancel {what}",
            "What still waits is never sent. What is on its way or finished stays as it is.",
            f"Cancel {what}",
            back,
            grave=True,
        ),
    )


def _requeue(fields: Fields) -> Planned:
    return _of_messages(
        fields,
        lambda what, back: Confirmation(
            f"Requeue {what}",
            "What was rejected or has expired is sent again, as it was inserted. Do it when the"
            " cause is mended.",
            f"Requeue {what}",
            back,
        ),
    )


def _of_messages(fields: Fields, make: Callable[[str, str], Confirmation]) -> Planned:
    ids = message_ids(fields.get("ids", ""))
    if ids is None:
        return Invalid("Give ids of messages, 1,000 at most, apart by blanks or commas.")
    if len(ids) == 1:
        return make(f"message {ids[0]}", f"/console/message/{ids[0]}")
    return make(f"{len(ids):,} messages", "/console/act")


def _settle(fields: Fields) -> Planned:
    token, how = fields.get("token", ""), fields.get("how", "")
    back = f"/console/batch/{token}"
    if not token:
        return Invalid("Name the request.")
    if how == "sent":
        return Confirmation(
            "Settle the request as sent",
            "Its messages count as accepted, and are not sent again. Reports still tell whether"
            " they were delivered.",
            "They were sent",
            back,
        )
    if how == "resend":
        return Confirmation(
            "Send the request's messages again",
            "They go back into the queue. Whoever got one already gets it twice: do this only if"
            " the provider says that it never had the request.",
            "Send them again",
            back,
            grave=True,
        )
    return Invalid("Say how: as sent, or to be sent again.")


def _define_template(fields: Fields) -> Planned:
    made = template_of(fields)
    match made:
        case Invalid():
            return made
        case Template(template_id, kinds):
            takes = ", ".join(kinds) if kinds else "no variables"
            return Confirmation(
                f"Define the template {template_id}",
                f"It takes {takes}. From a few seconds on, a message whose variables do not fit is"
                " rejected with a reason before it costs a request.",
                "Define it",
                RULES,
            )


def _drop_template(fields: Fields) -> Planned:
    template_id = fields.get("template_id", "")
    if not template_id:
        return Invalid("Name the template.")
    return Confirmation(
        f"Remove the template {template_id}",
        "Its variables are not checked here any more; the provider still checks them.",
        "Remove it",
        RULES,
    )


def template_of(fields: Fields) -> Template | Invalid:
    """Return the template that a form describes, by its text."""
    template_id = fields.get("template_id", "").strip()
    if not 1 <= len(template_id) <= MAX_TEMPLATE_ID or not template_id.isprintable():
        return Invalid(f"A template's id has 1 to {MAX_TEMPLATE_ID} characters.")
    text = fields.get("text", "")
    if not text.strip():
        return Invalid("Give the template's text, with variables such as ${NUM_6}.")
    try:
        return Template(template_id, variable_kinds(text))
    except TemplateError as error:
        return Invalid(f"{error}.")


_PLANS: dict[str, Callable[[Fields], Planned]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "requeue": _requeue,
    "settle": _settle,
    "template": _define_template,
    "template-remove": _drop_template,
}
# That a deed may have.
FIELDS = ("app", "ids", "token", "how", "reason", "template_id", "text", "note")


class ActionPages:
    """The pages that do something."""

    def __init__(self, guard: Auth, desk: Desk) -> None:
        self._guard = guard
        self._desk = desk

    async def show(self, _: web.Request, session: Session) -> web.StreamResponse:
        """Show what can be done, and what was done."""
        now = await self._desk.now()
        values = {"session": session, "apps": now.apps, "deeds": await self._desk.deeds()}
        return self._guard.page("act.html", values)

    async def confirm(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Ask whether it is meant."""
        deed = request.match_info["deed"]
        fields = {name: request.query[name] for name in FIELDS if name in request.query}
        return self._page("confirm.html", session, deed, fields)

    async def do(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Do it."""
        deed = request.match_info["deed"]
        form = await form_of(request) or {}
        fields = {name: form[name].strip() for name in FIELDS if name in form}
        match plan(deed, fields):
            case Confirmation():
                result = await self._do(deed, fields, session.who)
                return self._page("done.html", session, deed, fields, result=result)
            case Invalid():
                return self._page("confirm.html", session, deed, fields)

    async def _do(self, deed: str, fields: Fields, who: str) -> str:
        ids = message_ids(fields.get("ids", "")) or []
        match deed:
            case "pause":
                reason = fields.get("reason", "")[:MAX_REASON]
                return await self._desk.pause(who, fields["app"], reason)
            case "resume":
                return await self._desk.resume(who, fields["app"])
            case "cancel":
                return await self._desk.cancel(who, ids)
            case "requeue":
                return await self._desk.requeue(who, ids)
            case "template" | "template-remove":
                return await self._on_template(deed, fields, who)
            case _:
                return await self._desk.settle(who, fields["token"], fields["how"])

    async def _on_template(self, deed: str, fields: Fields, who: str) -> str:
        if deed == "template-remove":
            return await self._desk.drop_template(who, fields["template_id"])
        match template_of(fields):
            case Invalid(why):
                return why
            case made:
                note = fields.get("note", "")[:MAX_REASON]
                return await self._desk.define_template(who, made, note, fields["text"])

    def _page(
        self,
        template: Literal["confirm.html", "done.html"],
        session: Session,
        deed: str,
        fields: Fields,
        *,
        result: str = "",
    ) -> web.Response:
        match plan(deed, fields):
            case Invalid(why):
                values: dict[str, object] = {"session": session, "what": why}
                return self._guard.page("missing.html", values, status=400)
            case Confirmation() as made:
                values = {
                    "session": session,
                    "deed": deed,
                    "fields": fields,
                    "plan": made,
                    "result": result,
                }
                return self._guard.page(template, values)


def routes(guard: Auth, desk: Desk) -> list[web.AbstractRouteDef]:
    """Return the routes of everything that is done."""
    acts = ActionPages(guard, desk)
    return [
        web.get("/console/act", guard.inside(acts.show)),
        web.get("/console/act/{deed}", guard.inside(acts.confirm)),
        web.post("/console/act/{deed}", guard.inside(acts.do)),
    ]
