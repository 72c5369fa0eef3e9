"""What the simulator is told as JSON: on the command line, in a file, or over HTTP."""

from typing import TypeVar

import msgspec

from dispatcher.simulator.faults.table import Fault
from dispatcher.simulator.options import Options
from dispatcher.simulator.reports.options import ReportOptions

Read = TypeVar("Read")


class TextError(ValueError):
    """A text cannot be read; the message says where and why."""


def read_options(text: bytes | str) -> Options:
    """Read what the provider knows and allows. Raises TextError."""
    return _read(text, Options)


def read_reports(text: bytes | str) -> ReportOptions:
    """Read how status reports are made. Raises TextError."""
    return _read(text, ReportOptions)


def read_faults(text: bytes | str) -> list[Fault]:
    """Read one fault, or a list of them. Raises TextError."""
    raw = text.encode() if isinstance(text, str) else text
    if raw.lstrip()[:1] == b"{":
        raw = b"[" + raw + b"]"
    return _read(raw, list[Fault])


def _read(text: bytes | str, kind: type[Read]) -> Read:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as wrong:
        raise TextError(str(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise TextError(f"not JSON: {wrong}") from None
