"""Keeps on disk when the worker of a data directory was last in its database.

A database that is restored lacks what was written since its backup, and cannot know it. The worker
that runs then knows, by its last heartbeat. So does the next one, which reads it here.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from dispatcher.core.errors import os_reason

log = structlog.get_logger(__name__)

FILE_NAME = "last-heartbeat.json"
SLOW_SECONDS: Final = 1.0  # after which a write is one that the disk does not answer


class LastHeartbeat(Struct, frozen=True):
    """A heartbeat that the database had; times by its clock, in seconds since 1970."""

    database: str  # its identity
    worker: int
    started: float  # when the row of the worker was written
    at: float


def read_last_heartbeat(folder: Path) -> LastHeartbeat | None:
    """Return what the last worker of *folder* wrote; None: nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=LastHeartbeat)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


class HeartbeatFile:
    """Keeps heartbeats in a folder, each in a thread: a disk that hangs must not delay a lease."""

    def __init__(self, folder: Path) -> None:
        """*folder* is made if need be."""
        self._folder = folder
        self._writing: Thread | None = None
        self._began = 0.0
        self._why = ""  # the last one could not be kept; the log has it

    def keep(self, last: LastHeartbeat) -> None:
        """Begin to write *last* for the next worker of the folder, unless one is being written."""
        if self._writing is not None and self._writing.is_alive():
            if monotonic() - self._began > SLOW_SECONDS:
                self._note("the disk does not answer")
            return
        # Not of a pool, which the process would wait for at its end.
        self._began = monotonic()
        self._writing = Thread(target=self._write, args=(last,), daemon=True)
        try:
            self._writing.start()
        except RuntimeError as error:  # there are as many threads as there may be
            self._writing = None
            self._note(str(error))

    def _write(self, last: LastHeartbeat) -> None:
        try:
            _write(self._folder, last)
        except OSError as error:
            self._note(os_reason(error))
        else:
            self._why = ""

    def _note(self, why: str) -> None:
        if not self._why:
            log.warning(
                "the last heartbeat is not kept: the next worker may not know a restored database",
                folder=str(self._folder),
                why=why,
            )
        self._why = why


def _write(folder: Path, last: LastHeartbeat) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # In containers that share the folder two processes may have one id.
    path = folder / f"{FILE_NAME}.{os.getpid()}-{last.worker}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(msgspec.json.encode(last))
        path.replace(folder / FILE_NAME)  # never half of one
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
