"""Actions on a campaign: pause, resume, move, cancel."""

from collections.abc import Awaitable
from datetime import datetime

from msgspec import Struct

from dispatcher.console.backend import CampaignChange, ConsoleBackend
from dispatcher.console.campaign_pages import campaign_address
from dispatcher.console.confirmation import Confirmation, Do, Known, OperatorAction, reason_of
from dispatcher.console.forms import Fields, Invalid, read_per_hour, read_spread
from dispatcher.console.render import sentence
from dispatcher.core.format import duration, number, sentences
from dispatcher.core.language import _, with_stop
from dispatcher.core.zone import read_zone
from dispatcher.db.operator import ActionResult
from dispatcher.lists.times import EXAMPLE, read_move_time

PRIORITIES = tuple("0123456789")
MOVE_FIELDS = ("send_at", "zone", "spread", "per_hour", "priority")


class Move(Struct, frozen=True):
    """To when, at what pace, and to which priority a campaign is moved; None: as it is."""

    send_at: datetime | None
    spread_seconds: float | None
    per_hour: int | None
    priority: int | None


def read_move(fields: Fields) -> Move | Invalid:
    """Return the move that a form describes."""
    given = {name: text for name in MOVE_FIELDS if (text := fields.get(name, "").strip())}
    send_at = _read_send_at(given.get("send_at"), given.get("zone"))
    spread = read_spread(given.get("spread", ""))
    per_hour = read_per_hour(given.get("per_hour", ""))
    for each in (send_at, spread, per_hour):
        if isinstance(each, Invalid):
            return each
    if spread is not None and per_hour is not None:
        return Invalid(_("Give a number of messages an hour, or a time to spread them over."))
    priority = given.get("priority")
    if priority is not None and priority not in PRIORITIES:
        return Invalid(_("A priority is a digit, 0 first to 9 last."))
    if send_at is None and (priority is None or spread is not None or per_hour is not None):
        return Invalid(_("Say to when it moves, or give a priority."))
    return Move(send_at, spread, per_hour, int(priority) if priority else None)  # type: ignore[arg-type]


def _read_send_at(text: str | None, zone_name: str | None) -> datetime | Invalid | None:
    try:
        zone = read_zone(zone_name) if zone_name else None
    except ValueError as error:
        return Invalid(sentence(with_stop(error)))
    if text is None:
        return None
    try:
        return read_move_time(_("The time"), text, zone)
    except ValueError as error:
        if zone is None:
            return Invalid(
                _("Write the time as {example}, or name its time zone.").format(example=EXAMPLE)
            )
        return Invalid(with_stop(error))


def _campaign_pause(fields: Fields, _known: Known) -> Confirmation | Invalid:
    return _of_campaign(
        fields,
        _("Pause the campaign {name}"),
        _("Requests on their way are finished. The rest of it waits until an operator resumes it."),
        asks_reason=True,
    )


def _campaign_resume(fields: Fields, _known: Known) -> Confirmation | Invalid:
    return _of_campaign(
        fields,
        _("Resume the campaign {name}"),
        _("What is due of it goes out at once, and the rest when it is due."),
    )


def _campaign_cancel(fields: Fields, _known: Known) -> Confirmation | Invalid:
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


def _campaign_move(fields: Fields, _known: Known) -> Confirmation | Invalid:
    match read_move(fields):
        case Invalid() as invalid:
            return invalid
        case Move(send_at, spread, per_hour, priority):
            details = []
            if send_at is not None:
                moment = f"{send_at:%Y-%m-%d %H:%M:%S} UTC"
                details.append(_("What waits is due from {time} on.").format(time=moment))
            if spread:
                details.append(_("Spread evenly over {time}.").format(time=duration(spread)))
            if per_hour:
                details.append(_("{count} messages an hour.").format(count=number(per_hour)))
            if priority is not None:
                details.append(_("Its priority is {priority}.").format(priority=priority))
            return _of_campaign(
                fields,
                _("Move the campaign {name}"),
                _(
                    "Nothing of it is claimed until all has moved, which workers do within minutes."
                    " Messages that expire earlier than they are due then are not sent."
                ),
                details=[sentences(*details)],
            )


def _of_campaign(
    fields: Fields,
    title: str,
    effect: str,
    *,
    asks_reason: bool = False,
    grave: bool = False,
    details: list[str] | None = None,
) -> Confirmation | Invalid:
    name = fields.get("campaign")
    if not name:
        return Invalid(_("Name the campaign."))
    title = title.format(name=name)
    return Confirmation(
        title,
        effect,
        title,
        campaign_address(name),
        asks_reason=asks_reason,
        grave=grave,
        details=details or [],
    )


def _change(change: CampaignChange) -> Do:
    def do(backend: ConsoleBackend, actor: str, fields: Fields) -> Awaitable[ActionResult]:
        return backend.change_campaign(actor, fields["campaign"], change, reason_of(fields))

    return do


async def _move(backend: ConsoleBackend, actor: str, fields: Fields) -> ActionResult:
    match read_move(fields):
        case Move() as move:
            return await backend.move_campaign(
                actor,
                fields["campaign"],
                move.send_at,
                spread_seconds=move.spread_seconds,
                per_hour=move.per_hour,
                priority=move.priority,
            )
        case Invalid(reason):  # the form was checked before; its time may have no zone any more
            return ActionResult(None, f"not done: {reason}")


CAMPAIGN_ACTIONS = {
    "campaign-pause": OperatorAction(_campaign_pause, _change("pause")),
    "campaign-resume": OperatorAction(_campaign_resume, _change("resume")),
    "campaign-move": OperatorAction(_campaign_move, _move),
    "campaign-cancel": OperatorAction(_campaign_cancel, _change("cancel")),
}
