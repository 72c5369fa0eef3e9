"""Parses the provider's status reports from untrusted bytes.

A report is malformed only if it cannot be stored or identified. The limits are wider than the
documented ones (provider.md, Status reports): real reports exceed those, and a refused report is
lost.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from msgspec import DecodeError, Struct, json

from dispatcher.core.report_status import State, report_status

MAX_FORM_BYTES = 16_384  # one report takes 200 to 500 bytes
MAX_JSON_BYTES = 262_144  # fifty reports, and five times that for unknown fields
MAX_REPORTS = 50  # in one push (Status Report Receiving API)
MAX_FIELDS = 40  # of one report; ten are known (provider.md, Status reports)
MAX_SEGMENTS = 1000
CHECK_STATUS = "X-CHECK"  # a test report of `dispatcher check`; it is not stored
_MAX_LENGTHS = {"smsMsgId": 128, "status": 64, "extend": 256, "to": 64, "orgCode": 64}
_MAX_OTHER_LENGTH = 2048
_MAX_NAME_LENGTH = 64


class Report(Struct, frozen=True, gc=False):
    """One status report: of one segment of one message."""

    provider_id: str
    segment: int  # 1 when the message was not split
    total: int  # segments of the message
    status: str  # as received
    state: State
    token: str | None = None  # the extend of the request, if it sent one
    recipient: str | None = None  # as received; see core.message.to_e164
    updated_at: datetime | None = None  # UTC; None if the platform made the report itself
    source: int | None = None  # 1 platform, 2 carrier, 3 provider
    description: str | None = None
    org_code: str | None = None
    raw: str = "{}"  # all fields, unknown ones too, as a JSON object


class Malformed(Struct, frozen=True):
    """A push with malformed reports, which is answered with *status*."""

    reason: str  # one line for people, without values
    status: int = 400
    reports: list[Report] = []  # the valid ones of a batch; they are stored
    word: str = "field"  # the label under which it is counted


def parse_form(body: bytes) -> list[Report] | Malformed:
    """Return the single report of a form-encoded push."""
    if len(body) > MAX_FORM_BYTES:
        return Malformed(f"The push is longer than {MAX_FORM_BYTES} bytes.", 413, word="size")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        return Malformed("The push is not form-encoded UTF-8.", word="form")
    except ValueError:
        return Malformed(f"The push is no form, or has more than {MAX_FIELDS} fields.", word="form")
    fields = dict(pairs)
    if len(fields) != len(pairs):
        return Malformed("A field stands twice in the push.", word="form")
    report = _report(fields)
    return report if isinstance(report, Malformed) else [report]


def parse_json(body: bytes) -> list[Report] | Malformed:
    """Return the reports of a batch push; if some are malformed, the others with the reason."""
    if len(body) > MAX_JSON_BYTES:
        return Malformed(f"The push is longer than {MAX_JSON_BYTES} bytes.", 413, word="size")
    try:
        read = _decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return Malformed("The push is not JSON.", word="json")
    listed = read.get("statusReportList") if isinstance(read, dict) else None
    if not isinstance(listed, list) or not listed:
        return Malformed("The push has no statusReportList.", word="json")
    if len(listed) > MAX_REPORTS:
        return Malformed(f"The push has more than {MAX_REPORTS} reports.", 413, word="size")
    reports: list[Report] = []
    bad: list[Malformed] = []
    for one in listed:
        fields = _fields(one)
        report = fields if isinstance(fields, Malformed) else _report(fields)
        if isinstance(report, Malformed):
            bad.append(report)
        else:
            reports.append(report)
    if bad:
        reason = f"{len(bad)} of {len(listed)} reports are malformed. {bad[0].reason}"
        return Malformed(reason, reports=reports, word=bad[0].word)
    return reports


_decode = json.Decoder().decode
_encode = json.Encoder().encode


def _fields(one: object) -> dict[str, str] | Malformed:
    """Return the fields of a report in JSON as text; numbers may be JSON numbers."""
    if not isinstance(one, dict):
        return Malformed("A report of the batch is no object.")
    if len(one) > MAX_FIELDS:
        return Malformed(f"A report has more than {MAX_FIELDS} fields.")
    fields: dict[str, str] = {}
    for name, value in one.items():
        if isinstance(value, dict | list):
            return Malformed("A field of a report is neither text nor number.")
        if value is not None:
            fields[name] = value if isinstance(value, str) else _encode(value).decode()
    return fields


def _report(fields: Mapping[str, str]) -> Report | Malformed:
    """Return the report with *fields*."""
    problem = _storage_problem(fields)
    if problem is not None:
        return Malformed(problem)
    provider_id, status = fields.get("smsMsgId", "").strip(), fields.get("status", "").strip()
    if not provider_id or not status:
        return Malformed("A report lacks smsMsgId or status.", word="missing")
    segment, total = _count(fields, "sequence"), _count(fields, "total")
    if segment is None or total is None:
        reason = f"sequence or total of a report is not a number from 1 to {MAX_SEGMENTS}."
        return Malformed(reason, word="segment")
    source = fields.get("source", "")
    return Report(
        provider_id=provider_id,
        segment=segment,
        total=max(total, segment),
        status=status,
        state=report_status(status).state,
        token=fields.get("extend") or None,
        recipient=fields.get("to") or None,
        updated_at=_time(fields.get("updateTime", "")),
        source=int(source) if source in {"1", "2", "3"} else None,
        description=fields.get("statusDesc") or None,
        org_code=fields.get("orgCode") or None,
        raw=_encode(fields).decode(),
    )


def _storage_problem(fields: Mapping[str, str]) -> str | None:
    """Return why *fields* cannot be stored, or None."""
    for name, value in fields.items():
        if len(name) > _MAX_NAME_LENGTH:
            return f"A field's name is longer than {_MAX_NAME_LENGTH} characters."
        limit = _MAX_LENGTHS.get(name, _MAX_OTHER_LENGTH)
        if len(value) > limit:
            return f"{_public_name(name)} is longer than {limit} characters."
        if "\0" in value or "\0" in name:
            return f"{_public_name(name)} has a NUL character."
    return None


def _public_name(name: str) -> str:
    """Return the name of a known field; an unknown one may hold anything and is not shown."""
    return name if name in _MAX_LENGTHS else "A field"


def _count(fields: Mapping[str, str], name: str) -> int | None:
    """Return sequence or total; 1 if it is missing, None if it is invalid."""
    text = fields.get(name, "").strip() or "1"
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SEGMENTS))):
        return None
    return int(text) if 1 <= int(text) <= MAX_SEGMENTS else None


def _time(text: str) -> datetime | None:
    """Return updateTime in UTC; None if it is missing or invalid (the raw copy keeps it)."""
    try:
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
