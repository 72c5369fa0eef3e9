"""Campaigns: how far each is, what was refused and why, and its results as a file.

No counter is kept for a campaign: it would be paid for by every message. Its messages are counted
when a page shows it: in the background, one campaign at a time, and the result is kept in the
database. So a page is there at once, and says as of when it is.
"""

import asyncio
import csv
import io
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlencode

from aiohttp import hdrs, web
from msgspec import Struct

from dispatcher.console.auth import Auth, Session, cut, protected
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.forms import Invalid, read_time
from dispatcher.console.message_pages import filter_address
from dispatcher.core.codes import Code, number_code
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.format import mask, mask_if_number
from dispatcher.core.language import _
from dispatcher.core.stored_texts import stored_text
from dispatcher.db.campaigns import PAGE_CAMPAIGNS, RATE_SECONDS, CountedCampaign
from dispatcher.db.message_lists import MessageFilter

CAMPAIGNS_PATH = "/console/campaigns"
CAMPAIGN_PATH = "/console/campaign"
MAX_NAME_LENGTH = 100  # characters, as the database has it
COUNT_AGAIN_SECONDS = 3.0  # while a campaign has open messages and counting is quick
COUNT_SHARE = 10  # counting takes at most this part of the time
COUNT_REPORTS_AGAIN_SECONDS = 60.0  # of a campaign that only waits for reports
COUNT_OLD_AGAIN_SECONDS = 600.0  # of one that seems to be finished
WAIT_FOR_COUNT_SECONDS = 0.08  # of a page whose campaign was never counted: small ones are at once
READER_SECONDS = 60.0  # without a read: one that stalled holds up the exports of others
OPEN_STATES = ("queued", "sending", "unsure", "lost")
FAILED_STATES = ("rejected", "undelivered", "expired")
EXPORTED_COLUMNS = (
    "id", "app", "campaign", "recipient", "template_id", "reference", "state", "code", "reason",
    "segments", "queued_at", "accepted_at", "finished_at", "provider_id",
)  # fmt: skip
_TIME_COLUMNS = ("queued_at", "accepted_at", "finished_at")
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run such a cell


class _ReaderGoneError(Exception):
    """Who reads an export is gone, or stalled."""


class Refusal(Struct, frozen=True):
    """How many messages of a campaign failed by one code."""

    state: str
    code: Code
    messages: int
    address: str  # query of the list of these messages


class Progress(Struct, frozen=True):
    """How far a campaign is, from its last count."""

    campaign: CountedCampaign
    states: dict[str, int]
    total: int
    finished: int
    per_minute: float
    ends_in: float | None  # seconds; None: finished, stopped, or not known
    finished_all: bool
    addresses: dict[str, str]  # queries of the lists of messages, by state
    refusals: list[Refusal]

    def count_of(self, states: list[str]) -> int:
        """Return how many messages are in one of *states*."""
        return sum(self.states.get(state, 0) for state in states)


def progress(campaign: CountedCampaign) -> Progress:
    """Return how far *campaign* is."""
    count, counted_at = campaign.count, campaign.counted_at
    states = count.states() if count else {}
    total = sum(states.values())
    left = states.get("queued", 0) + states.get("sending", 0)
    per_second, ends_in = 0.0, None
    if count is not None and counted_at is not None:
        age = max(1.0, (counted_at - campaign.created_at).total_seconds())
        per_second = count.recent / min(age, RATE_SECONDS)
        due_in = count.last_due_at and (count.last_due_at - counted_at).total_seconds()
        times = [due_in or 0.0, left / per_second if per_second else 0.0]
        if left and campaign.state == "running" and any(each > 0 for each in times):
            ends_in = max(times)
    return Progress(
        campaign,
        states,
        total,
        total - sum(states.get(state, 0) for state in OPEN_STATES),
        per_second * 60,
        ends_in,
        finished_all=count is not None
        and not campaign.waits
        and not any(states.get(state) for state in OPEN_STATES),
        addresses={
            state: filter_address(MessageFilter(campaign=campaign.name, state=state))
            for state in states
        },
        refusals=[
            Refusal(
                each.state,
                number_code(each.code or each.state),
                each.messages,
                filter_address(
                    MessageFilter(campaign=campaign.name, state=each.state, code=each.code)
                ),
            )
            for each in (count.codes if count else ())
            if each.state in FAILED_STATES
        ],
    )


def needs_count(campaign: CountedCampaign, now: datetime) -> bool:
    """Return whether the messages of a campaign that is shown are to be counted anew."""
    if campaign.partly_removed and campaign.count is not None:
        return False  # what is left would be less than what there was
    if campaign.count is None or campaign.counted_at is None:
        return True
    age = (now - campaign.counted_at).total_seconds()
    if age < max(COUNT_AGAIN_SECONDS, COUNT_SHARE * campaign.count.seconds):
        return False
    states = campaign.count.states()
    if campaign.waits or any(states.get(state) for state in OPEN_STATES):
        return True
    if states.get("accepted") and age > COUNT_REPORTS_AGAIN_SECONDS:
        return True
    return age > COUNT_OLD_AGAIN_SECONDS


def campaign_address(name: str) -> str:
    """Return the address of the page of a campaign; a name may hold any character."""
    return f"{CAMPAIGN_PATH}?{urlencode({'name': name})}"


class CampaignPages:
    """The list of campaigns, one campaign, and its results as a file."""

    def __init__(self, auth: Auth, backend: ConsoleBackend, stopping: asyncio.Event) -> None:
        self._auth = auth
        self._backend = backend
        self._stopping = stopping
        self._wanted: dict[str, asyncio.Event] = {}  # names to count, each set when it is done
        self._counting: asyncio.Task[None] | None = None

    async def overview(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show some campaigns, the newest first."""
        before = _position(request.query.get("before", ""), request.query.get("name", ""))
        if isinstance(before, Invalid):
            return self._missing(session, before.reason)
        found = await self._backend.campaigns(before)
        shown = found[:PAGE_CAMPAIGNS]
        self._refresh(shown)
        last = shown[-1] if shown else None
        following = None
        if last is not None and len(found) > PAGE_CAMPAIGNS:
            place = {"before": last.created_at.isoformat(), "name": last.name}
            following = f"{CAMPAIGNS_PATH}?{urlencode(place)}"
        values = {
            "session": session,
            "campaigns": [progress(each) for each in shown],
            "following": following,
            "first": before is None,
        }
        return self._auth.page("campaigns.html", values)

    async def one(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Show one campaign."""
        name = request.query.get("name", "")[:MAX_NAME_LENGTH]
        campaign = await self._backend.campaign(name)
        if campaign is None:
            return self._missing(session, _("There is no such campaign."), status=404)
        counted = self._refresh([campaign])
        if counted is not None and campaign.count is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_FOR_COUNT_SECONDS):
                    await counted.wait()
            campaign = await self._backend.campaign(name) or campaign
        apps = [app.name for app in (await self._backend.snapshot()).apps]
        values = {
            "session": session,
            "progress": progress(campaign),
            "campaign": campaign,
            # It is counted by code, whatever the apps of its messages are.
            "app_of_settings": apps[0].upper() if len(apps) == 1 else "<NAME>",
        }
        return self._auth.page("campaign.html", values)

    async def export(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Send the messages of a campaign as CSV, with masked numbers; a form asks for whole ones.

        The audit log records an export of whole numbers.
        """
        full = request.method == hdrs.METH_POST
        name = request.query.get("name", "")[:MAX_NAME_LENGTH]
        if await self._backend.campaign(name) is None:
            return self._missing(session, _("There is no such campaign."), status=404)
        if full:
            await self._backend.record_export(session.actor, f"campaign={name}")
        headers = {
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: 'attachment; filename="campaign.csv"',
        }
        response = protected(web.StreamResponse(headers=headers))
        await response.prepare(request)
        # Excel takes a CSV file for UTF-8 only by its mark.
        await response.write("\ufeff".encode() + _csv([EXPORTED_COLUMNS]))

        async def write_rows(rows: list[list[str]]) -> None:
            text = _csv([_cells(row, full=full) for row in rows])
            try:
                async with asyncio.timeout(READER_SECONDS):
                    await response.write(text)
            except OSError as error:  # TimeoutError is one; as it is, the database would seem lost
                raise _ReaderGoneError from error

        try:
            await self._backend.export_campaign(name, write_rows)
        except (_ReaderGoneError, DatabaseUnavailable):
            return cut(request, response)
        await response.write_eof()
        return response

    def _refresh(self, shown: list[CountedCampaign]) -> asyncio.Event | None:
        """Have those counted that need it; return what is set when the last of them is."""
        now = datetime.now(UTC)
        wanted = [each.name for each in shown if needs_count(each, now)]
        for name in wanted:
            self._wanted.setdefault(name, asyncio.Event())
        if self._wanted and self._counting is None:
            self._counting = asyncio.create_task(self._count_all())
            self._counting.add_done_callback(self._counted)
        return self._wanted[wanted[-1]] if wanted else None

    def _counted(self, _task: asyncio.Task[None]) -> None:
        self._counting = None

    async def _count_all(self) -> None:
        """Count one campaign after the other, until none is left to count."""
        while self._wanted and not self._stopping.is_set():
            name = next(iter(self._wanted))
            try:
                with suppress(DatabaseUnavailable):  # the next look tries again
                    await self._backend.count_campaign(name)
            finally:
                self._wanted.pop(name).set()

    def _missing(self, session: Session, what: str, *, status: int = 400) -> web.Response:
        return self._auth.page("missing.html", {"session": session, "what": what}, status=status)


def _position(before: str, name: str) -> tuple[datetime, str] | Invalid | None:
    if not before:
        return None
    match read_time(before):
        case Invalid() as invalid:
            return invalid
        case moment:
            return moment, name[:MAX_NAME_LENGTH]


def _cells(row: list[str], *, full: bool) -> list[str]:
    """Return *row* as a spreadsheet may have it."""
    cells = dict(zip(EXPORTED_COLUMNS, row, strict=False))  # it ends with what is charged
    if not full:
        cells["recipient"] = mask(cells["recipient"])
        cells["provider_id"] = mask_if_number(cells["provider_id"])
    cells["reason"] = stored_text(cells["reason"])
    for name in _TIME_COLUMNS:
        if cells[name]:
            cells[name] = datetime.fromtimestamp(int(cells[name]), UTC).isoformat()
    return [_cell(each) for each in cells.values()]


def _cell(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA_BEGINS) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    return text[:1] == "+" and text[1:].replace("*", "").isdigit()


def _csv(rows: object) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()
