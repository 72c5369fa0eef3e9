"""The statements of this room: one file each under ``sql/``, read once."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "sql"


@cache
def sql(name: str) -> str:
    """Return the statement of ``sql/<name>.sql``, its header comment included.

    The comment stays: it is what ``pg_stat_activity`` and the server's log show, and there it
    says what the statement promises.
    """
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
