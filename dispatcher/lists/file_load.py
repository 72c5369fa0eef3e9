"""Loads a list of messages: it is read as a whole first, then loaded in batches.

Its good lines are copied into a temporary table, where repeats and earlier loads are found, and
from where they are inserted. The file is read once more only for the cells of its refused lines.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from dispatcher.core.cost import Bill, BilledMessage, fill_template, is_mainland
from dispatcher.core.country import country
from dispatcher.core.errors import ListError
from dispatcher.core.language import _, with_stop
from dispatcher.core.rules import Limits
from dispatcher.db import campaigns, cost, file_import, rules
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.file_import import Earlier, Progress, Survey
from dispatcher.lists.earlier_loads import (
    ImportOptions,
    InAlreadyError,
    find_start,
    many_already,
    say_wiped,
    shown_file_name,
)
from dispatcher.lists.messages import COLUMNS, Line, MessageList
from dispatcher.lists.reading import Form, open_list
from dispatcher.lists.rejects import RejectsFile
from dispatcher.lists.shown_texts import list_text

BATCH_LINES: Final = 5_000  # lines in one transaction: a fraction of a second
PREVIEWS: Final = 3  # messages that a dry run shows as the recipient sees them
READING_SHARE: Final = 0.4  # of the time that a load takes
_PLACE = {name: place for place, name in enumerate(COLUMNS)}
_SURVEYED = [_PLACE[name] for name in file_import.SURVEY[2:]]

Progressed = Callable[
    [int, float], None
]  # messages that are in, and which share of the work is done


class Preview(Struct, frozen=True):
    """A message as its recipient would see it."""

    line: int
    recipient: str
    text: str


class Loaded(Struct, frozen=True):
    """What a load did, or would do."""

    progress: Progress
    lines: int  # lines of data, blank ones too
    notes: list[str]  # what was decided about the file
    assumed_mainland: int
    respelled: int
    survey: Survey
    earlier: Earlier | None
    campaign: str
    resumed_after: int  # line after which an interrupted load went on
    limits: Mapping[str, Limits]
    previews: list[Preview] = []
    bill: Bill | None = None  # of a dry run
    rejects: Path | None = None  # where the refused lines are
    refusal: InAlreadyError | None = None  # what the load says instead; a dry run counts the rest
    # Of a dry run: when the first and the last message would be due; None: all at once.
    due: tuple[datetime, datetime] | None = None

    @property
    def countries_abroad(self) -> dict[str, int]:
        """How many messages of a dry run go to each country; empty if all stay in mainland China.

        131... with + and without 86 is a number of another country.
        """
        found: Counter[str] = Counter()
        for line in self.bill.lines.values() if self.bill is not None else ():
            found[line.country] += line.messages
        return {} if all(map(is_mainland, found)) else dict(found.most_common())

    @property
    def blank(self) -> int:
        """How many lines hold nothing."""
        done = self.progress
        return self.lines - done.imported_lines - done.rejected - done.left_out


class _Seen(Struct):
    """What is seen of a file while it is read for the first time."""

    last: int  # number of the last line
    assumed_mainland: int = 0
    respelled: int = 0
    refused: int = 0
    good: int = 0
    good_lines: int = 0


class _Estimate(Struct):
    """What the messages of a dry run would say and cost."""

    bill: Bill
    previews: list[Preview] = field(default_factory=list)
    previewed: set[str] = field(default_factory=set)  # templates

    async def add(self, connection: Connection, first: int, last: int) -> None:
        """Add the lines of a batch that would be taken."""
        taken = await file_import.taken_lines(connection, first, last)
        self.bill.add(
            BilledMessage(app, country(recipient), template, params, signature, None, open=1)
            for _line, app, recipient, template, params, signature in taken
        )
        # The first messages are shown, and the first of each template while there is room.
        for line, _app, recipient, template, params, signature in taken:
            if len(self.previews) >= PREVIEWS:
                return
            if template in self.bill.texts and template not in self.previewed:
                self.previewed.add(template)
                mainland = is_mainland(country(recipient))
                text = fill_template(
                    self.bill.texts[template], params, signature, mainland=mainland
                )
                self.previews.append(Preview(line, recipient, text))


async def load_file(
    connection: Connection,
    file: Path,
    rejects: Path,
    on_progress: Progressed = lambda _taken, _share: None,
    options: ImportOptions | None = None,
) -> Loaded:
    """Load *file*, and write what is refused to *rejects*, or beside it if that was changed.

    What an earlier load of the same content has done is not done again, and is counted in.
    *on_progress* is called after every batch. Raises ListError for what is no file of messages.
    """
    options = options or ImportOptions()
    whole = options.whole
    opened = open_list(file, _form(options))
    digest = _digest(file, opened.encoding, options)
    start = await find_start(connection, file, digest, rejects, options)
    done = start.done
    now = done.started_at or await file_import.database_time(connection)
    campaign = done.campaign or await _campaign(connection, file, options, start.replaced)
    defined = {one.template_id: one for one, _ in await rules.templates(connection)}
    try:
        messages = MessageList(
            opened,
            whole,
            now=now,
            templates=defined,
            other_mainland=options.other_mainland,
        )
    except ValueError as error:
        raise ListError(with_stop(error), misused=True) from None
    seen = await _survey(connection, file, messages, opened.data_from, on_progress)
    await campaigns.end_cancels(connection)  # what is cancelled is not in, from the command on
    earlier = await file_import.find_earlier(
        connection, digest, done.lines, anew=start.anew, rest=options.rest
    )
    refusal = start.refusal or many_already(
        file, options, campaign, seen.good - done.imported - done.left_out, earlier
    )
    await _leave_out_earlier(connection, options, refusal)
    survey = await file_import.read_survey(connection, now)
    remarks = opened.sheet.remarks(opened.header, opened.data_from)
    notes = [*opened.notes, *remarks, *_survey_notes(survey, earlier)]
    if options.unique:
        await file_import.leave_out_repeats(connection)
    left_out = await file_import.count_left_out(connection)
    estimate = None
    if options.dry_run:
        await file_import.make_dry_run(connection)
        estimate = _Estimate(await cost.empty_bill(connection))
    else:
        done = await _begin(connection, file, digest, campaign, options, start.replaced)
    resumed_after = done.lines
    load = _Load(connection, campaign, _wait_seconds(options, seen.good - left_out), start.before)
    for first in range(max(done.lines + 1, opened.data_from), seen.last + 1, BATCH_LINES):
        last = min(first + BATCH_LINES - 1, seen.last)
        if estimate is not None:
            done = await load.check(done, first, last)
            await estimate.add(connection, first, last)
        else:
            done = await load.insert(done, first, last, digest)
        share = (last - opened.data_from + 1) / (seen.last - opened.data_from + 1)
        on_progress(done.imported, READING_SHARE + (1 - READING_SHARE) * share)
    due = (
        await file_import.due_times(connection, load.wait, resumed_after, start.before)
        if options.dry_run
        else None
    )
    written = None
    if done.rejected:
        known_by = None if options.dry_run else digest
        written = await _write_rejects(connection, known_by, messages, rejects, file)
    if not options.dry_run:
        await file_import.finish_import(connection, digest)
    return Loaded(
        done,
        seen.last - max(opened.data_from, 1) + 1,
        notes,
        seen.assumed_mainland,
        seen.respelled,
        survey,
        earlier,
        campaign,
        resumed_after,
        await rules.limits(connection),
        estimate.previews if estimate is not None else [],
        estimate.bill if estimate is not None else None,
        written,
        refusal,
        due if due != (now, now) else None,
    )


def _survey_notes(survey: Survey, earlier: Earlier | None) -> Iterator[str]:
    """Say what of the lines may not be meant, or is not certain."""
    if earlier is not None and earlier.wiped:
        yield say_wiped(earlier)
    if survey.past:
        yield _("Messages with a send_at that is past: {count}.").format(count=f"{survey.past:,}")
    for one in survey.differences:
        lines = ", ".join(f"{line:,}" for line in one.shown)
        yield _(
            "Template {name} is not defined here, and its lines differ in their number of"
            " variables: most have {variables}, others: {count} (line {lines})."
        ).format(
            name=one.template_id,
            variables=one.variables,
            count=f"{one.lines:,}",
            lines=lines + (", ..." if one.lines > len(one.shown) else ""),
        )


def _batches(messages: MessageList) -> Iterator[list[Line]]:
    lines = iter(messages)
    while batch := list(islice(lines, BATCH_LINES)):
        yield batch


class _Load(Struct, frozen=True):
    """Inserts batches of lines from the survey."""

    connection: Connection
    campaign: str
    wait: float  # seconds between two messages
    before: int  # messages that are in, of a dry run

    async def insert(self, done: Progress, first: int, last: int, digest: str) -> Progress:
        """Insert the lines of one batch and note it, both or neither."""
        connection = self.connection
        async with connection.transaction():
            inserted, refused = await file_import.insert_lines(
                connection, first, last, self.campaign, self.wait, done.imported
            )
            after = await self._after(done, last, first, inserted, refused)
            await file_import.record_import(connection, digest, done, after)
            await file_import.record_rejections(connection, digest, first, last)
        return after

    async def check(self, done: Progress, first: int, last: int) -> Progress:
        """Find the lines of one batch that the database refuses, and leave nothing behind."""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            before = self.before + done.imported
            inserted, refused = await file_import.insert_lines(
                self.connection, first, last, self.campaign, self.wait, before, dry_run=True
            )
        finally:
            await transaction.rollback()
        await file_import.refuse_used_keys(self.connection, first, last, refused)
        return await self._after(done, last, first, inserted, refused)

    async def _after(
        self, done: Progress, last: int, first: int, inserted: int, refused: Mapping[int, str]
    ) -> Progress:
        """Note what the database refused of a batch; return the progress after it."""
        await file_import.refuse_lines(self.connection, refused)
        rejected, left_out, taken = await file_import.count_lines(self.connection, first, last)
        return replace(
            done,
            lines=last,
            imported=done.imported + inserted,
            imported_lines=done.imported_lines + taken,
            rejected=done.rejected + rejected,
            left_out=done.left_out + left_out,
        )


async def _write_rejects(
    connection: Connection, digest: str | None, messages: MessageList, path: Path, source: Path
) -> Path:
    """Write the refused lines as they stand in the file, those of earlier runs too."""
    delimiter = messages.delimiter
    with RejectsFile(path, messages.header, delimiter=delimiter, source=source) as out:
        records = messages.records()
        while batch := list(islice(records, BATCH_LINES)):
            last = batch[-1].line + batch[-1].lines - 1
            reasons = await file_import.rejections(connection, digest, batch[0].line, last)
            if reasons:
                out.add(
                    (line, list_text(reasons[line.number]))
                    for record in batch
                    if any(record.line + place in reasons for place in range(record.lines))
                    for line in messages.lines(record)
                    if line.number in reasons
                )
    return out.path


async def _begin(  # noqa: PLR0917
    connection: Connection,
    file: Path,
    digest: str,
    campaign: str,
    options: ImportOptions,
    replaced: Progress | None,
) -> Progress:
    """Begin a load and its campaign, or go on; return how far it has come."""
    await campaigns.begin(connection, options.actor, campaign, shown_file_name(file))
    if options.stop_at is not None:
        for each in [campaign, *await file_import.named_campaigns(connection)]:
            await campaigns.begin(connection, options.actor, each, shown_file_name(file))
            await campaigns.stop_at(connection, options.actor, each, options.stop_at)
    return await file_import.begin_import(
        connection, digest, shown_file_name(file), campaign, replaced=replaced
    )


async def _survey(
    connection: Connection,
    file: Path,
    messages: MessageList,
    data_from: int,
    on_progress: Progressed,
) -> _Seen:
    """Read the file once, and put its good lines into a table where they are seen as a whole.

    Raises ListError if it has none, or one of a campaign that is cancelled.
    """
    await file_import.make_survey(connection)
    seen = _Seen(last=data_from - 1)
    for batch in _batches(messages):
        good = [line for line in batch if line.values]
        await file_import.add_to_survey(
            connection,
            [
                (line.number, line.lines, *[line.values[place] for place in _SURVEYED])
                for line in good
            ],
            [(line.number, line.lines, line.reason) for line in batch if line.reason],
        )
        for line in batch:
            seen.assumed_mainland += line.assumed_mainland
            seen.respelled += line.respelled
            seen.refused += line.lines if line.reason else 0
        seen.good += len(good)
        seen.good_lines += sum(line.lines for line in good)
        seen.last = batch[-1].number + batch[-1].lines - 1
        on_progress(0, READING_SHARE * messages.progress())
    if seen.last < data_from:
        raise ListError(
            _("{file} is empty: it has a header and no lines.").format(file=file), misused=True
        )
    await file_import.index_survey(connection)
    if cancelled := await file_import.cancelled_campaign(connection):
        raise ListError(
            _("campaign {name} is cancelled for good: name another one.").format(name=cancelled),
            misused=True,
        )
    return seen


async def _leave_out_earlier(
    connection: Connection, options: ImportOptions, refusal: InAlreadyError | None
) -> None:
    """Leave out the lines that are in already if the user wants that, or to show it."""
    if refusal is not None and not options.dry_run:
        raise refusal
    if options.rest or refusal is not None:
        await file_import.leave_out_earlier(connection)


async def _campaign(
    connection: Connection, file: Path, options: ImportOptions, replaced: Progress | None
) -> str:
    """Return the campaign of a new load.

    That is the one that the user names, or that of the load before if its rest is loaded, or one by
    the name of the file.
    """
    if options.campaign is not None:
        found = await campaigns.find(connection, options.campaign)
        if found is not None and found.state == "cancelled":
            raise ListError(
                _("campaign {name} is cancelled for good: name another one.").format(
                    name=found.name
                ),
                misused=True,
            )
        return options.campaign
    if replaced is not None and replaced.campaign and not (options.again and replaced.imported):
        found = await campaigns.find(connection, replaced.campaign)
        if found is not None and found.state != "cancelled":
            return found.name
    name = shown_file_name(file)[: campaigns.MAX_NAME_CHARACTERS - len(" (999)")]
    places = range(2, 1_000)
    for candidate in (name, *(f"{name} ({place})" for place in places)):
        if await campaigns.find(connection, candidate) is None:
            return candidate
    raise ListError(_("name a campaign with --campaign: {name} was used often.").format(name=name))


def _wait_seconds(options: ImportOptions, messages: int) -> float:
    """Return how much later each message is due than the one before."""
    if options.per_hour is not None:
        return 3600 / options.per_hour
    return (options.spread_seconds or 0.0) / max(1, messages)


def _form(options: ImportOptions) -> Form:
    """Return the form of the file: where options give all variables, no other column is one."""
    said = options.whole.template is not None and bool(options.whole.params)
    return replace(options.form, ignore_others=options.form.ignore_others or said)


def _digest(file: Path, encoding: str, options: ImportOptions) -> str:
    """Return what distinguishes this load from others: the content, and what it makes of it."""
    form, whole = options.form, options.whole
    said = (
        encoding, sorted(form.columns.items()), form.recipients_only, form.sheet,
        whole.template, whole.params, whole.app, whole.sender, whole.signature,
    )  # fmt: skip
    content = hashlib.sha256(repr(said).encode() + b"\0")
    with file.open("rb") as stream:
        while piece := stream.read(io.DEFAULT_BUFFER_SIZE * 16):
            content.update(piece)
    return content.hexdigest()
