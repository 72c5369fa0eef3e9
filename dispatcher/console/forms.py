"""Reads what a browser sends: fields of forms and addresses, ids and templates in them."""

import asyncio
import re
from datetime import UTC, datetime

from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.core.language import _, with_stop
from dispatcher.core.templates import (
    Template,
    TemplateError,
    check_kinds,
    read_template_id,
    variable_kinds,
)

Fields = dict[str, str]

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"  # of every form but that of a file
FORM_SECONDS = 30.0  # for a form to arrive, of 256 KB at most
FIRST_YEAR, LAST_YEAR = 1970, 2999  # of times; far from where they cannot be calculated with
MAX_SHORT_FORM_BYTES = 16 * 1024
MAX_IDS = 1000  # messages in one action
MAX_ID_DIGITS = 18  # every number of 18 digits fits into a bigint
MAX_SPREAD_SECONDS = 366 * 86_400  # a longer one is a mistake
_UNIT_SECONDS = {"h": 3600.0, "min": 60.0, "d": 86_400.0}


class Invalid(Struct, frozen=True):
    """Why something cannot be done: one sentence."""

    reason: str


async def read_form(request: web.Request) -> Fields | None:
    """Return the text fields of a form; None if it cannot be read, or does not arrive.

    Nor can one with a NUL be read, which no browser sends and PostgreSQL does not store.
    """
    try:
        async with asyncio.timeout(FORM_SECONDS):
            fields = await request.post()
    # Not UTF-8, an unknown encoding, a broken multipart body, or too slow.
    except (ValueError, LookupError, TimeoutError):
        return None
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return None if any("\0" in value for value in texts.values()) else texts


def is_short(request: web.Request) -> bool:
    """Return whether a form is short enough to be read for a client that has not logged in."""
    length = request.content_length
    packed = hdrs.CONTENT_ENCODING in request.headers
    return length is not None and length <= MAX_SHORT_FORM_BYTES and not packed


def message_ids(text: str) -> list[int] | None:
    """Return the ids in *text*, separated by blanks or commas; None if it holds anything else."""
    words = text.replace(",", " ").split()
    ids = [message_id(word) for word in words[: MAX_IDS + 1]]
    if not ids or len(ids) > MAX_IDS or None in ids:
        return None
    return list(dict.fromkeys(each for each in ids if each is not None))


def message_id(text: str) -> int | None:
    """Return the id of a message; None if *text* is not one."""
    if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS:
        return int(text)
    return None


def plain_number(text: str) -> str:
    """Return a number without what people write between its digits."""
    return re.sub(r"[\s()-]", "", text)


def read_time(text: str) -> datetime | Invalid:
    """Return the time that *text* describes, in UTC if it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return Invalid(_("Write times as 2026-11-29T10:30; they are UTC."))
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        return Invalid(_("Write times as 2026-11-29T10:30; they are UTC."))
    return moment


def written_time(moment: datetime) -> str:
    """Return *moment* in UTC for an address, such that `read_time` returns it again."""
    moment = moment.astimezone(UTC)
    whole = moment == moment.replace(second=0, microsecond=0)
    return moment.isoformat(timespec="minutes" if whole else "auto")


def read_spread(text: str) -> float | Invalid | None:
    """Return the seconds over which messages are spread; None for a blank field."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*(h|min|d)", text, re.ASCII)
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= MAX_SPREAD_SECONDS:
        return Invalid(_("Spread takes a time such as 4h, 90min or 2d, at most 366d."))
    return seconds


def read_per_hour(text: str) -> int | Invalid | None:
    """Return how many messages an hour go out; None for a blank field."""
    if not text:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        return Invalid(_("Give a number of messages an hour, or a time to spread them over."))
    return int(text)


def read_template(fields: Fields) -> Template | Invalid:
    """Return the template that a form describes by its text."""
    text, kinds = fields.get("text", "").strip(), fields.get("kinds", "").strip()
    promotional = {"yes": True, "no": False}.get(fields.get("promotional", ""))
    try:
        template_id = read_template_id(fields.get("template_id", ""))
        if not text and not kinds:
            return Invalid(_("Give the template's text, with variables such as ${NUM_6}."))
        listed = variable_kinds(text) if text else check_kinds(re.split(r"[\s,]+", kinds))
        return Template(template_id, listed, promotional)
    except TemplateError as error:
        return Invalid(with_stop(error))
