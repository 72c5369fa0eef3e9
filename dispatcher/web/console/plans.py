"""What each deed would do, as it is confirmed before it is done; or why it cannot be done."""

from collections.abc import Callable

from msgspec import Struct

from dispatcher.core.templates import Template, TemplateError, kinds_of
from dispatcher.web.console.forms import message_ids

MAX_REASON = 200  # characters
MAX_TEMPLATE_ID = 32  # characters; the provider's limit
RULES = "/console/rules"


class Plan(Struct, frozen=True):
    """What is about to be done, as it is confirmed."""

    title: str
    effect: str  # what will happen
    button: str
    back: str  # where to go instead
    grave: bool = False  # it may send something twice, or for ever not at all
    asks_reason: bool = False


class Wrong(Struct, frozen=True):
    """Why it cannot be done."""

    why: str


Fields = dict[str, str]
Planned = Plan | Wrong


def plan(deed: str, fields: Fields) -> Planned:
    """Return what *deed* would do with *fields*."""
    planner = _PLANS.get(deed)
    return planner(fields) if planner else Wrong("There is no such deed.")


def _pause(fields: Fields) -> Planned:
    app = fields.get("app", "")
    return _of_app(
        app,
        Plan(
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
        Plan(
            f"Resume {app}",
            "Its messages go out again at once. If the cause is not mended, the next answer of the"
            " provider pauses it again; nothing is lost by that.",
            f"Resume {app}",
            "/console",
        ),
    )


def _of_app(app: str, made: Plan) -> Planned:
    return made if app else Wrong("Name the app.")


def _cancel(fields: Fields) -> Planned:
    return _of_messages(
        fields,
        lambda what, back: Plan(
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
        lambda what, back: Plan(
            f"Requeue {what}",
            "What was rejected or has expired is sent again, as it was inserted. Do it when the"
            " cause is mended.",
            f"Requeue {what}",
            back,
        ),
    )


def _of_messages(fields: Fields, make: Callable[[str, str], Plan]) -> Planned:
    ids = message_ids(fields.get("ids", ""))
    if ids is None:
        return Wrong("Give ids of messages, 1,000 at most, apart by blanks or commas.")
    if len(ids) == 1:
        return make(f"message {ids[0]}", f"/console/message/{ids[0]}")
    return make(f"{len(ids):,} messages", "/console/act")


def _settle(fields: Fields) -> Planned:
    token, how = fields.get("token", ""), fields.get("how", "")
    back = f"/console/batch/{token}"
    if not token:
        return Wrong("Name the request.")
    if how == "sent":
        return Plan(
            "Settle the request as sent",
            "Its messages count as accepted, and are not sent again. Reports still tell whether"
            " they were delivered.",
            "They were sent",
            back,
        )
    if how == "resend":
        return Plan(
            "Send the request's messages again",
            "They go back into the queue. Whoever got one already gets it twice: do this only if"
            " the provider says that it never had the request.",
            "Send them again",
            back,
            grave=True,
        )
    return Wrong("Say how: as sent, or to be sent again.")


def _define_template(fields: Fields) -> Planned:
    made = template_of(fields)
    match made:
        case Wrong():
            return made
        case Template(template_id, kinds):
            takes = ", ".join(kinds) if kinds else "no variables"
            return Plan(
                f"Define the template {template_id}",
                f"It takes {takes}. From a few seconds on, a message whose variables do not fit is"
                " rejected with a reason before it costs a request.",
                "Define it",
                RULES,
            )


def _drop_template(fields: Fields) -> Planned:
    template_id = fields.get("template_id", "")
    if not template_id:
        return Wrong("Name the template.")
    return Plan(
        f"Remove the template {template_id}",
        "Its variables are not checked here any more; the provider still checks them.",
        "Remove it",
        RULES,
    )


def template_of(fields: Fields) -> Template | Wrong:
    """Return the template that a form describes, by its text."""
    template_id = fields.get("template_id", "").strip()
    if not 1 <= len(template_id) <= MAX_TEMPLATE_ID or not template_id.isprintable():
        return Wrong(f"A template's id has 1 to {MAX_TEMPLATE_ID} characters.")
    text = fields.get("text", "")
    if not text.strip():
        return Wrong("Give the template's text, with variables such as ${NUM_6}.")
    try:
        return Template(template_id, kinds_of(text))
    except TemplateError as error:
        return Wrong(f"{error}.")


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
