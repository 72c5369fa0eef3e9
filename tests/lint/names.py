"""Counts class names and file names of `dispatcher` that have several meanings."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dispatcher"
MAX_CLASS_NAMES = 8
MAX_FILE_NAMES = 5

# One subject that several packages deal with, each on its floor. That is one meaning.
ONE_SUBJECT = {
    "audit": "the log of operators' actions",
    "bench": "the benchmark",
    "claim": "taking due messages from the queue",
    "cost": "what messages cost",
    "errors": "the errors of a package",
    "maintenance": "partitions and retention",
    "migrate": "the schema's migrations",
    "report_matching": "which report belongs to which message",
    "replies": "replies of persons (uplink)",
    "reports": "status reports",
    "routes": "the addresses a package serves",
    "rules": "operators' rules",
    "settings": "the settings",
    "status": "the state of everything",
    "workers": "running workers",
}


def repeated_names() -> Iterator[str]:
    """Yield a complaint if more names have several meanings than the limits allow.

    The simulator counts too: its types meet the others in tests and tracebacks.
    """
    classes = defaultdict(list)
    files = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if not path.stem.startswith("__") and path.stem not in ONE_SUBJECT:
            files[path.stem].append(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(name)
    yield from _complaints("class", classes, MAX_CLASS_NAMES)
    yield from _complaints("file", files, MAX_FILE_NAMES)


def _complaints(what: str, places: dict[str, list[str]], limit: int) -> Iterator[str]:
    several = {name: where for name, where in places.items() if len(where) > 1}
    if len(several) > limit:
        yield f"{len(several)} {what} names have several meanings; at most {limit} may:"
        yield from (f"  {name}: {', '.join(where)}" for name, where in several.items())
