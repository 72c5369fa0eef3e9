"""What an action will do, for the operator to confirm, and how it is done."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import Fields, Invalid
from dispatcher.core.language import _
from dispatcher.core.roles import Role
from dispatcher.db.operator import ActionResult

MAX_REASON_LENGTH = 200  # characters


class Confirmation(Struct, frozen=True):
    """What an action will do, for the operator to confirm."""

    title: str
    effect: str
    button: str
    back: str  # path of the page to return to
    grave: bool = False  # it may send something twice, or prevent it from being sent
    asks_reason: bool = False
    details: list[str] = []  # more lines, such as a preview


class Known(Struct, frozen=True):
    """What the checks of an action need to know beside its fields."""

    apps: list[str]  # that a worker or an operator has named
    other_mainland: bool  # how numbers without + are read, see core.number


Check = Callable[[Fields, Known], Confirmation | Invalid]
Do = Callable[[ConsoleBackend, str, Fields], Awaitable[ActionResult]]  # with the actor


class OperatorAction(Struct, frozen=True):
    """An action: what it will do or why it cannot, and how it is done."""

    check: Check
    do: Do
    role: Role = "act"  # that it takes
    form: str | None = None  # of the page Rules, which shows again what was written there


def unknown_app(app: str, known: Known) -> Invalid:
    """Return why nothing can be done with an app that no worker or operator has named."""
    return Invalid(
        _("There is no app {app}; there are: {apps}.").format(app=app, apps=", ".join(known.apps))
    )


def reason_of(fields: Fields) -> str:
    """Return the reason that an operator gave."""
    return fields.get("reason", "")[:MAX_REASON_LENGTH]
