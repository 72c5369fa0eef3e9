"""Reads status reports from what the provider pushes, whatever became of it on the way.

A report comes once: the provider neither repeats a push nor looks at its answer (provider.md,
Status reports). So reading is lenient. A report needs an id and a status; everything else may be
missing, damaged or in another encoding, and is then left out or replaced. What has no id or no
status is `Unreadable`: it is kept as it came, for people and for a later release.
"""

import json as lenient_json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from msgspec import DecodeError, Struct, json

from dispatcher.core.format import mask_if_number
from dispatcher.core.number import without_numbers
from dispatcher.core.report_status import STATUSES, State, report_status
from dispatcher.core.report_time import AROUND_VALUE, utc_time
from dispatcher.core.wire import TOKEN_BYTES, decode_text

MAX_BYTES = 262_144  # of a push: fifty reports, and five times that for unknown fields
MAX_FIELDS = 40  # of one report that are kept; ten are known (provider.md, Status reports)
MAX_SEGMENTS = 1000
CHECK_STATUS = "X-CHECK"  # no carrier's: a test report of `dispatcher check`, which is not kept
_LONGEST_ID = 128
_LONGEST_STATUS = 64
_LONGEST = {"extend": 256, "to": 64, "orgCode": 64}  # a longer value is none
_LONGEST_OTHER = 2048  # a longer value is cut
_LONGEST_NAME = 64
_MAX_DAMAGED_STARTS = 1000  # places in damaged JSON at which a report is looked for
_MAX_DAMAGED_CHARACTERS = 2_097_152  # that are parsed from these places: a fifth of a second
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UNMARKED_UTF_16 = ((slice(1, 4, 2), "utf-16-le"), (slice(0, 3, 2), "utf-16-be"))
_BOM = b"\xef\xbb\xbf"
_AROUND = b"\0 \t\r\n"
# A token, perhaps with something beside it; a longer run of digits is none.
_HEX_RUN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{%d,%d}(?![0-9a-f])" % (2 * TOKEN_BYTES, 64))
_MAX_TOKENS = 5000  # of one push, and some more
_MAX_ODD_CHARACTERS = 256  # of a value that is made plain: NFKC of 16,000 marks takes seconds


class Report(Struct, frozen=True, gc=False):
    """One status report: of one segment of one message."""

    provider_id: str
    segment: int  # 1 when the message was not split
    total: int  # segments of the message
    status: str  # as it came, but for numbers in it
    state: State
    token: str | None = None  # the extend of the request, if it sent one
    recipient: str | None = None  # as it came; for its canonical forms see core.number
    updated_at: datetime | None = None  # UTC; None when the platform made the report up
    source: int | None = None  # 1 platform, 2 carrier, 3 provider
    description: str | None = None
    org_code: str | None = None
    raw: str = "{}"  # all fields, also the unknown ones, as a JSON object


class Unreadable(Struct, frozen=True):
    """Why a push, or a part of it, is no report."""

    reason: str  # one line for people, without values
    word: str  # it is counted under


class Push(Struct, frozen=True):
    """What was read of one push."""

    reports: list[Report]
    unreadable: Unreadable | None = None  # a part of it, or all


def read_push(body: bytes) -> Push:
    """Return the reports that *body* holds, a form or JSON, whatever it is called."""
    text = trimmed(body)
    if not text:
        return Push([], Unreadable("The push is empty.", "empty"))
    if text[:1] in (b"{", b"["):
        return _read_json(text)
    fields = form_fields(text)
    if isinstance(fields, Unreadable):
        return Push([], fields)
    report = _report(fields)
    return Push([], report) if isinstance(report, Unreadable) else Push([report])


def possible_tokens(body: bytes) -> list[str]:
    """Return what in *body* may be a token of a request, where it cannot be read as reports."""
    digits = 2 * TOKEN_BYTES
    found: set[str] = set()
    for run in _HEX_RUN.findall(unquote_to_bytes(trimmed(body)).lower()):
        # What stands before or behind it may look like a part of it.
        found.update(run[at : at + digits].decode() for at in range(len(run) - digits + 1))
        if len(found) >= _MAX_TOKENS:
            break
    return sorted(found)


def trimmed(body: bytes) -> bytes:
    """Return *body* in UTF-8 where it is in UTF-16, without byte order mark and blanks around."""
    if body.startswith(_UTF_16):
        body = body.decode("utf-16", "replace").encode()
    elif b"\0" in body[:2]:
        for other_halves, encoding in _UNMARKED_UTF_16:
            if body[other_halves] == b"\0\0" and body[:4].strip(b"\0"):
                body = body.decode(encoding, "replace").encode()
                break
    return body.strip(_AROUND).removeprefix(_BOM).lstrip(_AROUND)


class _Documented(Struct):
    """A batch as it is documented: each value is a text (provider.md, Status reports)."""

    statusReportList: list[dict[str, str]]  # noqa: N815 - the provider's name


_decode_documented = json.Decoder(_Documented).decode
_decode = json.Decoder().decode
_encode = json.Encoder().encode


def form_pairs(text: str) -> list[tuple[str, str]]:
    """Return the fields of an ASCII form, as `parse_qsl` does that keeps blank values.

    It takes less than half the time, because most fields have nothing to decode.
    Raises UnicodeDecodeError.
    """
    pairs = []
    for field in text.split("&"):
        if field:
            name, _, value = field.partition("=")
            if "%" in field or "+" in field:
                name, value = _unquoted(name), _unquoted(value)
            pairs.append((name, value))
    return pairs


def _unquoted(text: str) -> str:
    text = text.replace("+", " ")
    return unquote_to_bytes(text).decode() if "%" in text else text


def form_fields(body: bytes) -> dict[str, str] | Unreadable:
    """Return the fields of a form; of a field that stands twice the first value."""
    try:  # nearly always
        pairs = form_pairs(body.decode("ascii"))
    except UnicodeDecodeError:
        damaged = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
        pairs = [
            (decode_text(name.encode("latin-1")), decode_text(value.encode("latin-1")))
            for name, value in damaged
        ]
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    for name in _REQUIRED:
        if len({value for known, value in pairs if known.lower() == name.lower()}) > 1:
            return _twice(name)
    return dict(reversed(pairs))


_REQUIRED = ("smsMsgId", "status")
_REQUIRED_NAMES = frozenset(map(str.lower, _REQUIRED))


def _twice(name: str) -> Unreadable:
    return Unreadable(f"{name} stands twice in the push, with two values.", "twice")


def _read_json(body: bytes) -> Push:
    """Return the reports of a batch, of a bare list, or the one report that stands alone."""
    documented = _read_documented(body)
    if documented:  # nearly always
        return Push(documented)
    listed, left_out = _read_leniently(body)
    if not listed:
        return Push([], left_out or Unreadable("The push has no statusReportList.", "json"))
    reports: list[Report] = []
    bad: list[Unreadable] = []
    for one in listed:
        for read in _read_one(one):
            if isinstance(read, Unreadable):
                bad.append(read)
            else:
                reports.append(read)
    if not bad:
        return Push(reports, left_out)
    if not reports and len(bad) == 1:
        return Push([], bad[0])
    told = f"{len(bad)} of {len(listed)} reports cannot be read. {bad[0].reason}"
    return Push(reports, Unreadable(told, "part"))


def _read_documented(body: bytes) -> list[Report] | None:
    """Return the reports of a batch as it is documented; None if there is anything odd in it."""
    try:
        listed = _decode_documented(body).statusReportList
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if _may_hold_twins(body, len(listed)):
        return None
    reports = [report for report in map(_report, listed) if isinstance(report, Report)]
    return reports if len(reports) == len(listed) else None


def _may_hold_twins(body: bytes, reports: int) -> bool:
    """Tell whether a list, an id or a status may stand twice: msgspec takes the last one.

    Of two lists the first one's reports are in *body* and not among the *reports* that were read.
    """
    return body.count(b'"status"') > reports or body.count(b'"smsMsgId"') > reports


class _Twins(list[Any]):
    """The different values of a name that stands twice in an object."""


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of an object in JSON: of two lists both, of two ids or statuses `_Twins`.

    Of any other name that stands twice it has the last value, as msgspec has.
    """
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    for name in (_LIST, *_REQUIRED):
        values = [value for known, value in pairs if known == name]
        if name == _LIST and len(values) > 1:
            fields[name] = [one for value in values for one in _listed({name: value})]
        elif any(value != values[0] for value in values):
            fields[name] = _Twins(values)
    return fields


_LIST = "statusReportList"
_lenient = lenient_json.JSONDecoder(strict=False)
_with_twins = lenient_json.JSONDecoder(strict=False, object_pairs_hook=_fields)  # takes longer


_OUTSIDE = Unreadable("Reports stand outside of the list of the push.", "part")


def _read_leniently(body: bytes) -> tuple[list[Any], Unreadable | None]:
    """Return the reports that *body* lists, and why it may hold others; None if it does not."""
    try:
        listed = _listed(_decode(body))
    except (DecodeError, UnicodeDecodeError, RecursionError):
        pass
    else:
        if not _may_hold_twins(body, len(listed)):
            return listed, None
    text = decode_text(body)
    try:
        read = _with_twins.decode(text)
        listed = _listed(read)
    except (ValueError, RecursionError):
        listed = list(_salvaged(text))
        reason = "The push is damaged JSON; some reports were read."
        return listed, Unreadable(reason if listed else "The push is damaged JSON.", "json")
    return listed, _OUTSIDE if 0 < len(listed) < _reports_in(read) else None


def _reports_in(read: object) -> int:
    """Return how many objects of a JSON value have an id and a status, wherever they stand."""
    found, left = 0, [read]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            found += {name.lower() for name in one} >= _REQUIRED_NAMES
            left += one.values()
        elif isinstance(one, list) and not isinstance(one, _Twins):
            left += one
    return found


_NO_OBJECT = Unreadable("A report of the batch is no object.", "field")


def _read_one(one: object) -> Iterator[Report | Unreadable]:
    """Yield the report that *one*, of a list in JSON, is, or why it is none.

    With two statuses both: whichever is right, a report proves that its request was accepted.
    """
    if not isinstance(one, dict):
        yield _NO_OBJECT
    elif isinstance(one.get("smsMsgId"), _Twins):
        yield _twice("smsMsgId")
    elif isinstance(statuses := one.get("status"), _Twins):
        yield _report(json_fields(one | {"status": statuses[-1]}))
        yield _twice("status")
    else:
        yield _report(json_fields(one))


def _listed(read: object) -> list[Any]:
    """Return the reports that a JSON value lists; a bare list may hold whole batches."""
    if isinstance(read, list):
        return [each for one in read for each in (_of_batch(one) or [one])]
    is_report = isinstance(read, dict) and not _REQUIRED_NAMES.isdisjoint(map(str.lower, read))
    return _of_batch(read) or ([read] if is_report else [])


def _of_batch(read: object) -> list[Any]:
    """Return the reports of a batch; none if *read* is no batch."""
    if not isinstance(read, dict):
        return []
    listed = read.get(_LIST)
    if listed is None:
        listed = next((read[name] for name in read if name.lower() == _LIST.lower()), None)
    if isinstance(listed, str):  # a list that was encoded twice
        try:
            listed = _with_twins.decode(listed)
        except (ValueError, RecursionError):
            return []
    if isinstance(listed, dict):
        return [listed]
    return listed if isinstance(listed, list) else []


def _salvaged(text: str) -> Iterator[dict[str, Any]]:
    """Yield the whole reports that stand in damaged JSON.

    Objects that stand in each other and do not end are parsed to the end from each of them, so
    the work is limited.
    """
    at = parsed = 0
    for _ in range(_MAX_DAMAGED_STARTS):
        at = text.find("{", at)
        if at < 0 or parsed > _MAX_DAMAGED_CHARACTERS:
            return
        try:
            read, end = _lenient.raw_decode(text, at)
            listed = _listed(read)  # of a whole batch, too, behind which something stands
            if _may_hold_twins(text[at:end].encode(errors="replace"), len(listed)):
                listed = _listed(_with_twins.raw_decode(text, at)[0])
        except lenient_json.JSONDecodeError as error:
            # Of a string that does not end it has the beginning.
            parsed += (len(text) if error.msg.startswith("Unterminated") else error.pos) - at
            at += 1
            continue
        except (ValueError, RecursionError):
            parsed += len(text) - at
            at += 1
            continue
        yield from (one for one in listed if isinstance(one, dict) and _has_id(one))
        at = end


def _has_id(one: dict[str, Any]) -> bool:
    return "smsmsgid" in map(str.lower, one)


def json_fields(one: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a report in JSON, whose numbers may be numbers.

    A field that is nested too deeply to be encoded is left out.
    """
    fields: dict[str, str] = {}
    for name, value in one.items():
        if isinstance(value, str):
            fields[name] = value
        elif value is not None:
            with suppress(RecursionError):
                fields[name] = lenient_json.dumps(value)
    return fields


def _report(fields: dict[str, str], raw: dict[str, str] | None = None) -> Report | Unreadable:
    """Return the report that *fields* are; *raw* are those that came, if they are others."""
    stored = _stored(fields)
    if stored is not fields:  # perhaps for odd characters
        raw, fields = raw or stored, _in_plain_characters(stored)
    provider_id = fields.get("smsMsgId", "").strip(AROUND_VALUE)
    status = fields.get("status", "").strip(AROUND_VALUE)
    if not provider_id or not status:
        named = _documented_names(fields)
        if len(named) > len(fields):
            return _report(named, raw or fields)
        return Unreadable("A report has no smsMsgId, or no status.", "missing")
    if len(provider_id) > _LONGEST_ID or provider_id[0] in "{[":
        return Unreadable("The smsMsgId of a report is no id.", "id")
    status = status[:_LONGEST_STATUS]
    known = STATUSES.get(status.upper())
    if known is None:
        status = mask_if_number(status)
        known = report_status(status)
    token = _short(fields, "extend")
    words = fields.get("statusDesc")
    segment, total = _segment(fields)
    return Report(
        provider_id=provider_id,
        segment=segment,
        total=total,
        status=status,
        state=known.state,
        token=(token.strip(AROUND_VALUE) or None) if token else None,
        recipient=_short(fields, "to"),
        updated_at=utc_time(fields.get("updateTime", "")),
        source=_SOURCES.get(fields.get("source", "").strip()),
        description=without_numbers(words) or None if words else None,
        org_code=_short(fields, "orgCode"),
        raw=_encode(raw or fields).decode(),
    )


_SOURCES = {"1": 1, "2": 2, "3": 3}


def _documented_names(fields: dict[str, str]) -> dict[str, str]:
    """Return *fields* with the documented names too, which a sender may write in another case."""
    named = {_BY_LOWER.get(name.strip().lower(), name): fields[name] for name in fields}
    return named | fields


def _in_plain_characters(fields: dict[str, str]) -> dict[str, str]:
    """Return *fields*; id, status and token in one width and without what nobody sees."""
    odd = [name for name in _COMPARED if name in fields and not fields[name].isascii()]
    return fields | {name: _plain(fields[name]) for name in odd} if odd else fields


def _plain(text: str) -> str:
    if len(text) > _MAX_ODD_CHARACTERS:
        return text
    text = unicodedata.normalize("NFKC", text)
    return "".join(one for one in text if unicodedata.category(one) != "Cf").strip()


def kept_fields(fields: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the fields as they are stored, and the same as a JSON object."""
    stored = _stored(dict(fields))
    return stored, _encode(stored).decode()


def _stored(fields: dict[str, str]) -> dict[str, str]:
    """Return *fields* as a database can store them: no odd characters, none too long."""
    names: Collection[str] = () if fields.keys() <= _NAMES else fields  # those to be looked at
    every = "".join((*names, *fields.values()))
    if not every.isascii() or "\0" in every:
        fields = {_storable(name): _storable(value) for name, value in fields.items()}
        names = fields
    if (
        len(fields) > MAX_FIELDS
        or max(map(len, names), default=0) > _LONGEST_NAME
        # All values together seldom have as many characters as one may have.
        or (len(every) > _LONGEST_OTHER and max(map(len, fields.values())) > _LONGEST_OTHER)
    ):
        fields = _cut(fields)
    return fields


_SURROGATE = re.compile("[\ud800-\udfff]")


def _storable(text: str) -> str:
    """Return *text* as a database can store it: without NUL and without half characters."""
    text = text.replace("\0", "")
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


_KNOWN = (
    *("smsMsgId", "status", "extend", "to", "total", "sequence", "source", "updateTime"),
    *("from", "body", "createTime"),
)
_NAMES = frozenset((*_KNOWN, "statusDesc", "orgCode"))  # nearly always no others come
_COMPARED = ("smsMsgId", "status", "extend")
_BY_LOWER = {name.lower(): name for name in _NAMES}


def _cut(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that are kept, the known ones first, and none of them too long."""
    names = sorted(fields, key=lambda name: name not in _KNOWN)
    return {name[:_LONGEST_NAME]: fields[name][:_LONGEST_OTHER] for name in names[:MAX_FIELDS]}


def _short(fields: Mapping[str, str], name: str) -> str | None:
    """Return a value that is compared as a whole; None for one that is too long to be genuine."""
    value = fields.get(name)
    return value if value and len(value) <= _LONGEST[name] else None


def _segment(fields: Mapping[str, str]) -> tuple[int, int]:
    """Return which segment a report is of, and of how many.

    `sequence` counts only where `total` is more than 1 (Status Report Receiving API). Of a
    message in several segments, a sender that counts from 0 has its 0 taken for the last.
    """
    if fields.get("total") == "1":  # nearly always
        return 1, 1
    total = _count(fields.get("total", ""))
    if total <= 1:
        return 1, 1
    segment = _count(fields.get("sequence", ""))
    return (segment, max(total, segment)) if segment else (total, total)


def _count(text: str) -> int:
    """Return a number from 1 to `MAX_SEGMENTS`, and 0 for anything else."""
    text, point, fraction = text.strip(AROUND_VALUE).partition(".")
    if point and fraction.strip("0"):  # 2.0 is a 2 that a program has taken for a decimal
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_SEGMENTS))):
        return 0
    return int(text) if int(text) <= MAX_SEGMENTS else 0
