"""Imports a CSV file of messages in batches; each batch records the progress."""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from dispatcher.cli.csv_file import COLUMNS, UTF_8, Line, MessageFile
from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.db import file_import
from dispatcher.db.database import OwnConnection as Connection
from dispatcher.db.file_import import Progress

_REJECT_COLUMNS = ("line", "reason")


class Rejects:
    """The rejects file of an import; created at the first refused line.

    A continued import keeps the first *size* bytes: later ones are of lines that are not in the
    database yet, and are read again.
    """

    def __init__(self, path: Path, header: list[str], *, size: int = 0) -> None:
        self.path = path
        self.size = size
        self._kept = [place for place, name in enumerate(header) if name not in _REJECT_COLUMNS]
        self._header = [header[place] for place in self._kept]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.size:
            self._file = _open(self.path, "r+b")
            if self._file.seek(0, os.SEEK_END) < self.size:
                self._file.close()
                raise CommandError(
                    f"{self.path} is shorter than it was when this import was interrupted: bring it"
                    " back, or name the right one with --rejects."
                )
            self._file.truncate(self.size)
            self._file.seek(self.size)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, refused: Iterable[tuple[Line, str]]) -> int:
        """Write lines with their reasons, and sync the file; return their number."""
        count = 0
        text = StringIO(newline="")
        writer = csv.writer(text)
        for line, reason in refused:
            kept = [line.cells[place] for place in self._kept if place < len(line.cells)]
            writer.writerow([line.number, reason, *kept])
            count += 1
        if count:
            self._write(text.getvalue())
        return count

    def _write(self, text: str) -> None:
        if self._file is None:
            self._file = _open(self.path, "wb")
            head = StringIO(newline="")
            csv.writer(head).writerow([*_REJECT_COLUMNS, *self._header])
            text = head.getvalue() + text
        # Surrogates are written as the bytes they were read from.
        self.size += self._file.write(text.encode("utf-8", "surrogateescape"))
        self._file.flush()
        os.fsync(self._file.fileno())


def _open(path: Path, mode: str) -> IO[bytes]:
    try:
        file: IO[bytes] = path.open(mode)
    except OSError as error:
        raise CommandError(
            f"refused lines cannot be written to {path}: {error.strerror}. Name another place with"
            " --rejects. Lines before the first refused one may be in already."
        ) from None
    return file


BATCH_LINES: Final = 5_000  # in one COPY: a fraction of a second and a few megabytes of memory
SAMPLE_BYTES: Final = 256 * 1024  # read to detect the encoding

Progressed = Callable[[int, int], None]  # imported messages, bytes read


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import."""

    encoding: str | None = None  # None: detected
    again: bool = False  # also a file that was imported before
    dry_run: bool = False
    other_mainland: bool = False  # see core.number


async def load_file(
    connection: Connection,
    file: Path,
    rejects: Path,
    on_progress: Progressed = lambda _taken, _read: None,
    options: ImportOptions | None = None,
) -> tuple[int, int]:
    """Import *file*, and write refused lines to *rejects*.

    An interrupted import of the same content is continued, and its lines are counted.

    Args:
        connection: of a role that may insert messages.
        file: the CSV file.
        rejects: the file for refused lines.
        on_progress: called after every batch.
        options: the encoding, and whether to import again or only to check.

    Returns:
        The numbers of imported and of refused lines.

    Raises:
        CommandError: it is not a file of messages, or was imported before.

    """
    options = options or ImportOptions()
    encoding = _encoding(file, options.encoding)
    digest = _digest(file, encoding)
    if options.dry_run:
        await file_import.make_dry_run(connection)
        done = Progress()
    else:
        done = await _begin(connection, file, digest, again=options.again)
    with file.open("rb") as stream:
        now = await file_import.database_time(connection)
        messages = MessageFile(
            file, stream, now, encoding=encoding, other_mainland=options.other_mainland
        )
        with Rejects(rejects, messages.header, size=done.rejects_bytes) as out:
            lines = islice(iter(messages), done.lines, None)
            while batch := list(islice(lines, BATCH_LINES)):
                if options.dry_run:
                    done = await _check_batch(connection, batch, out, done)
                else:
                    done = await _import_batch(connection, batch, out, done, digest)
                on_progress(done.imported, stream.tell())
    if not options.dry_run:
        await file_import.finish_import(connection, digest)
    return done.imported, done.rejected


async def _begin(connection: Connection, file: Path, digest: str, *, again: bool) -> Progress:
    if again:
        await file_import.forget_import(connection, digest)
    done = await file_import.begin_import(connection, digest, file.name)
    if done.finished_at is not None:
        raise CommandError(
            f"{file} is in already, since {done.finished_at.astimezone():%Y-%m-%d %H:%M:%S}: with"
            " --again all its messages are enqueued a second time."
        )
    return done


async def _import_batch(
    connection: Connection, batch: Sequence[Line], out: Rejects, done: Progress, digest: str
) -> Progress:
    """Import one batch and record the progress in one transaction.

    Its rejects are synced before the commit. If the commit fails, they are truncated when the
    import continues.
    """
    try:
        async with connection.transaction():
            after = await _copy(connection, batch, out, done, into=file_import.MESSAGES)
            await file_import.record_import(connection, digest, done, after)
    except file_import.TakenOverError as error:
        raise CommandError(str(error)) from error
    return after


async def _check_batch(
    connection: Connection, batch: Sequence[Line], out: Rejects, done: Progress
) -> Progress:
    """Find the bad lines of one batch, and roll it back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return await _copy(connection, batch, out, done, into=file_import.DRY_RUN)
    finally:
        await transaction.rollback()


async def _copy(
    connection: Connection,
    batch: Sequence[Line],
    out: Rejects,
    done: Progress,
    *,
    into: tuple[str, str],
) -> Progress:
    good = [line for line in batch if line.values]
    rows = [line.values for line in good]
    bad = dict(await file_import.copy_messages(connection, COLUMNS, rows, into=into))
    reasons = {good[place].number: reason for place, reason in bad.items()}
    refused = out.add(
        (line, line.reason or reasons[line.number])
        for line in batch
        if line.reason or line.number in reasons
    )
    return Progress(
        done.lines + len(batch),
        done.imported + len(batch) - refused,
        done.rejected + refused,
        out.size,
    )


def _digest(file: Path, encoding: str) -> str:
    """Return the digest that identifies an import: of the content and its encoding."""
    content = hashlib.sha256(encoding.encode() + b"\0")
    with file.open("rb") as stream:
        while piece := stream.read(io.DEFAULT_BUFFER_SIZE * 16):
            content.update(piece)
    return content.hexdigest()


def _encoding(file: Path, wanted: str | None) -> str:
    """Return *wanted*, or the encoding that *file* seems to have."""
    if wanted is not None:
        try:
            "".encode(wanted)
        except LookupError:
            raise CommandError(f"there is no encoding {wanted!r}.", code=USED_WRONGLY) from None
        return UTF_8 if wanted.lower().replace("_", "-") in ("utf-8", "utf8", UTF_8) else wanted
    with file.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    lines = [line for line in sample.splitlines() if not line.isascii()][:-1] or [sample]
    # If most lines are not UTF-8 it is another encoding; a few are bad lines.
    if sum(_decodes(line, "utf-8") for line in lines) * 2 >= len(lines):
        return UTF_8
    return "gb18030" if all(_decodes(line, "gb18030") for line in lines) else UTF_8


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
