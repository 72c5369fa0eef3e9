"""Records that the database cannot take now, kept on disk until it can.

A file belongs to one process, which holds a lock on it; a file whose process is dead is taken up
by the next that looks. A record is its length, its CRC and its bytes: what a crash cut off is
noticed, and everything before it is still good.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEAD = struct.Struct(">II")  # length of the record, CRC-32 of the record
MAX_RECORD = 16 * 1024 * 1024  # bytes; a length beyond is damage
FULL = 4 * 1024 * 1024  # bytes after which another file is begun, so that none is long to read
QUARANTINE_SUFFIX = (
    ".damaged"  # what is added to the name of a file that could not be read to its end
)


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
            # A half written record would hide whatever is appended behind it.
            self._cut(start)
            raise
        if file.tell() >= FULL:
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


def size(folder: Path, kind: str) -> tuple[int, int]:
    """Return how many files there are of *kind*, anybody's, and their bytes. Raises OSError."""
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
    """What a process left behind."""

    path: Path
    records: list[bytes]
    damaged: bool  # not all of the file can be read; callers that decode the records may set it too


@contextmanager
def orphaned_files(folder: Path, kind: str, most: int = FULL) -> Iterator[list[SpoolFile]]:
    """Give what dead processes left; the files are removed when the block ends without error.

    Files of about *most* bytes in all are given, and more the next time, until there are none.
    While the block runs nobody else gets the same files. A damaged one is set aside and not
    removed: a human may find more in it.
    """
    files: list[BinaryIO] = []
    left: list[SpoolFile] = []
    length = 0
    try:
        for path in sorted(folder.glob(f"*.{kind}")):
            if length >= most:
                break
            file = _claimed(path)
            if file is not None:
                files.append(file)
                left.append(_read(path, file))
                length += file.tell()
        yield left
        for each in left:
            if each.damaged:
                each.path.replace(each.path.with_name(each.path.name + QUARANTINE_SUFFIX))
            else:
                each.path.unlink()
    finally:
        for file in files:
            file.close()


def _claimed(path: Path) -> BinaryIO | None:
    """Open *path* if no living process holds it, and nobody has just taken it up."""
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
        record = file.read(length) if length <= MAX_RECORD else b""
        if len(record) < length or zlib.crc32(record) != crc:
            return SpoolFile(path, records, damaged=True)
        records.append(record)
    return SpoolFile(path, records, damaged=False)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of *data*: a disk that is nearly full takes a part of it, and says no error."""
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
