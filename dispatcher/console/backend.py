"""The console's queries and actions in the database.

What every open page and every scraper of metrics asks for is cached, so that any number of them
costs one query in a while.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Concatenate, Generic, Literal, ParamSpec, TypeVar

from msgspec.structs import replace

from dispatcher.core.country import country
from dispatcher.core.delivery import DeliveryGroup, delivery_groups
from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.report_matching import Backlog
from dispatcher.core.rules import Limits, RuleList, Suppressed
from dispatcher.core.status import (
    AuditEntry,
    BatchStory,
    EventTotal,
    MessageHistory,
    MessageSummary,
    MinuteCount,
    StatusSnapshot,
    StoredReply,
    UnmatchedReport,
    UnreadablePush,
    UnsureBatch,
)
from dispatcher.core.templates import Template
from dispatcher.db import audit as audit_log
from dispatcher.db import (
    campaigns,
    console_tokens,
    list_uploads,
    message_actions,
    message_lists,
    operator,
    replies,
    reports,
    status,
)
from dispatcher.db.campaigns import CountedCampaign
from dispatcher.db.console_tokens import ValidToken
from dispatcher.db.database import COMMAND_TIMEOUT_SECONDS, Connection, Database
from dispatcher.db.errors import as_unavailable
from dispatcher.db.list_uploads import ListUpload
from dispatcher.db.message_actions import ActionName, MessageAction
from dispatcher.db.message_lists import MessageFilter, MessagePage
from dispatcher.db.operator import ActionResult

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

SNAPSHOT_MAX_AGE_SECONDS = 0.9  # the dashboard is sent every second
MISSING_REPORTS_MAX_AGE_SECONDS = 30.0  # of three days of counters, and by the minute anyway
TOKENS_MAX_AGE_SECONDS = 2.0  # a revoked token ends its logins after this
MAX_REPLIES = 20  # of a number, on the page of a message
LAST_HOUR_MAX_AGE_SECONDS = 10.0
DELIVERY_MAX_AGE_SECONDS = 60.0
TOTALS_MAX_AGE_SECONDS = 10.0  # they cost a few milliseconds
QUERY_TIMEOUT_SECONDS = 5.0  # a page says within 6 that the database does not answer
ACTION_TIMEOUT_SECONDS = 5.0  # to start an action; its steps may take longer
COUNT_TIMEOUT_SECONDS = 600.0  # of a campaign; ten million messages take a minute or two
EXPORT_TIMEOUT_SECONDS = 3600.0
CACHED_QUERY_TIMEOUT_SECONDS = 4.0  # below the time-outs of scrapers, so that they get the reason


CampaignChange = Literal["pause", "resume", "cancel"]


class ConsoleBackend:
    """Queries and actions of the console, and the figures that /metrics shares with it.

    Each method raises `DatabaseUnavailable` if the database cannot be reached. Actions write the
    audit log and return what they did.
    """

    def __init__(
        self, database: Database, *, reports_expected: bool, other_mainland: bool = False
    ) -> None:
        """Use *database*; with *reports_expected*, count messages without a report.

        *other_mainland*: see core.number.
        """
        self._database = database
        self.other_mainland = other_mainland
        self._snapshot = self._cached(status.now)
        self._totals = self._cached(status.totals)
        self._missing_reports = self._cached(status.awaiting) if reports_expected else None
        self._backlog = self._cached(_backlog)
        self._tokens = self._cached(console_tokens.valid)
        self._last_hour = self._cached(status.last_hour)
        self._delivery = self._cached(_delivery)
        self._exporting = asyncio.Lock()  # one at a time: each keeps a connection for minutes

    async def snapshot(self, max_age: float = SNAPSHOT_MAX_AGE_SECONDS) -> StatusSnapshot:
        """Return the state of everything; apps and workers at most *max_age* seconds old."""
        snapshot = await self._snapshot.get(max_age)
        totals = await self._totals.get(TOTALS_MAX_AGE_SECONDS)
        missing = self._missing_reports
        awaiting = await missing.get(MISSING_REPORTS_MAX_AGE_SECONDS) if missing else []
        return replace(snapshot, totals=totals, awaiting=awaiting)

    async def backlog(self, max_age: float) -> Backlog:
        """Return how many reports wait to be matched, at most *max_age* seconds old."""
        return await self._backlog.get(max_age)

    async def series(self, app: str | None, span: float, step: float) -> list[status.SeriesPoint]:
        """Return the counts of events in the last *span* seconds, in steps of *step* seconds."""
        return await self._query(status.series, app, span, step)

    async def last_hour(self) -> list[MinuteCount]:
        """Return what happened in each minute of the last hour, by app."""
        return await self._last_hour.get(LAST_HOUR_MAX_AGE_SECONDS)

    async def delivery(self) -> list[DeliveryGroup]:
        """Return success and time of delivery of the last hour, beside those of the last day."""
        return await self._delivery.get(DELIVERY_MAX_AGE_SECONDS)

    async def unmatched(self) -> list[UnmatchedReport]:
        """Return the newest reports that belong to no message."""
        return await self._query(status.unmatched)

    async def unsure(self) -> list[UnsureBatch]:
        """Return the unsure requests, oldest first."""
        return await self._query(status.unsure)

    async def find(self, by: status.Search, text: str) -> list[MessageSummary]:
        """Return the messages whose *by* is *text*, the newest first."""
        return await self._slow_query(status.find, by, text)

    async def message_page(
        self, wanted: MessageFilter, position: str | None, seconds: float
    ) -> MessagePage:
        """Return a page of the list of *wanted*, reading on for *seconds*."""
        # For these the partition being filled is read whole, of up to five million messages.
        looked_up = wanted.same_number_as is not None or wanted.reference is not None
        query = self._slow_query if looked_up else self._query
        return await query(message_lists.message_page, wanted, position, seconds=seconds)

    async def message_count(self, wanted: MessageFilter) -> int | None:
        """Return how many messages fit *wanted*; None if that is not known."""
        return await self._query(message_lists.count, wanted)

    async def latest_message_to(self, number: str) -> int | None:
        """Return the id of the newest message to *number*."""
        return await self._slow_query(message_lists.latest_message_to, number)

    async def preview(
        self, actor: str, action: ActionName, wanted: MessageFilter, words: tuple[str, str]
    ) -> int:
        """Choose the messages of an action; return the id of the action, which waits."""
        return await self._slow_query(message_actions.preview, actor, action, wanted, words)

    async def message_action(self, action_id: int) -> MessageAction | None:
        """Return an action on many messages, or None if there is no such action."""
        return await self._query(message_actions.message_action, action_id)

    async def start_message_action(self, actor: str, action_id: int) -> None:
        """Confirm an action on many messages, and write the audit log."""
        async with self._database.acquire(seconds=ACTION_TIMEOUT_SECONDS) as connection:
            await message_actions.start(connection, actor, action_id)

    async def message_action_step(self, action_id: int) -> bool:
        """Do the next part of a started action; return whether more is left."""
        async with self._database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            return await message_actions.step(connection, action_id)

    async def message(self, message_id: int) -> MessageHistory | None:
        """Return a message with its requests and reports, or None if there is no such message."""
        return await self._query(status.story, message_id)

    async def batch(self, token: str) -> BatchStory | None:
        """Return a request and its messages, or None if no request has this token."""
        return await self._query(status.batch, token)

    async def rules(self) -> RuleList:
        """Return the operators' rules."""
        return await self._query(status.rules)

    async def audit(self) -> list[AuditEntry]:
        """Return the newest entries of the audit log."""
        return (await self._query(audit_log.page, audit_log.AuditFilter(), None))[0]

    async def audit_page(
        self, wanted: audit_log.AuditFilter, before: int | None
    ) -> tuple[list[AuditEntry], int | None]:
        """Return a page of the audit log, the newest first, and where the next begins."""
        return await self._query(audit_log.page, wanted, before)

    async def message_text(self, template_id: str, country: str) -> message_lists.TextAndPrice:
        """Return the text of a template, and what a segment to a country costs."""
        return await self._query(message_lists.text_and_price, template_id, country)

    async def totals(self) -> list[EventTotal]:
        """Return what happened in the last hour and day, at most `TOTALS_MAX_AGE_SECONDS` old."""
        await self._snapshot.get(SNAPSHOT_MAX_AGE_SECONDS)  # names an unavailable database sooner
        return await self._totals.get(TOTALS_MAX_AGE_SECONDS)

    async def record_reveal(self, actor: str, message_id: int, what: str) -> ActionResult:
        """Write into the audit log that *actor* sees a message's number and variables."""
        return await self._act(operator.record_reveal, actor, message_id, what)

    async def message_as_stored(self, message_id: int, tokens: list[str]) -> str:
        """Return all rows about a message and its requests, as JSON: reports and answers too."""
        return await self._on_connection(operator.message_as_stored, message_id, tokens)

    async def replies_of(self, number: str) -> list[StoredReply]:
        """Return the newest replies of a number in canonical form."""
        return await self._on_connection(replies.of_number, number, limit=MAX_REPLIES)

    async def unreadable(self) -> list[UnreadablePush]:
        """Return the pushes that could not be read, the newest first."""
        return await self._on_connection(reports.unreadable)

    async def campaigns(self, before: tuple[datetime, str] | None) -> list[CountedCampaign]:
        """Return a page of campaigns, the newest first, and one more if there are more."""
        return await self._query(campaigns.counted_page, before)

    async def campaign(self, name: str) -> CountedCampaign | None:
        """Return a campaign, or None if there is none of this name."""
        return await self._query(campaigns.counted, name)

    async def count_campaign(self, name: str) -> None:
        """Count the messages of a campaign, and keep the result; may take minutes."""
        async with self._database.acquire(seconds=COUNT_TIMEOUT_SECONDS) as connection:
            await campaigns.count(connection, name, country=country)

    async def export_campaign(
        self, name: str, on_rows: Callable[[list[list[str]]], Awaitable[None]]
    ) -> None:
        """Give *on_rows* the messages of a campaign, oldest first, as `db.campaigns.export`."""
        async with (
            self._exporting,
            self._database.acquire(seconds=EXPORT_TIMEOUT_SECONDS) as connection,
        ):
            await campaigns.export(connection, on_rows, campaign=name)

    async def record_export(self, actor: str, what: str) -> None:
        """Write into the audit log that *actor* exports whole numbers."""
        async with self._database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            await operator.record_export(connection, actor, what)

    async def change_campaign(
        self, actor: str, name: str, change: CampaignChange, reason: str
    ) -> ActionResult:
        """Pause, resume or cancel a campaign; what waits of a cancelled one, workers cancel."""
        await self._snapshot.get(SNAPSHOT_MAX_AGE_SECONDS)
        async with self._database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            try:
                match change:
                    case "pause":
                        await campaigns.pause(connection, actor, name, reason)
                        return ActionResult(1, "paused")
                    case "resume":
                        await campaigns.resume(connection, actor, name)
                        return ActionResult(1, "resumed")
                    case "cancel":
                        await campaigns.cancel(connection, actor, name, reason)
                        return ActionResult(1, "cancelled: nothing more of it is claimed")
            except campaigns.CampaignError as error:
                return ActionResult(None, f"not done: {error}")

    async def move_campaign(
        self,
        actor: str,
        name: str,
        send_at: datetime | None,
        *,
        spread_seconds: float | None,
        per_hour: int | None,
        priority: int | None,
    ) -> ActionResult:
        """Move what waits of a campaign to another time or priority; workers move it."""
        await self._snapshot.get(SNAPSHOT_MAX_AGE_SECONDS)
        async with self._database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            found = await campaigns.find(connection, name)
            waiting = found.waiting if found else 0
            wait = 3600 / per_hour if per_hour else (spread_seconds or 0.0) / max(1, waiting)
            try:
                await campaigns.move(connection, actor, name, send_at, wait, priority)
            except campaigns.CampaignError as error:
                return ActionResult(None, f"not done: {error}")
            return ActionResult(1, "moving: workers move what waits")

    async def tokens(self, max_age: float = TOKENS_MAX_AGE_SECONDS) -> list[ValidToken]:
        """Return the tokens that are not revoked, at most *max_age* seconds old."""
        return await self._tokens.get(max_age)

    async def log_in(self, token: str) -> ValidToken | None:
        """Return which token with a name *token* is, and note its use; None: it is none."""
        wanted = console_tokens.digest(token)
        for each in await self.tokens(max_age=0.0):
            if hmac.compare_digest(each.digest, wanted):
                await self._query(console_tokens.note_use, each.id)
                return each
        return None

    @property
    def dsn(self) -> str:
        """The address of the database, for a process that works in it."""
        return self._database.dsn

    async def list_uploads(self) -> list[ListUpload]:
        """Return the uploaded lists that are kept."""
        return await self._on_connection(list_uploads.recent)

    async def list_upload(self, upload_id: int) -> ListUpload | None:
        """Return an uploaded list, or None if there is none with this id."""
        return await self._on_connection(list_uploads.find, upload_id)

    async def add_list_upload(self, actor: str, name: str, options: str) -> int:
        """Begin an upload; return its id."""
        return await self._on_connection(list_uploads.add, actor, name, options)

    async def add_list_part(self, upload_id: int, part: int, content: bytes) -> None:
        """Keep the next part of an upload."""
        await self._on_connection(list_uploads.add_part, upload_id, part, content)

    async def complete_list_upload(self, upload_id: int) -> None:
        """Note that an upload is whole."""
        await self._on_connection(list_uploads.complete, upload_id)

    async def drop_list_upload(self, actor: str, upload_id: int) -> None:
        """Delete an upload that is not being loaded, and write the audit log."""
        await self._on_connection(list_uploads.drop, upload_id, actor)

    async def load_list(self, actor: str, upload_id: int, options: str, lines: str) -> bool:
        """Have *lines* of a checked list loaded; return False if it is not checked."""
        return await self._on_connection(list_uploads.ask_to_load, upload_id, actor, options, lines)

    async def list_rejects(self, upload_id: int) -> bytes | None:
        """Return the refused lines of a list."""
        return await self._on_connection(list_uploads.rejects, upload_id)

    async def pause(self, actor: str, app: str, reason: str) -> ActionResult:
        """Stop claiming for *app*."""
        return await self._act(operator.pause, actor, app, reason)

    async def resume(self, actor: str, app: str) -> ActionResult:
        """Claim for *app* again."""
        return await self._act(operator.resume, actor, app)

    async def cancel(self, actor: str, ids: list[int]) -> ActionResult:
        """Cancel those of *ids* that still wait."""
        return await self._act(operator.cancel, actor, ids)

    async def requeue(self, actor: str, ids: list[int]) -> ActionResult:
        """Send the rejected and expired of *ids* again."""
        return await self._act(operator.requeue, actor, ids)

    async def settle(self, actor: str, token: str, how: str) -> ActionResult:
        """Settle an unsure request as ``sent`` or ``resend``."""
        return await self._act(operator.settle, actor, token, how)

    async def settle_lost(self, actor: str, ids: list[int], how: str) -> ActionResult:
        """Settle messages that a fail-over has lost, by hand."""
        return await self._act(operator.settle_lost, actor, ids, how)

    async def define_template(
        self, actor: str, template: Template, note: str, text: str | None
    ) -> ActionResult:
        """Define the variables of a template, or replace its definition."""
        return await self._act(operator.define_template, actor, template, note, text)

    async def set_limits(self, actor: str, app: str, limits: Limits) -> ActionResult:
        """Set the limits of an app, all at once."""
        return await self._act(operator.set_limits, actor, app, limits)

    async def set_price(
        self, actor: str, country: str, price: Decimal, currency: str
    ) -> ActionResult:
        """Set what a segment to a country costs."""
        return await self._act(operator.set_price, actor, country, price, currency)

    async def suppress(
        self, actor: str, numbers: list[str], reason: str, *, app: str, promotional: bool
    ) -> ActionResult:
        """Send nothing to *numbers* any more, or not what *app* and *promotional* name."""
        return await self._act(
            operator.suppress, actor, numbers, reason, app=app, promotional=promotional
        )

    async def unsuppress(self, actor: str, numbers: list[str]) -> ActionResult:
        """Send to *numbers* again."""
        return await self._act(operator.unsuppress, actor, numbers)

    async def suppressions_of(self, number: str) -> list[Suppressed]:
        """Return why a number, in canonical form, is suppressed; nothing if it is not."""
        return await self._query(status.suppressions_of, number)

    async def drop_template(self, actor: str, template_id: str) -> ActionResult:
        """Remove the definition of a template."""
        return await self._act(operator.drop_template, actor, template_id)

    def _cached(self, query: Callable[[Database], Awaitable[Answer]]) -> "CachedQuery[Answer]":
        async def limited() -> Answer:
            try:
                async with asyncio.timeout(CACHED_QUERY_TIMEOUT_SECONDS):
                    return await query(self._database)
            except TimeoutError as error:
                raise as_unavailable(error, self._database.dsn) from error

        return CachedQuery(limited)

    async def _on_connection(
        self,
        query: Callable[Concatenate[Connection, Arguments], Awaitable[Answer]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        async with self._database.acquire(seconds=QUERY_TIMEOUT_SECONDS) as connection:
            return await query(connection, *args, **kwargs)

    async def _query(
        self,
        query: Callable[Concatenate[Database, Arguments], Awaitable[Answer]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS):
                return await query(self._database, *args, **kwargs)
        except TimeoutError as error:
            raise as_unavailable(error, self._database.dsn) from error

    async def _slow_query(
        self,
        query: Callable[Concatenate[Database, Arguments], Awaitable[Answer]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Do a query that may take long, if the database answers a short one."""
        await self._snapshot.get(SNAPSHOT_MAX_AGE_SECONDS)
        return await query(self._database, *args, **kwargs)

    async def _act(
        self,
        action: Callable[Concatenate[Connection, Arguments], Awaitable[ActionResult]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> ActionResult:
        await self._snapshot.get(SNAPSHOT_MAX_AGE_SECONDS)
        async with self._database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
            return await action(connection, *args, **kwargs)


async def _delivery(database: Database) -> list[DeliveryGroup]:
    now = await status.delivery_sample(database, timedelta(hours=1), timedelta())
    before = await status.delivery_sample(database, timedelta(hours=25), timedelta(hours=1))
    return delivery_groups(now, before, country=country)


async def _backlog(database: Database) -> Backlog:
    async with database.acquire(seconds=COMMAND_TIMEOUT_SECONDS) as connection:
        return await reports.backlog(connection)


class CachedQuery(Generic[Answer]):
    """The last result of a query, an error included, and its age.

    Concurrent callers wait for one query and share its result.
    """

    def __init__(self, query: Callable[[], Awaitable[Answer]]) -> None:
        self._query = query
        self._lock = asyncio.Lock()
        self._queried_at = float("-inf")
        self._result: Answer | DatabaseUnavailable = DatabaseUnavailable("not queried yet")

    async def get(self, max_age: float) -> Answer:
        """Return a result at most *max_age* seconds old.

        Raises:
            DatabaseUnavailable: the database did not answer, at most *max_age* seconds ago.
        """
        async with self._lock:
            if monotonic() - self._queried_at >= max_age:
                self._result = await self._run()
                self._queried_at = monotonic()
            result = self._result
        if isinstance(result, DatabaseUnavailable):
            raise DatabaseUnavailable(str(result))  # a new one: raising grows a traceback
        return result

    async def _run(self) -> Answer | DatabaseUnavailable:
        try:
            return await self._query()
        except DatabaseUnavailable as error:
            return error
