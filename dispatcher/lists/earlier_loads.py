"""Whether a list is in already: what a load of it does then, and what the user is asked.

A load that was interrupted goes on. A file that is in is refused, and so is a list that was
corrected since, until the user says whether to load the rest of it or all of it again.
"""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dispatcher.core.errors import ListError
from dispatcher.core.language import _
from dispatcher.db import campaigns, file_import
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.file_import import Earlier, EarlierLoad, Progress
from dispatcher.lists.messages import Whole
from dispatcher.lists.reading import Form

MANY_EARLIER: Final = 1_000  # people who would get a text twice, whatever their share of the list
FEW_IN_COMMON: Final = 10  # lines that another list may share by chance, such as one's own numbers
_OF_REJECTS = re.compile(r"(?:\.rejects(?:-[0-9]+)?)+$")  # what a file of rejects has in its name


class InAlreadyError(ListError):
    """Lines of a list are in already: the user is to choose which to load."""


class ImportOptions(Struct, frozen=True):
    """How a file is loaded. Without *again* and *rest*, much that is in already stops the load."""

    form: Form = Form()
    whole: Whole = Whole()
    again: bool = False  # also what is in already
    rest: bool = False  # only what is not in already
    stop_for_any: bool = False  # one line that is in stops the load, of whatever list it is
    asked_at: datetime | None = None  # a load of this file that began since is this one
    unique: bool = False  # only the first line of each number
    dry_run: bool = False
    other_mainland: bool = False  # see core.number
    apps: tuple[str, ...] = ()  # that are configured
    campaign: str | None = None  # None: one of its own, by the name of the file
    actor: str = "enqueue"  # who begins the campaign
    spread_seconds: float | None = None  # over which the messages are due, evenly
    per_hour: int | None = None  # messages that become due in an hour
    stop_at: float | None = None  # share of failed messages at which the campaign pauses


class Start(Struct, frozen=True):
    """Where a load starts."""

    done: Progress
    replaced: Progress | None = None  # the load of the same file that this one replaces
    before: int = 0  # messages that are in, of a dry run
    anew: bool = False  # lines of the file are in, and it is loaded from its beginning
    refusal: InAlreadyError | None = None  # of a dry run


async def find_start(
    connection: Connection, file: Path, digest: str, rejects: Path, options: ImportOptions
) -> Start:
    """Return where a load of *file* starts. Raises InAlreadyError if all of it is in.

    An interrupted load goes on, unless it put nothing in, as an option may have been missing, or
    its campaign was cancelled.
    """
    known = await file_import.known_import(connection, digest)
    if known is None or known.started_at is None:
        return Start(Progress())
    if options.asked_at is not None and known.started_at >= options.asked_at:
        return Start(known)
    interrupted = known.finished_at is None and known.imported > 0
    if interrupted and not await _is_cancelled(connection, known.campaign):
        return Start(_left_out(known), before=known.imported) if options.dry_run else Start(known)
    is_in = await file_import.is_in(connection, digest)
    if interrupted or not is_in or options.again or options.rest:
        return Start(Progress(), known, anew=is_in)
    refusal = _in_already(file, known, rejects)
    if options.dry_run:
        return Start(Progress(), known, anew=is_in, refusal=refusal)
    raise refusal


async def _is_cancelled(connection: Connection, campaign: str | None) -> bool:
    found = await campaigns.find(connection, campaign) if campaign is not None else None
    return found is not None and found.state == "cancelled"


def _in_already(file: Path, known: Progress, rejects: Path) -> InAlreadyError:
    """Return the error of a file that is in."""
    lines = [
        _("{file} is in already, since {finished_at}: nothing was enqueued.").format(
            file=file, finished_at=_moment(known.finished_at or known.started_at)
        ),
        _("--rest enqueues only what is not in, --again enqueues all of it a second time."),
    ]
    if known.rejected and rejects.exists():
        lines.append(
            _("Lines of it were refused, {count}, each with its reason in {rejects}.").format(
                count=f"{known.rejected:,}", rejects=rejects
            )
        )
    return InAlreadyError(*lines)


def _left_out(done: Progress) -> Progress:
    """Return the progress of a load as a dry run counts it: what is in is left out."""
    return replace(done, imported=0, imported_lines=0, left_out=done.left_out + done.imported_lines)


def many_already(
    file: Path,
    options: ImportOptions,
    campaign: str,
    left: int,
    earlier: Earlier | None,
) -> InAlreadyError | None:
    """Return the error if lines are in already, and the user has not said what to do with them.

    *left*: messages of *file* that are not done. A few lines that another list has put in are no
    error: such messages may be meant. So are a few that were compared without their variables.
    """
    if earlier is None or options.again or options.rest:
        return None
    compared = earlier.lines - earlier.wiped
    many = options.stop_for_any or earlier.lines * 2 > left or compared >= MANY_EARLIER
    if not many and not any(_is_of_list(load, file, campaign) for load in earlier.loads):
        return None
    first = earlier.loads[0]
    lines = [
        _(
            "{lines} of {left} messages of {file} are in already, since {started_at}"
            " from {name}: nothing was enqueued."
        ).format(
            lines=f"{earlier.lines:,}",
            left=f"{left:,}",
            file=file,
            started_at=_moment(first.started_at),
            name=first.name,
        ),
        _("--rest enqueues only the others, --again enqueues all of them a second time."),
    ]
    if earlier.wiped and not options.dry_run:
        lines.append(say_wiped(earlier))
    return InAlreadyError(*lines)


def say_wiped(earlier: Earlier) -> str:
    """Return what is said of lines that were compared without their variables."""
    return _(
        "The variables of {count} of those that are in are deleted by now (WIPE_PARAMS_AFTER): all"
        " else was compared. A message with another --reference is another one."
    ).format(count=f"{earlier.wiped:,}")


def _is_of_list(load: EarlierLoad, file: Path, campaign: str) -> bool:
    """Tell whether *file* is the list of an earlier load that was corrected, or its rejects."""
    same = load.campaign == campaign or _list_name(load.name) == _list_name(shown_file_name(file))
    most = load.lines * 2 > load.imported
    return (same and (most or load.compared > 0)) or (most and load.lines > FEW_IN_COMMON)


def _list_name(name: str) -> str:
    """Return the name of a list without what its rejects, or another format, have in theirs."""
    return _OF_REJECTS.sub("", name.rpartition(".")[0] or name)


def _moment(time: datetime | None) -> str:
    """Return a time as commands show it, with its zone."""
    return time.astimezone().isoformat(" ", "seconds") if time is not None else ""


def shown_file_name(file: Path) -> str:
    """Return the name of *file* as a table shows it: a file may have any bytes for a name."""
    name = os.fsencode(file.name).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
