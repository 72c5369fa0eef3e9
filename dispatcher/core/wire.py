"""Encodes requests and decodes answers in the provider's format.

A request is encoded once: the same bytes are measured, signed and sent. ``smsContent`` is joined
from the contents of the entries, which packing has encoded already.
"""

import json as lenient_json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

from msgspec import DecodeError, Meta, Struct, ValidationError, json
from msgspec.structs import replace

from dispatcher.core.message import (
    Answer,
    Entry,
    Message,
    NoReply,
    NumberResult,
    Reply,
    RequestDraft,
    to_e164,
)
from dispatcher.core.number import without_numbers

PATH = "/sms/batchSendDiffSms/v1"
TOKEN_BYTES = 16  # 128 bits, sent as 32 hexadecimal digits: the token of a batch cannot be guessed
MAX_NUMBERS = 500  # one more and the provider sends to none of them (provider.md, The request)
MAX_BODY_BYTES = 65_536  # 64 KB are for smsContent; the whole body is held under it

encode_json: Callable[[object], bytes] = json.Encoder().encode
"""Encode a JSON value as UTF-8, with the escapes that JSON requires and no others."""

EMPTY_REQUEST = b'{"smsContent":[]}'  # sends nothing; the answer shows whether the key is valid

ENTRY_BYTES = len(b',{"to":[')  # of an entry, besides its numbers and its content
COMMA_BYTES = 1  # between two numbers of an entry
MAX_FRAMES = 1000  # of templates and signatures that are remembered


def content(message: Message) -> bytes:
    """Return the part of an element of smsContent after its numbers, for *message*.

    It begins by closing the list of numbers. Messages of equal content may share an element.
    """
    bare, before, after = content_frame(message.template_id, message.signature)
    return before + encode_json(message.params) + after if message.params else bare


@lru_cache(MAX_FRAMES)
def content_frame(template_id: str, signature: str | None) -> tuple[bytes, bytes, bytes]:
    """Return the content without variables, and the bytes before and after variables."""
    template = b'],"templateId":' + encode_json(template_id)
    name = b"}" if signature is None else b',"signature":' + encode_json(signature) + b"}"
    return template + name, template + b',"templateParas":', name


def entry_bytes(entry: Entry) -> int:
    """Return the bytes that *entry* adds to a body, with the comma before it."""
    numbers = (
        sum(len(encode_json(message.recipient)) + COMMA_BYTES for message in entry.messages)
        - COMMA_BYTES
    )
    return ENTRY_BYTES + numbers + len(entry.content)


def overhead(sender: str | None, *, token_length: int, callback: str | None) -> int:
    """Return the bytes of a body besides its entries, as `entry_bytes` counts them.

    The comma that `entry_bytes` counts for the first entry is subtracted here.
    """
    head, tail = _around(sender, token="t" * token_length, callback=callback)
    return len(head) + len(tail) - 1


def encode(packed: RequestDraft, *, token: str, callback: str | None) -> bytes:
    """Return the body of the request, as it is signed and sent.

    It has exactly ``packed.size`` bytes, for the callback and the length of token it was packed
    for. The token is sent as ``extend``, and every report returns it. A report without a token has
    no number either, so no request is sent without one.
    """
    head, tail = _around(packed.sender, token=token, callback=callback)
    parts = [head]
    for entry in packed.entries:
        if len(entry.messages) == 1:
            numbers = encode_json(entry.messages[0].recipient)
        else:
            numbers = encode_json([message.recipient for message in entry.messages])[1:-1]
        parts += b',{"to":[', numbers, entry.content
    parts[1] = parts[1][1:]  # no comma before the first entry
    parts.append(tail)
    return b"".join(parts)


def _around(sender: str | None, *, token: str, callback: str | None) -> tuple[bytes, bytes]:
    """Return the body before and after its entries."""
    head = b"{" if sender is None else b'{"from":' + encode_json(sender) + b","
    tail = b"]" if callback is None else b'],"statusCallback":' + encode_json(callback)
    return head + b'"smsContent":[', tail + b',"extend":' + encode_json(token) + b"}"


_MAX_TEXT_LENGTH = 200  # characters that are stored; ids have 50 (provider.md, Status reports)
_MAX_SEGMENTS = 1000
_Text = Annotated[str, Meta(max_length=_MAX_TEXT_LENGTH)]


class _Number(
    NumberResult,
    frozen=True,
    gc=False,
    rename={
        "recipient": "originTo",
        "code": "status",
        "provider_id": "smsMsgId",
        "segments": "total",
        "country": "countryId",
    },
):
    """A `NumberResult` with the provider's names: decoding into it directly saves 0.15 µs."""

    recipient: _Text
    code: Annotated[str, Meta(min_length=1, max_length=_MAX_TEXT_LENGTH)]
    provider_id: Annotated[str, Meta(min_length=1, max_length=_MAX_TEXT_LENGTH)] | None = None
    segments: Annotated[int, Meta(ge=1, le=_MAX_SEGMENTS)] | None = None
    country: _Text | None = None


class _AnswerBody(Struct, frozen=True):
    """An answer as it is documented (provider.md, The answer)."""

    code: str
    description: str
    result: list[_Number] | None = None


_documented = json.Decoder(_AnswerBody)
ACCEPTED_CODE = "000000"  # of a number (provider.md, The answer)
API_CODE = re.compile("[A-Z]?[0-9]{6}", re.ASCII)  # the form of all known codes
_MAX_CODE_LENGTH = 7  # characters, as E000510 (provider.md, The answer)
_MAX_DESCRIPTION_LENGTH = 512
_MAX_READ_LENGTH = 10_000  # characters of free text in which markup and numbers are looked for
_BOM = b"\xef\xbb\xbf"
_NAMES_RESULTS = re.compile(rb"smsMsgId|originTo")  # fields of results alone
_FIRST_ERROR_STATUS = 300  # HTTP statuses from here on say that a request was not carried out


def read_answer(
    http_status: int,
    body: bytes,
    *,
    clock_skew: float | None = None,
    retry_after: float | None = None,
) -> Answer:
    """Decode an HTTP answer; raises nothing, whatever it holds.

    A body of this API becomes a `Reply`, with its results if it has some: a captured answer had
    results beside an error code (provider.md, The answer). If none of the results that it names can
    be read it is a `NoReply`, whatever its code and status: they may say that it was accepted. Any
    other body comes from a gateway or a proxy: it gets the gateway's code or ``HTTP <status>``,
    with its words as the description; with a status of success it is a `NoReply`.
    """
    # A backslash may be an escaped NUL, which PostgreSQL cannot store: _read_leniently drops it.
    if b"\\" not in body:
        try:
            read = _documented.decode(body)
        except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError):
            pass
        else:
            if API_CODE.fullmatch(read.code) and _is_plain(read.result, body):
                description = without_numbers(read.description[:_MAX_READ_LENGTH])
                description = description[:_MAX_DESCRIPTION_LENGTH]
                # list is invariant, and this is a list of a subclass
                results: list[Any] | None = read.result
                return Reply(http_status, read.code, description, results, clock_skew, retry_after)
    text = decode_text(body.removeprefix(_BOM))
    read_json, rest = _lenient_json(text)
    reply = _read_leniently(http_status, read_json, clock_skew, retry_after)
    names_results = _NAMES_RESULTS.search(body.replace(b"\0", b"")) is not None  # UTF-16 has NULs
    # After a success, what follows may be the answer, and what stands before it another one.
    in_doubt = names_results or (rest and http_status < _FIRST_ERROR_STATUS)
    if reply is not None and reply.results and _names_others(body, read_json, rest):
        accepted = [one for one in reply.results if one.code == ACCEPTED_CODE]
        reply = replace(reply, results=accepted)
    if reply is not None and (reply.results or not in_doubt):
        return reply
    code, words = _gateway_words(http_status, read_json, text)
    if http_status >= _FIRST_ERROR_STATUS and not names_results:
        return Reply(http_status, code, words, None, clock_skew, retry_after)
    said = f": {words}" if words else "."
    reason = f"The answer, HTTP {http_status}, cannot be read{said}"
    return NoReply(reason, sent=True, code="unreadable")


def _names_others(body: bytes, read: object, rest: str) -> bool:
    """Tell whether *body* names results besides those of the list that was read, *rest* behind it.

    They may say that a number was accepted which that list refuses.
    """
    listed = len(read["result"]) if isinstance(read, dict) else 0
    named = max(map(body.count, (b'"originTo"', b'"smsMsgId"')))
    return named > listed or _NAMES_RESULTS.search(rest.encode(errors="replace")) is not None


def _is_plain(results: list[_Number] | None, body: bytes) -> bool:
    """Tell whether *results* are all that *body* names, and no value of them holds a blank."""
    if not results:
        return _NAMES_RESULTS.search(body) is None
    # A status may stand twice in one result, or two lists in one answer. Where all that was read is
    # accepted that changes nothing: what another list holds is unsure.
    refused = [one.code for one in results].count(ACCEPTED_CODE) < len(results)
    if refused and body.count(b'"status"') > len(results):
        return False
    if b" " not in body and body.isascii():  # nearly always
        return True
    values = "".join(f"{one.code}{one.provider_id}" for one in results)
    return " " not in values and values.isascii()


def decode_text(raw: bytes) -> str:
    """Return text in UTF-8 or, for the provider is Chinese, in GBK; else with what is readable."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "replace")


def _lenient_json(text: str) -> tuple[object, str]:
    """Return the JSON value at the beginning of *text*, or None, and what follows it."""
    text = text.lstrip()
    try:
        read, end = _lenient_decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None, ""
    return read, text[end:].strip()


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of an object, in which one may stand twice.

    Lists are joined. Of two statuses, accepted wins, because it was sent; two others say nothing.
    """
    fields: dict[str, Any] = {}
    for name, value in pairs:
        known = fields.get(name)
        if isinstance(known, list) and isinstance(value, list):
            fields[name] = known + value
        elif name == "status" and name in fields and _status(value) != _status(known):
            accepted = ACCEPTED_CODE in (_status(value), _status(known))
            fields[name] = ACCEPTED_CODE if accepted else None
        else:
            fields[name] = value
    return fields


_lenient_decoder = lenient_json.JSONDecoder(strict=False, object_pairs_hook=_fields)


def _read_leniently(
    http_status: int, read: object, clock_skew: float | None, retry_after: float | None
) -> Reply | None:
    """Decode an answer that deviates from the documents; None if it is not of this API."""
    if not isinstance(read, dict):
        return None
    code = _status(read.get("code"))
    listed = read.get("result")
    results = _results(listed) if isinstance(listed, list) else None
    # JSON of another program may have a code too: 404, "NotFound".
    if not results and not (isinstance(read.get("code"), str) and API_CODE.fullmatch(code)):
        return None
    description = without_numbers(_text(read.get("description")) or "")
    return Reply(
        http_status,
        code[:_MAX_CODE_LENGTH],
        description[:_MAX_DESCRIPTION_LENGTH],
        results,
        clock_skew,
        retry_after,
    )


_GATEWAY_REFUSALS = (400, 401, 403, 404)  # of others the HTTP status says more
_GATEWAY_CODE = re.compile(r"(?:APIGW|APIG|MSGSMS)\.[0-9]{4}")
_MAX_WORDS_LENGTH = 200  # characters of a text by a gateway or a proxy
_MARKUP = re.compile(
    r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE
)


def _gateway_words(http_status: int, read: object, text: str) -> tuple[str, str]:
    """Return code and words of an answer that is not the API's; the words hold no number.

    The code is the gateway's own where it says more than the HTTP status; after a failure (5xx)
    it does not, for the API may have had the request.
    """
    code = f"HTTP {http_status}"
    if isinstance(read, dict):
        own = _text(read.get("error_code")) or _text(read.get("code")) or ""
        words = _text(read.get("error_msg")) or _text(read.get("description"))
        words = words or _text(read.get("message")) or text
        if _GATEWAY_CODE.fullmatch(own) and http_status in _GATEWAY_REFUSALS:
            code = own
        elif own:
            words = f"{own}: {words}"
    else:
        words = _MARKUP.sub(" ", text[:_MAX_READ_LENGTH])
    words = " ".join(without_numbers(words[:_MAX_READ_LENGTH].replace("\0", "")).split())
    return code, words.encode(errors="replace").decode()[:_MAX_WORDS_LENGTH].strip()


def _results(listed: list[Any]) -> list[NumberResult]:
    """Return the results with a status, and a number or an id; others are useless.

    One without a status leaves the number in doubt: another that refuses it does not count.
    """
    results = []
    in_doubt = set()
    for one in listed:
        if not isinstance(one, dict):
            continue
        recipient, code = _text(one.get("originTo")) or "", _status(one.get("status"))
        provider_id, country = _text(one.get("smsMsgId")), _text(one.get("countryId"))
        if code and (recipient or provider_id):
            segments = _segments(one.get("total"))
            results.append(NumberResult(recipient, code, provider_id, segments, country))
        elif recipient:
            in_doubt.add(to_e164(recipient))
    return [
        one
        for one in results
        if one.code == ACCEPTED_CODE or to_e164(one.recipient) not in in_doubt
    ]


def _text(value: object) -> str | None:
    """Return *value* as text that PostgreSQL can store; None if it is not text or a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).replace("\0", "").encode(errors="replace").decode()  # lone surrogates
    return text.strip()[:_MAX_TEXT_LENGTH] or None


def _status(value: object) -> str:
    """Return a status or code as text; a JSON number has lost its leading zeros."""
    text = _text(value) or ""
    return text.zfill(len("000000")) if isinstance(value, int) else text


def _segments(value: object) -> int | None:
    text = _text(value) or ""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_SEGMENTS)):
        return None
    return int(text) if 1 <= int(text) <= _MAX_SEGMENTS else None
