"""Writes deploy/docs/codes.md from `core.codes`, `core.code_table` and `core.report_status`."""

from collections.abc import Iterable
from pathlib import Path

from dispatcher.core.code_table import CODE_ROWS
from dispatcher.core.codes import NUMBER, OURS, REQUEST, Code
from dispatcher.core.report_status import STATUSES

PAGE = Path(__file__).parents[2] / "deploy/docs/codes.md"
_HEAD = """# Codes

`dispatcher explain CODE` shows one of them. The kind says what the dispatcher does with a code;
`Kind` in `dispatcher/core/codes.py` explains each. `./dev codes` writes this page from that file,
`dispatcher/core/codes.tsv` and `dispatcher/core/report_status.py`.
"""


_PUBLISHED_HEAD = (
    "| where | code | source | meaning | result | charged: by delivery | on sending | again |"
    " what to do | concerns |\n|---|---|---|---|---|---|---|---|---|---|"
)


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
            "What follows from a status:\n",
            "| status | state | reason | paused | may be sent again |\n|---|---|---|---|---|",
            "\n".join(
                f"| `{each.status}` | {each.state} | {each.reason.value} |"
                f" {each.pauses} | {'yes' if each.resendable else ''} |"
                for each in STATUSES.values()
            ),
            "\n## Published codes\n",
            "Every code that the provider, its suppliers and the carriers have published.\n",
            _PUBLISHED_HEAD,
            "\n".join(
                f"| {row.level} | `{row.shown}` | {row.source} | {row.meaning} | {row.result} |"
                f" {row.charged_by_delivery} | {row.charged_by_sending} | {row.again} |"
                f" {row.advice} | {row.concerns} |"
                for row in CODE_ROWS
            ),
            "",
        )
    )


def _table(codes: Iterable[Code]) -> str:
    rows = (f"| `{row.code}` | {row.kind.value} | {row.meaning} | {row.advice} |" for row in codes)
    return "\n".join(("| code | kind | meaning | what to do |\n|---|---|---|---|", *rows, ""))


if __name__ == "__main__":
    PAGE.write_text(codes_page(), encoding="utf-8")
