"""One POST of reports: its body, and its headers, signed if there is a push key."""

from functools import lru_cache
from typing import Final
from urllib.parse import quote_plus

import msgspec
from msgspec import Struct
from yarl import URL

from dispatcher.simulator.reports.options import ReportOptions
from dispatcher.simulator.reports.plan import MAX_BATCH, Report
from dispatcher.simulator.signature import ALGORITHM, sdk_date, sign

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"

_SIGNED: Final = ("connection", "content-length", "content-type", "host", "x-sdk-date")


class Post(Struct, frozen=True):
    """Reports that go to one address in one request."""

    url: str
    reports: list[Report]
    batch: bool  # as a JSON list, even of one

    def body(self) -> bytes:
        """Encode it."""
        if self.batch:
            return msgspec.json.encode({"statusReportList": self.reports})
        return _form(self.reports[0]).encode()

    def headers(self, body: bytes, options: ReportOptions, *, now: float) -> dict[str, str]:
        """Return the headers to send with *body*."""
        host, place = _target(self.url)
        headers = {
            "Connection": "keep-alive" if options.keep_alive else "close",
            "Content-Type": JSON if self.batch else FORM,
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
            path=place,
            headers=[(name, values[name]) for name in _SIGNED],
            date=date,
            body=body,
        )
        headers["X-Sdk-Date"] = date
        headers["Authorization"] = (  # no blanks after the commas, other than in requests
            f"{ALGORITHM} Access={options.push_key},SignedHeaders={';'.join(_SIGNED)},"
            f"Signature={signature}"
        )
        return headers


def _form(report: Report) -> str:
    """Write one report as a form. Only what can hold more than digits and letters is quoted."""
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


@lru_cache(maxsize=256)  # of a few callback addresses
def _target(url: str) -> tuple[str, str]:
    """Return Host, and path with query, as they go over the wire."""
    target = URL(url)
    return target.host_port_subcomponent or "", target.raw_path_qs


def posts(callback: str | None, reports: list[Report], options: ReportOptions) -> list[Post]:
    """Share *reports* out over posts: forms to the callback, or batches to it or the app's own.

    A request without statusCallback gets batches if the app has an address for them, and else
    nothing: the platform keeps its reports for an hour and deletes them.
    """
    url = callback or options.batch_url
    if url is None:
        return []
    if callback is not None and options.batch == 0:
        return [Post(url, [report], batch=False) for report in reports]
    size = options.batch or MAX_BATCH
    return [Post(url, reports[at : at + size], batch=True) for at in range(0, len(reports), size)]
