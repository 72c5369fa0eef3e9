"""What is kept on disk is kept whole, or it is said that it is not."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dispatcher.db.spool import Spool, orphaned_files

ROOM = 4096


@contextmanager
def little_room() -> Iterator[None]:
    """Let no file grow beyond ROOM: as on a full disk, the write that meets the end is cut."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_cut_by_a_full_disk_leaves_the_others_whole(tmp_path):
    spool = Spool(tmp_path, "answers")
    spool.append([b"first"])
    with little_room(), pytest.raises(OSError, match="File too large"):
        spool.append([b"x" * (ROOM + 1)])
    spool.append([b"second"])
    spool.close()
    with orphaned_files(tmp_path, "answers") as [left]:
        assert left.records == [b"first", b"second"]
        assert not left.damaged
