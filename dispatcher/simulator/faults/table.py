"""The table of all faults."""

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
