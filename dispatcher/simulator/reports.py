"""Status reports of an accepted request, and the posts that carry them. This module does no I/O.

Random choices come from the generator that the caller passes.
"""

from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Final
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Struct
from yarl import URL

from dispatcher.simulator.auth import ALGORITHM, sdk_date, sign
from dispatcher.simulator.ledger import AcceptedRequest, Row
from dispatcher.simulator.options import ReportOptions

MAX_REPORTS_PER_POST: Final = 50  # reports in one post (provider.md, Status reports)
INTERIM_STATUS: Final = "ACCEPTD"

_CARRIER, _PLATFORM = "2", "1"  # `source`

FORM_TYPE: Final = "application/x-www-form-urlencoded"
JSON_TYPE: Final = "application/json"

_SIGNED_HEADERS: Final = ("connection", "content-length", "content-type", "host", "x-sdk-date")


class StatusReport(Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One status report as it is sent: every value is text."""

    sms_msg_id: str
    total: str
    sequence: str
    status: str
    source: str
    org_code: str
    update_time: str | None = None  # absent if the platform itself made the report
    extend: str | None = None
    to: str | None = None  # present only with extend


class ReportPlan(Struct, frozen=True):
    """The reports of one request."""

    reports: list[StatusReport]
    lost: int
    final: list[tuple[Row, str]]  # the final status of each segment, also of those that are lost


def plan_reports(
    accepted: AcceptedRequest, options: ReportOptions, random: Random, *, updated: str
) -> ReportPlan:
    """Return the reports of *accepted*, copies included, in the order of sending."""
    reports: list[StatusReport] = []
    final: list[tuple[Row, str]] = []
    lost = 0
    for row, report in _all_reports(accepted, options, random, updated):
        if report.status != INTERIM_STATUS:
            final.append((row, report.status))
        if options.lost and random.random() < options.lost:
            lost += 1
            continue
        reports.append(report)
        if options.duplicates and random.random() < options.duplicates:
            reports.append(report)
    if options.reorder:
        random.shuffle(reports)
    return ReportPlan(reports, lost, final)


def _all_reports(
    accepted: AcceptedRequest, options: ReportOptions, random: Random, updated: str
) -> Iterator[tuple[Row, StatusReport]]:
    statuses = list(options.mix)
    weights = list(options.mix.values())
    for row in accepted.rows():
        status = random.choices(statuses, weights)[0]
        for sequence in range(1, row.total + 1):
            if options.mix_by == "segment":
                status = random.choices(statuses, weights)[0]
            if options.interim and random.random() < options.interim:
                yield row, _report(row, sequence, INTERIM_STATUS, options, updated)
            yield row, _report(row, sequence, status, options, updated)


def _report(
    row: Row, sequence: int, status: str, options: ReportOptions, updated: str
) -> StatusReport:
    by_platform = is_made_by_platform(status)
    number = row.number
    if options.mainland_to == "canonical" and not number.startswith("+"):
        number = "+86" + number
    return StatusReport(
        sms_msg_id=row.sms_msg_id,
        total=str(row.total),
        sequence=str(sequence),
        status=status,
        source=_PLATFORM if by_platform else _CARRIER,
        org_code="000" if status == "DELIVRD" else status,
        update_time=None if by_platform else updated,
        extend=row.token,
        to=None if row.token is None else number,
    )


def is_made_by_platform(status: str) -> bool:
    """Return whether the platform itself makes this status because the carrier sends none."""
    return status == "EXPIRED" or status.startswith(("E2000", "E0006"))


class ReportPost(Struct, frozen=True):
    """Reports that are sent to one address in one request."""

    url: str
    reports: list[StatusReport]
    batch: bool  # as a JSON list, also for one report

    def body(self) -> bytes:
        """Return the body."""
        if self.batch:
            return msgspec.json.encode({"statusReportList": self.reports})
        return _form(self.reports[0]).encode()

    def headers(self, body: bytes, options: ReportOptions, *, now: float) -> dict[str, str]:
        """Return the headers of *body*, signed if there is a push key."""
        return _headers(self.url, JSON_TYPE if self.batch else FORM_TYPE, body, options, now=now)


class PostedReply(
    Struct, frozen=True, gc=False, rename={"sms_msg_id": "smsMsgId", "sender": "from"}
):
    """A reply of a person (uplink)."""

    sender: str  # the person's number, with +86
    to: str  # the channel number, with the extension of the carrier
    body: str
    sms_msg_id: str  # of the reply itself


class ReplyPost(Struct, frozen=True):
    """A reply that is sent to one address."""

    url: str
    reply: PostedReply

    def body(self) -> bytes:
        """Return the body."""
        return urlencode(msgspec.to_builtins(self.reply)).encode()

    def headers(self, body: bytes, options: ReportOptions, *, now: float) -> dict[str, str]:
        """Return the headers of *body*, signed if there is a push key."""
        return _headers(self.url, FORM_TYPE, body, options, now=now)


def make_replies(
    accepted: AcceptedRequest, options: ReportOptions, random: Random
) -> list[ReplyPost]:
    """Return the replies to *accepted*: only persons in mainland China can reply."""
    if options.reply_url is None or not options.replies:
        return []
    texts, weights = list(options.reply_texts), list(options.reply_texts.values())
    channel = (accepted.sender or "10690000") + options.reply_extension
    posts = []
    for row in accepted.rows():
        number = row.number if row.number.startswith("+") else "+86" + row.number
        if number.startswith("+86") and random.random() < options.replies:
            (text,) = random.choices(texts, weights)
            reply = PostedReply(number, channel, text, f"{row.sms_msg_id}-reply")
            posts.append(ReplyPost(options.reply_url, reply))
    return posts


def _headers(
    url: str, content_type: str, body: bytes, options: ReportOptions, *, now: float
) -> dict[str, str]:
    host, path = _target(url)
    headers = {
        "Connection": "keep-alive" if options.keep_alive else "close",
        "Content-Type": content_type,
        "Host": host,
    }
    if options.push_key is None or options.push_secret is None:
        return headers
    date = sdk_date(now)
    values = {
        "connection": headers["Connection"],
        "content-length": str(len(body)),
        "content-type": headers["Content-Type"],
        "host": headers["Host"],
        "x-sdk-date": date,
    }
    signature = sign(
        options.push_secret,
        method="POST",
        path=path,
        headers=[(name, values[name]) for name in _SIGNED_HEADERS],
        date=date,
        body=body,
    )
    headers["X-Sdk-Date"] = date
    headers["Authorization"] = (  # no spaces after the commas, unlike in requests
        f"{ALGORITHM} Access={options.push_key},SignedHeaders={';'.join(_SIGNED_HEADERS)},"
        f"Signature={signature}"
    )
    return headers


def _form(report: StatusReport) -> str:
    """Encode one report as a form. Values of digits and letters alone need no quoting."""
    fields = (
        f"sequence={report.sequence}&total={report.total}&orgCode={quote_plus(report.org_code)}"
        f"&source={report.source}&smsMsgId={report.sms_msg_id}&status={quote_plus(report.status)}"
    )
    for name, value in (
        ("updateTime", report.update_time),
        ("extend", report.extend),
        ("to", report.to),
    ):
        if value is not None:
            fields += f"&{name}={quote_plus(value)}"
    return fields


@lru_cache(maxsize=256)  # there are few callback addresses
def _target(url: str) -> tuple[str, str]:
    """Return Host, and path with query, as they are sent."""
    target = URL(url)
    return target.host_port_subcomponent or "", target.raw_path_qs


def make_posts(
    callback: str | None, reports: list[StatusReport], options: ReportOptions
) -> list[ReportPost]:
    """Distribute *reports* over posts: forms to the callback, or batches.

    A request without statusCallback gets batches at the app's own address, if there is one.
    Otherwise nothing is posted: the platform keeps its reports for an hour and deletes them.
    """
    url = callback or options.batch_url
    if url is None:
        return []
    if callback is not None and options.batch == 0:
        return [ReportPost(url, [report], batch=False) for report in reports]
    size = options.batch or MAX_REPORTS_PER_POST
    return [
        ReportPost(url, reports[at : at + size], batch=True) for at in range(0, len(reports), size)
    ]
