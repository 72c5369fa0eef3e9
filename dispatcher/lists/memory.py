"""Limits the memory of a process that reads a list: a list is input from outside."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dispatcher.core.errors import ListError
from dispatcher.core.language import _

MAX_MEMORY_BYTES: Final = 2 * 1024 * 1024 * 1024  # lists of 200 MB and workbooks of 1 GB take less


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process take `MAX_MEMORY_BYTES` at most; raises ListError where that is too little.

    A lower limit that the process has already stays.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = MAX_MEMORY_BYTES if before == resource.RLIM_INFINITY else min(before, MAX_MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    try:
        yield
    except MemoryError:
        raise ListError(
            _("It takes too much memory: split the list, or save it as CSV UTF-8."), misused=True
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
