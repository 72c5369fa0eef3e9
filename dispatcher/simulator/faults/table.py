"""The table of all faults, and the script of faults read from JSON."""

import msgspec

from dispatcher.simulator.faults.connections import Refuse, Reset, StallBeforeReading
from dispatcher.simulator.faults.delivery import Cut, Delay, HalfAnswer, Http, StallAfterReading
from dispatcher.simulator.faults.numbers import NumberCode
from dispatcher.simulator.faults.refusals import BadEntry, Code, CountryClosed, Quota, WhiteList
from dispatcher.simulator.faults.shapes import Clock, Lack, MixedAnswer, Reorder, Repeat

Fault = (
    Refuse
    | Reset
    | StallBeforeReading
    | Code
    | BadEntry
    | CountryClosed
    | WhiteList
    | Quota
    | NumberCode
    | Lack
    | Repeat
    | Reorder
    | MixedAnswer
    | Clock
    | Cut
    | HalfAnswer
    | Delay
    | StallAfterReading
    | Http
)


class FaultScriptError(ValueError):
    """A script of faults cannot be read; the text says where and why."""


def read_faults(script: bytes | str) -> list[Fault]:
    """Read one fault, or a list of them, from JSON. Raises FaultScriptError."""
    try:
        return msgspec.json.decode(script, type=list[Fault])
    except msgspec.ValidationError as wrong:
        if script.strip()[:1] not in ("{", b"{"):
            raise FaultScriptError(str(wrong)) from None
    except msgspec.DecodeError as wrong:
        raise FaultScriptError(f"not JSON: {wrong}") from None
    try:
        return [msgspec.json.decode(script, type=Fault)]
    except msgspec.ValidationError as wrong:
        raise FaultScriptError(str(wrong)) from None
