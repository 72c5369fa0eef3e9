"""Writes deploy/docs/codes.md from the tables in `core.codes` and `core.report_status`."""

from collections.abc import Iterable
from pathlib import Path

from dispatcher.core.codes import NUMBER, OURS, REQUEST, Code
from dispatcher.core.report_status import STATUSES

PAGE = Path(__file__).parents[2] / "deploy/docs/codes.md"
_HEAD = """# Codes

`./dev codes` writes this page from `dispatcher/core/codes.py` and
`dispatcher/core/report_status.py`. The kind says what the dispatcher does with a code; `Kind` in
the first file explains each.
"""


def codes_page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        (
            _HEAD,
            "## Of a number\n",
            "The answer gives one of these for each number of a request.\n",
            _table(NUMBER.values()),
            "## Of a request\n",
            "The answer gives one of these for the whole request.\n",
            _table(REQUEST.values()),
            "## Of the dispatcher\n",
            "The dispatcher gives these itself.\n",
            _table(OURS.values()),
            "## Statuses of reports\n",
            "| status | state | reason | meaning |\n|---|---|---|---|",
            "\n".join(
                f"| `{each.status}` | {each.state} | {each.reason.value} | {each.meaning} |"
                for each in STATUSES.values()
            ),
            "",
        )
    )


def _table(codes: Iterable[Code]) -> str:
    rows = (f"| `{row.code}` | {row.kind.value} | {row.meaning} | {row.advice} |" for row in codes)
    return "\n".join(("| code | kind | meaning | what to do |\n|---|---|---|---|", *rows, ""))


if __name__ == "__main__":
    PAGE.write_text(codes_page(), encoding="utf-8")
