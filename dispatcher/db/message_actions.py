"""Actions of operators on all messages that a filter chooses."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from dispatcher.core.language import N_
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.message_lists import STATES, MessageFilter, filter_arguments, pieces
from dispatcher.db.queries import sql

ACTION_SECONDS: Final = 20.0  # for which the messages of an action are looked for
MAX_ACTION_MESSAGES: Final = 100_000
CHECKED_MESSAGES: Final = 5_000  # looked up at once
ActionName = Literal["cancel", "requeue", "suppress", "settle-sent", "settle-resend"]

# The states that an action changes, and why it leaves a message in another alone.
_ACTION_STATES: Final[dict[ActionName, tuple[str, ...]]] = {
    "cancel": ("queued",),
    "requeue": ("rejected", "expired", "lost"),
    "suppress": STATES,
    "settle-sent": ("unsure",),
    "settle-resend": ("unsure",),
}
_LEFT_ALONE: Final = {
    "queued": N_("it waits already"),
    "sending": N_("it is on its way"),
    "unsure": N_("it may have been sent: settle it"),
    "accepted": N_("the provider has it"),
    "delivered": N_("it was delivered"),
    "undelivered": N_("the provider had it; insert it anew"),
    "rejected": N_("it was rejected"),
    "expired": N_("it has expired"),
    "cancelled": N_("it was cancelled"),
    "lost": N_("a fail-over has lost it, and it may have been sent"),
}
WIPED: Final = N_("its variables were wiped, so it cannot be sent again")
PARTLY_CHOSEN: Final = N_("its request has other messages, which the filter does not choose")
ERASED: Final = N_("its number was erased")
CAMPAIGN_CANCELLED: Final = N_("its campaign is cancelled for good")


class ChosenMessage(Struct, frozen=True, gc=False):
    """One message that the filter of an action chooses."""

    id: int
    app: str
    state: str
    wiped: bool
    erased: bool
    refused: bool  # by the platform, after it had accepted it: it may be sent again
    campaign_cancelled: bool


class ActionCount(Struct, frozen=True, array_like=True):
    """How many messages of one app and state an action is for."""

    app: str
    state: str
    left_alone: str | None  # why; None: the action is for them
    messages: int


class MessageAction(Struct, frozen=True):
    """An action on many messages, with its progress."""

    id: int
    created_at: datetime
    created_by: str
    action: ActionName
    filter: str
    address: str
    counts: list[ActionCount]
    messages: int
    targets: int
    complete: bool  # else there are more messages that fit
    position: int
    changed: int
    started_at: datetime | None
    started_by: str | None
    finished_at: datetime | None
    ended_early: bool  # by a worker, after a restore: the rest may have been done before it


async def preview(
    database: Database, actor: str, action: ActionName, wanted: MessageFilter, words: Sequence[str]
) -> int:
    """Choose the messages of an action, at most 100,000; return the id of the action.

    *words* are the filter in words, without a number, and its address. Nothing is done before
    `start`; what is done then is done to these messages, whatever fits the filter meanwhile.
    """
    end = time.monotonic() + ACTION_SECONDS
    chosen: dict[int, ChosenMessage] = {}
    complete = True
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        async for piece in pieces(connection, wanted, None):
            ids = [each[0] for each in piece.candidates if each[0] not in chosen]
            first, part = 0, ids
            for first in range(0, len(ids), CHECKED_MESSAGES):
                part = ids[first : first + CHECKED_MESSAGES]
                rows = await connection.fetch(
                    sql("chosen_messages"), *await filter_arguments(connection, wanted, part)
                )
                chosen |= {row["id"]: ChosenMessage(*row) for row in rows}
                if len(chosen) >= MAX_ACTION_MESSAGES:
                    break
            if len(chosen) >= MAX_ACTION_MESSAGES or time.monotonic() > end:
                complete = piece.next_place is None and first + len(part) >= len(ids)
                break
        messages = sorted(chosen.values(), key=lambda each: -each.id)[:MAX_ACTION_MESSAGES]
        left = {each.id: why for each in messages if (why := _left_alone(action, each))}
        targets = [each.id for each in messages if each.id not in left]
        if action in ("settle-sent", "settle-resend"):
            targets, partly = await _whole_requests(connection, targets)
            left |= dict.fromkeys(partly, PARTLY_CHOSEN)
        counts = Counter((each.app, each.state, left.get(each.id)) for each in messages)
        listed = [ActionCount(*key, number) for key, number in counts.most_common()]
        action_id: int = await connection.fetchval(
            sql("add_message_action"),
            actor,
            action,
            *words,
            msgspec.json.encode(listed).decode(),
            len(messages) - len(left),
            targets,
            complete and len(chosen) <= MAX_ACTION_MESSAGES,
        )
        return action_id


async def message_action(database: Database, action_id: int) -> MessageAction | None:
    """Return an action with its progress; None if there is none with this id."""
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        row = await connection.fetchrow(sql("message_action"), action_id)
        if row is None:
            return None
        counts = msgspec.json.decode(row["counts"], type=list[ActionCount])
        return MessageAction(**{**row, "counts": counts})


async def start(connection: Connection, actor: str, action_id: int) -> bool:
    """Confirm an action, and write the audit; return whether this call started it."""
    started: bool = await connection.fetchval(sql("start_message_action"), action_id, actor)
    return started


async def step(connection: Connection, action_id: int) -> bool:
    """Do the next part of a started action, in one transaction; return whether more is left."""
    more: bool = await connection.fetchval(sql("message_action_step"), action_id)
    return more


def _left_alone(action: ActionName, message: ChosenMessage) -> str | None:
    """Return why *action* leaves a message alone; None if it does not."""
    again = action == "requeue" and message.refused
    if message.state not in _ACTION_STATES[action] and not again:
        if action != "requeue" and message.state == "queued":
            return N_("it waits")
        return _LEFT_ALONE.get(message.state, N_("its state is not known"))
    if action == "requeue" and message.wiped:
        return WIPED
    if action == "requeue" and message.campaign_cancelled and message.state != "lost":
        return CAMPAIGN_CANCELLED
    if action == "suppress" and message.erased:
        return ERASED
    return None


async def _whole_requests(connection: Connection, ids: list[int]) -> tuple[list[int], list[int]]:
    """Return the unsure requests of which all messages are chosen, and the messages of others."""
    chosen = set(ids)
    whole: list[int] = []
    partly: list[int] = []
    for row in await connection.fetch(sql("unsure_requests_of"), ids):
        if chosen.issuperset(row["ids"]):
            whole.append(row["id"])
        else:
            partly += chosen.intersection(row["ids"])
    return whole, partly
