"""Faults on request: each type is one small class, a script is a list of them in JSON.

See `table` for all types and `trigger` for when they strike.
"""

from dispatcher.simulator.faults.table import Fault, FaultScriptError, read_faults

__all__ = ["Fault", "FaultScriptError", "read_faults"]
