"""The provider's published codes and those of its suppliers and carriers: one row each.

`codes.tsv` beside this module holds them (sources: provider.md). `core.codes` says what follows
from a code of an answer, `core.report_status` from a status of a report; both take the words of
codes without a row of their own from here.
"""

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Literal, cast

from msgspec import Struct

Level = Literal["request", "number", "report"]


class CodeRow(Struct, frozen=True):
    """What is published about a code, or about all codes that begin alike."""

    codes: tuple[str, ...]  # none: only its meaning is known; X:* stands for all that begin so
    shown: str  # as the provider's page writes it
    level: Level
    source: str  # platform, supplier or carrier
    meaning: str
    result: str  # final or not, delivered or not
    charged_by_delivery: str  # where the account pays for delivered messages
    charged_by_sending: str  # where it pays for accepted ones
    again: str  # whether the same may be sent again
    advice: str
    concerns: str


def _read(table: str) -> tuple[CodeRow, ...]:
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return tuple(
        CodeRow(tuple(codes.split()), shown, cast("Level", level), *rest)
        for codes, shown, level, *rest in rows
    )


CODE_ROWS = _read(resources.files("dispatcher.core").joinpath("codes.tsv").read_text("utf-8"))


def _by_code() -> Mapping[tuple[Level, str], tuple[CodeRow, ...]]:
    found: dict[tuple[Level, str], tuple[CodeRow, ...]] = {}
    for row in CODE_ROWS:
        for code in row.codes:
            key = row.level, code.removesuffix("*") if code.endswith("*") else code + "\n"
            found[key] = (*found.get(key, ()), row)
    return MappingProxyType(found)


_BY_CODE = _by_code()  # a key without a line break at its end is a beginning


def published_rows(level: Level, code: str) -> tuple[CodeRow, ...]:
    """Return the rows of *code*: of the code itself, else of the longest beginning that fits."""
    code = code.upper()
    if rows := _BY_CODE.get((level, code + "\n")):
        return rows
    for length in range(len(code), -1, -1):
        if rows := _BY_CODE.get((level, code[:length])):
            return rows
    return ()
