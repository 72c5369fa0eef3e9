"""Checks or loads an uploaded list in its own process: `python -m dispatcher.lists.upload_work`.

Reading a list is work for the processor: in the console's process it would delay messages that
go out. The process reads a `WorkOrder` as JSON from stdin, and leaves its result in the database.
A load that was cut is taken up again: no line is in twice.
"""

import asyncio
import csv
import fcntl
import os
import resource
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import time
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.errors import ListError, os_reason
from dispatcher.core.format import mask
from dispatcher.core.language import _
from dispatcher.core.rules import Limits
from dispatcher.db import list_uploads
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.database import connect
from dispatcher.db.errors import UNAVAILABLE_ERRORS
from dispatcher.db.file_import import TakenOverError
from dispatcher.db.list_uploads import ListUpload
from dispatcher.lists.earlier_loads import ImportOptions, InAlreadyError
from dispatcher.lists.file_load import Loaded, Progressed, load_file
from dispatcher.lists.header import HeaderError, given_columns
from dispatcher.lists.memory import limited_memory
from dispatcher.lists.messages import Whole
from dispatcher.lists.reading import Form

PROGRESS_SECONDS = 1.0
SHOWN_REFUSALS = 20  # lines that the page shows; the file has all
MAX_CPU_SECONDS = 1800  # 200 MB of short lines take a third of it
FOLDER_PREFIX = "dispatcher-list-"
LOCKED_AFTER_SECONDS = 1.0  # a new folder is locked long before
MAX_END_TRIES = 30  # to write the result, one a second; after that the next process does
MAX_TRIES = 3  # of a check or a load whose process died: the fourth would die too


class UploadOptions(Struct, frozen=True):
    """What the operator says of a list; the texts are as in the form."""

    encoding: str | None = None
    sheet: str | None = None
    columns: tuple[str, ...] = ()  # pairs such as recipient=客户电话
    ignore_others: bool = False
    recipients_only: bool = False
    template: str | None = None
    params: tuple[str, ...] = ()
    app: str | None = None
    sender: str | None = None
    signature: str | None = None
    priority: str | None = None
    send_at: str | None = None
    expires_at: str | None = None
    zone: str | None = None
    campaign: str | None = None
    spread_seconds: float | None = None
    per_hour: int | None = None
    stop_at: float | None = None
    unique: bool = False
    rest: bool = False
    again: bool = False


class UploadResult(Struct, frozen=True):
    """What a check or a load of a list gave."""

    messages: int
    lines: int
    imported_lines: int
    rejected: int
    left_out: int
    blank: int
    campaign: str
    notes: list[str]
    assumed_mainland: int
    respelled: int
    repeats: int
    suppressed: int
    apps: dict[str, int]
    unknown_templates: list[str]
    earlier_lines: int
    earlier_name: str | None
    earlier_at: datetime | None
    previews: list[tuple[int, str, str]]  # line, masked number, text
    segments: int
    unknown_messages: int  # of which segments are not known
    cost: dict[str, Decimal]  # by currency
    refusals: list[tuple[int, str]]  # the first lines, with their reasons
    countries: dict[str, int] = {}  # messages of a check; empty if all are for mainland China
    due: tuple[datetime, datetime] | None = None  # of a check: its first and last; None: at once
    limits: dict[str, Limits] = {}  # of those of its apps that have any


class WorkOrder(Struct, frozen=True):
    """What a process is to do."""

    dsn: str
    upload_id: int
    other_mainland: bool


def import_options(
    order: WorkOrder, upload: ListUpload, *, dry_run: bool, tries: int
) -> ImportOptions:
    """Return the options of a check or a load. Raises ListError for what cannot be.

    What a process that died has loaded is not loaded again, also where the operator said again.
    """
    given = msgspec.json.decode(upload.options, type=UploadOptions)
    try:
        columns = given_columns(given.columns)
    except HeaderError as error:
        raise ListError(f"{error}.", misused=True) from None
    return ImportOptions(
        Form(given.encoding, columns, given.ignore_others, given.recipients_only, given.sheet),
        Whole(
            given.template,
            given.params,
            given.app,
            given.sender,
            given.signature,
            None,
            given.priority,
            given.send_at,
            given.expires_at,
            ZoneInfo(given.zone) if given.zone else None,
        ),
        again=given.again,
        rest=given.rest,
        stop_for_any=True,
        asked_at=upload.asked_at if tries > 1 and not dry_run else None,
        unique=given.unique,
        dry_run=dry_run,
        campaign=given.campaign,
        actor=upload.loaded_by or upload.created_by,
        spread_seconds=given.spread_seconds,
        per_hour=given.per_hour,
        stop_at=given.stop_at,
        other_mainland=order.other_mainland,
    )


def upload_result(loaded: Loaded, rejects: bytes | None) -> UploadResult:
    """Return what is kept of a check or a load; it holds no whole number."""
    done, survey, earlier, bill = loaded.progress, loaded.survey, loaded.earlier, loaded.bill
    lines = bill.lines.values() if bill is not None else ()
    return UploadResult(
        done.imported,
        loaded.lines,
        done.imported_lines,
        done.rejected,
        done.left_out,
        loaded.blank,
        loaded.campaign,
        loaded.notes,
        loaded.assumed_mainland,
        loaded.respelled,
        survey.repeats,
        survey.suppressed,
        survey.apps,
        [*survey.unknown_templates],
        earlier.lines if earlier else 0,
        earlier.loads[0].name if earlier else None,
        earlier.loads[0].started_at if earlier else None,
        [(shown.line, mask(shown.recipient), shown.text) for shown in loaded.previews],
        sum(line.estimated for line in lines),
        sum(line.unknown for line in lines),
        bill.sums(most=True) if bill is not None else {},
        _refusals(rejects),
        loaded.countries_abroad,
        loaded.due,
        {
            app: loaded.limits[app]
            for app in survey.apps
            if loaded.limits.get(app, Limits()) != Limits()
        },
    )


def _refusals(rejects: bytes | None) -> list[tuple[int, str]]:
    if rejects is None:
        return []
    text = TextIOWrapper(BytesIO(rejects), "utf-8-sig", "replace")
    delimiter = text.readline().removeprefix("line")[:1] or ","
    rows = csv.reader(islice(text, 4 * SHOWN_REFUSALS), delimiter=delimiter)
    return [(int(row[0]), row[1]) for row in rows if row and row[0].isdigit()][:SHOWN_REFUSALS]


class _Watch:
    """The connection on which progress is shown: it is opened again where it breaks."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None

    async def connected(self) -> Connection:
        """Return the connection, or a new one if that is lost."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._dsn, application_name="dispatcher list: progress"
            )
        return self._connection

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()


async def work(order: WorkOrder) -> None:
    """Check or load a list, unless another process does it."""
    remove_left_folders()
    watch = _Watch(order.dsn)
    try:
        tries = await list_uploads.begin_work(await watch.connected(), order.upload_id)
        upload = await list_uploads.find(await watch.connected(), order.upload_id)
        if tries is None or upload is None:
            return
        if tries > MAX_TRIES:
            died = _(
                "Its process died 3 times: does it take too much memory or time? Nothing more is"
                " tried. Split the list, or load it with `dispatcher enqueue`, which goes on after"
                " the lines that are in."
            )
            await _end(watch, order, "failed", None, died, None)
            return
        rejects: list[bytes] = []
        result, error = None, None
        dry_run = upload.state == "checking"
        try:
            options = import_options(order, upload, dry_run=dry_run, tries=tries)
            async with _progress_shown(watch, order) as on_progress:
                with limited_memory():
                    try:
                        result = await _load(order, upload, options, on_progress, rejects)
                    except InAlreadyError as refusal:  # since the check: the page asks what to load
                        error, dry_run = refusal.lines[0], True
                        options = replace(options, dry_run=True)
                        result = await _load(order, upload, options, on_progress, rejects)
        except TakenOverError as failure:
            upload = await list_uploads.find(await watch.connected(), order.upload_id)
            if upload is None or upload.tries != tries:
                return  # by a process of this upload, which writes the result
            error = "\n".join(failure.lines)
        except ListError as failure:
            error = "\n".join(failure.lines)
        done: list_uploads.State = "checked" if dry_run else "loaded"
        await _end(
            watch,
            order,
            "failed" if result is None else done,
            result,
            error,
            rejects[0] if rejects else None,
        )
    finally:
        await watch.close()


@asynccontextmanager
async def _progress_shown(watch: _Watch, order: WorkOrder) -> AsyncIterator[Progressed]:
    """Show that the work goes on, and how far it is; what is lost of that harms nothing."""
    share = 0.0

    def on_progress(_taken: int, done: float) -> None:
        nonlocal share
        share = done

    async def show_progress() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            with suppress(*UNAVAILABLE_ERRORS):
                await list_uploads.note_progress(await watch.connected(), order.upload_id, share)

    showing = asyncio.create_task(show_progress())
    try:
        yield on_progress
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _end(  # noqa: PLR0917
    watch: _Watch,
    order: WorkOrder,
    state: list_uploads.State,
    result: UploadResult | None,
    error: str | None,
    rejects: bytes | None,
) -> None:
    """Keep what a check or a load gave, also while the database is away for a moment."""
    text = msgspec.json.encode(result).decode() if result is not None else None
    for left in reversed(range(MAX_END_TRIES)):
        try:
            connection = await watch.connected()
            await list_uploads.end_work(connection, order.upload_id, state, text, error, rejects)
        except UNAVAILABLE_ERRORS:
            if not left:
                raise
            await asyncio.sleep(PROGRESS_SECONDS)
        else:
            return


async def _load(
    order: WorkOrder,
    upload: ListUpload,
    options: ImportOptions,
    on_progress: Progressed,
    rejects: list[bytes],
) -> UploadResult:
    """Check or load a list; put the file of refused lines into *rejects*. Raises ListError."""
    connection = await connect(order.dsn, application_name="dispatcher list")
    try:
        return await _load_on(connection, upload, options, on_progress, rejects)
    finally:
        await connection.close()


async def _load_on(
    connection: Connection,
    upload: ListUpload,
    options: ImportOptions,
    on_progress: Progressed,
    rejects: list[bytes],
) -> UploadResult:
    content = await list_uploads.content(connection, upload.id)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_own_folder())
            file, refused = folder / _file_name(upload.name), folder / ".rejects"
            with file.open("wb") as out:
                out.writelines(content)
        except OSError as error:  # of a container whose /tmp is smaller than the list, for one
            raise ListError(
                _(
                    "The list cannot be written to a temporary folder ({why}): make room there, or"
                    " set TMPDIR for the service."
                ).format(why=os_reason(error))
            ) from None
        try:
            loaded = await load_file(connection, file, refused, on_progress, options)
        except ListError as error:
            lines = [line.replace(f"{folder}/", "") for line in error.lines]
            raise type(error)(*lines, misused=error.misused) from None
        finally:
            if refused.exists():
                rejects.append(refused.read_bytes())
    return upload_result(loaded, rejects[0] if rejects else None)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Make a temporary folder; it is locked as long as this process lives. Raises OSError."""
    with TemporaryDirectory(prefix=FOLDER_PREFIX) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. Raises OSError if there is none, or if another process has locked it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_left_folders() -> None:
    """Remove the temporary folders of processes that were killed: they hold numbers."""
    for folder in Path(gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.getuid() and about.st_mtime < time() - LOCKED_AFTER_SECONDS:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _file_name(name: str) -> str:
    """Return the name of an uploaded file as a plain name in a folder."""
    plain = name.replace("\\", "/").rpartition("/")[2].replace("\0", "").strip(".")
    return plain.encode("utf-8", "ignore")[-200:].decode("utf-8", "ignore") or "list"


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    seconds = MAX_CPU_SECONDS if hard == resource.RLIM_INFINITY else min(MAX_CPU_SECONDS, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with limited_memory():
        asyncio.run(work(msgspec.json.decode(sys.stdin.buffer.read(), type=WorkOrder)))
