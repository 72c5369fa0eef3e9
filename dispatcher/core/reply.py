"""Reads replies (uplink): what a person answers to a message, as the provider pushes it.

A reply comes once, like a report: it is neither repeated nor can it be asked for (provider.md,
Replies). So it is read as leniently: it needs the person's number; everything else may be missing
or damaged. What names no number is `Unreadable`, and kept as it came.
"""

import json as lenient_json
import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import Struct

from dispatcher.core.number import is_masked, possible_forms
from dispatcher.core.report import (
    Report,
    Unreadable,
    form_fields,
    json_fields,
    kept_fields,
    read_push,
    trimmed,
)
from dispatcher.core.report_time import utc_time
from dispatcher.core.wire import decode_text

# The letter R is the documented word; the others are usual (provider.md, Replies).
UNSUBSCRIBE_WORDS = ("R", "T", "TD", "退订")

_LONGEST_ID = 128
_LONGEST_NUMBER = 64
_NUMBER = re.compile(r"\+[0-9*]+")  # perhaps masked
_MAX_TEXT = 2000  # characters; 160 are documented


class UplinkReply(Struct, frozen=True, gc=False):
    """One reply of a person to a channel number."""

    provider_id: str | None  # of the reply itself, not of a message
    number: str  # in its canonical form as far as it can be read
    channel: str | None  # the number that was answered, often with an extension
    text: str
    unsubscribes: bool = False  # its text is an unsubscribe word
    replied_at: datetime | None = None  # UTC
    raw: str = "{}"  # all fields, also the unknown ones, as a JSON object


class ReplyPush(Struct, frozen=True):
    """What was read of one push."""

    replies: list[UplinkReply]
    unreadable: Unreadable | None = None  # a part of it, or all


def read_replies(body: bytes, words: Collection[str] = UNSUBSCRIBE_WORDS) -> ReplyPush:
    """Return the replies that *body* holds; *words* are those that unsubscribe."""
    text = trimmed(body)
    if not text:
        return ReplyPush([], Unreadable("The push is empty.", "empty"))
    listed: list[Mapping[str, str] | Unreadable]
    listed = _json_records(text) if text[:1] in (b"{", b"[") else [form_fields(text)]
    wanted = {plain_word(word) for word in words}
    read = [one if isinstance(one, Unreadable) else _reply(one, wanted) for one in listed]
    replies = [one for one in read if isinstance(one, UplinkReply)]
    unreadable = next((one for one in read if isinstance(one, Unreadable)), None)
    return ReplyPush(replies, unreadable)


class Posted(Struct, frozen=True):
    """What was posted to an address of the receiver."""

    reports: list[Report]
    replies: list[UplinkReply]
    unreadable: Unreadable | None = None  # a part of it, or all


def read_posted(body: bytes, *, is_reply: bool, words: Collection[str]) -> Posted:
    """Return what *body* holds; *is_reply* says what its address is for.

    What cannot be read as that is read as the other: an operator may have given the provider one
    address for both.
    """
    if is_reply:
        found = read_replies(body, words)
        if found.replies:
            return Posted([], found.replies, found.unreadable)
        other = read_push(body)
        return Posted(other.reports, [], other.unreadable if other.reports else found.unreadable)
    push = read_push(body)
    if push.reports or push.unreadable is None:
        return Posted(push.reports, [], push.unreadable)
    answered = [reply for reply in read_replies(body, words).replies if reply.text]
    return Posted([], answered, None if answered else push.unreadable)


def plain_word(text: str) -> str:
    """Return *text* as it is compared: in one width and case, without blanks and marks around."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    seen = [unicodedata.category(character)[0] in "LN" for character in plain]
    if not any(seen):
        return ""
    return plain[seen.index(True) : len(seen) - seen[::-1].index(True)]


def reply_digest(reply: UplinkReply, arrived_at: float) -> bytes:
    """Return what is the same for a repeated reply, and for no other.

    The time counts where there is no id: the same word may be sent twice.
    """
    parts = [reply.provider_id or f"at {arrived_at}", reply.number, reply.channel or "", reply.text]
    return sha256("\0".join(parts).encode()).digest()


def _json_records(text: bytes) -> list[Mapping[str, str] | Unreadable]:
    try:
        read: Any = lenient_json.loads(decode_text(text), strict=False)
    except (ValueError, RecursionError):
        return [Unreadable("The push is damaged JSON.", "json")]
    listed = read if isinstance(read, list) else [read]
    return [
        json_fields(one)
        if isinstance(one, dict)
        else Unreadable("A reply of the push is no object.", "field")
        for one in listed
    ] or [Unreadable("The push has no reply.", "json")]


def _reply(fields: Mapping[str, str], words: Collection[str]) -> UplinkReply | Unreadable:
    """Return the reply that *fields* are; names are compared without regard to case."""
    kept, raw = kept_fields(fields)
    found = {name.strip().lower(): value for name, value in reversed(kept.items())}
    number = found.get("from", "")
    forms = possible_forms(number) if len(number) <= _LONGEST_NUMBER else []
    if not forms or _NUMBER.fullmatch(forms[0]) is None:
        return Unreadable("A reply has no number of its sender.", "missing")
    if "status" in found and "body" not in found:
        return Unreadable("It is a status report, and no reply.", "missing")
    text = found.get("body", "")[:_MAX_TEXT]
    provider_id = found.get("smsmsgid", "").strip()[:_LONGEST_ID]
    return UplinkReply(
        provider_id=provider_id or None,
        number=forms[0],
        channel=found.get("to", "").strip()[:_LONGEST_NUMBER] or None,
        text=text,
        unsubscribes=plain_word(text) in words and not is_masked(forms[0]),
        replied_at=utc_time(found.get("createtime", "")),
        raw=raw,
    )
