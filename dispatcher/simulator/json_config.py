"""Reads options and faults from JSON: of the command line, a file, or an HTTP body."""

from typing import TypeVar

import msgspec

from dispatcher.simulator.faults import Fault
from dispatcher.simulator.options import Options, ReportOptions

Config = TypeVar("Config")


class ConfigTextError(ValueError):
    """A text cannot be read. The message says where and why."""


def read_options(text: bytes | str) -> Options:
    """Read the options of the provider. Raises ConfigTextError."""
    return _decode(text, Options)


def read_reports(text: bytes | str) -> ReportOptions:
    """Read the options of status reports. Raises ConfigTextError."""
    return _decode(text, ReportOptions)


def read_faults(text: bytes | str) -> list[Fault]:
    """Read one fault, or a list of them. Raises ConfigTextError."""
    raw = text.encode() if isinstance(text, str) else text
    if raw.lstrip()[:1] == b"{":
        raw = b"[" + raw + b"]"
    return _decode(raw, list[Fault])


def _decode(text: bytes | str, kind: type[Config]) -> Config:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigTextError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigTextError(f"not JSON: {error}") from None
