"""Keeps on disk when the worker of a data directory was last in its database.

A database that is restored lacks what was written since its backup, and cannot know it. The worker
that runs then knows, by its last heartbeat. So does the next one, which reads it here.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

FILE_NAME = "last-heartbeat.json"


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


def write_last_heartbeat(folder: Path, last: LastHeartbeat) -> None:
    """Keep *last* for the next worker of *folder*, which is made if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{FILE_NAME}.{os.getpid()}"
    path.write_bytes(msgspec.json.encode(last))
    path.replace(folder / FILE_NAME)  # never half of one
