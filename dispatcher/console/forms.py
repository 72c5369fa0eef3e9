"""Reads what a browser sent: fields of forms and of addresses, as plain text."""

from aiohttp import web

MAX_IDS = 1000  # messages in one deed


async def form_of(request: web.Request) -> dict[str, str] | None:
    """Return the text fields of a form; None if it cannot be read."""
    try:
        fields = await request.post()
    except (ValueError, LookupError):  # no UTF-8, no such encoding, no multipart after all
        return None
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def message_ids(text: str) -> list[int] | None:
    """Return the ids in *text*, apart by blanks or commas; None if it holds anything else."""
    words = text.replace(",", " ").split()
    ids = [message_id(word) for word in words[: MAX_IDS + 1]]
    if not ids or len(ids) > MAX_IDS or None in ids:
        return None
    return list(dict.fromkeys(each for each in ids if each is not None))


def message_id(text: str) -> int | None:
    """Return an id of a message; None if *text* is none."""
    if text.isascii() and text.isdigit() and 0 < len(text) < 19:  # noqa: PLR2004 - bigint: 19 digits
        return int(text)
    return None
