"""Named SQL statements of the benchmarks, one file for each package."""

import re
from functools import cache
from pathlib import Path

_NAME_LINE = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def read_queries(file: Path) -> dict[str, str]:
    """Return the statements of *file* by name; each follows a line ``-- name: <name>``."""
    _, *parts = _NAME_LINE.split(file.read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def query(name: str) -> str:
    """Return statement *name* of ``queries.sql`` beside this file."""
    return read_queries(Path(__file__).with_name("queries.sql"))[name]
