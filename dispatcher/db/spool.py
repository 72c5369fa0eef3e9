"""Spool: keeps records on disk while the database is unavailable.

A file belongs to one process, which holds a lock on it; a file of a dead process is read by the
next process that searches. A record is its length, its CRC and its bytes: a record that a crash cut
off is detected, and all records before it are good.

SQLite was tried instead (WAL, synchronous=FULL, one file of all processes) and not taken. On a full
disk its records can be read but not deleted, because a deletion is written too: the replay never
ends. And in 40 of 40 trials one damaged page of 4 KB cost records, up to all 200 of all processes.
Here a stored file is unlinked, and damage harms only what follows it in one file.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_HEAD = struct.Struct(">II")  # length of the record, CRC-32 of the record
REPORTS_KIND: Final = "reports"  # of the files of receivers
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024  # a longer one is damage
MAX_FILE_BYTES: Final = 4 * 1024 * 1024  # then another file is begun, so that each is quick to read
QUARANTINE_SUFFIX: Final = ".damaged"  # added to the name of a file that cannot be read to its end


class Spool:
    """The spool file of this process, made at the first record.

    *kind* keeps the files of several users apart in one folder.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._file: BinaryIO | None = None

    def append(self, records: Iterable[bytes]) -> None:
        """Write *records*; when this returns they survive a power cut. Raises OSError."""
        file = self._file or self._open()
        start = file.tell()
        try:
            for record in records:
                _write(file, _HEAD.pack(len(record), zlib.crc32(record)) + record)
            os.fsync(file.fileno())
        except OSError:
            # A half written record would hide the records appended behind it.
            try:
                self._cut(start)
            except OSError:
                self.close()  # those go to another file
            raise
        if file.tell() >= MAX_FILE_BYTES:
            self.close()

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = self._folder / f"{os.getpid()}.{os.urandom(4).hex()}.{self._kind}"
            file = open(path, "xb", opener=_private, buffering=0)  # noqa: SIM115 - `close` does it
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()  # another process took it for a dead process's before it was locked
        _sync_folder(self._folder)
        self._file = file
        return file

    def _cut(self, at: int) -> None:
        if self._file is not None:
            self._file.seek(at)
            self._file.truncate()

    def close(self) -> None:
        """Close the file; the next reader takes it up."""
        if self._file is not None:
            self._file.close()
            self._file = None


def why_unwritable(folder: Path) -> str | None:
    """Return why no file can be written in *folder*, which may not exist yet; None if one can.

    Nothing is written.
    """
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not place.is_dir():
        why = "is no directory"
    elif not os.access(place, os.W_OK | os.X_OK):
        why = "cannot be written to"
    else:
        return None
    return (
        f"{place} {why}, so answers and reports are lost if they come while the database is"
        " unavailable: set DISPATCHER_DATA_DIR to a directory of this user."
    )


def size(folder: Path, kind: str) -> tuple[int, int]:
    """Return how many files of *kind* there are, of all processes, and their bytes.

    Raises OSError.
    """
    files = 0
    length = 0
    for path in folder.glob(f"*.{kind}"):
        try:
            length += path.stat().st_size
        except FileNotFoundError:  # it was taken up meanwhile
            continue
        files += 1
    return files, length


@dataclass(slots=True)
class SpoolFile:
    """A file that a dead process left."""

    path: Path
    records: list[bytes]
    damaged: bool  # not all of the file can be read; callers that decode the records may set it too
    stays: bool = False  # callers set it: not all of its records could be processed yet


@contextmanager
def orphaned_files(
    folder: Path, kind: str, most: int = MAX_FILE_BYTES, *, left_out: Collection[Path] = ()
) -> Iterator[list[SpoolFile]]:
    """Give the files of dead processes; remove them when the block ends without error.

    Files of about *most* bytes in all are given, and more the next time, until there are none.
    While the block runs no other process gets the same files. One that *stays* is given again,
    unless it is *left_out*. A damaged one is renamed and not removed: a person may find more in it.
    """
    files: list[BinaryIO] = []
    left: list[SpoolFile] = []
    length = 0
    try:
        for path in sorted(set(folder.glob(f"*.{kind}")).difference(left_out)):
            if length >= most:
                break
            file = _claimed(path)
            if file is not None:
                files.append(file)
                left.append(_read(path, file))
                length += file.tell()
        yield left
        for each in left:
            if each.stays:
                continue
            if each.damaged:
                each.path.replace(each.path.with_name(each.path.name + QUARANTINE_SUFFIX))
            else:
                each.path.unlink()
    finally:
        for file in files:
            file.close()


def _claimed(path: Path) -> BinaryIO | None:
    """Open *path* if no living process holds it, and none has just removed it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file
    except BlockingIOError:
        pass
    file.close()
    return None


def _read(path: Path, file: BinaryIO) -> SpoolFile:
    records: list[bytes] = []
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            return SpoolFile(path, records, damaged=True)
        length, crc = _HEAD.unpack(head)
        record = file.read(length) if length <= MAX_RECORD_BYTES else b""
        if len(record) < length or zlib.crc32(record) != crc:
            return SpoolFile(path, records, damaged=True)
        records.append(record)
    return SpoolFile(path, records, damaged=False)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of *data*: a disk that is nearly full accepts a part of it without an error."""
    while data:
        data = data[file.write(data) :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file survive a power cut too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
