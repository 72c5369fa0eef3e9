"""The provider, simulated from its documents. It shares no code with the rest of the dispatcher.

::

    request -> api -> auth -> request -> number_results -> ledger -> answer
                     (key)   (form)     (each number)     (accepted)

Faults apply between any two of these steps; status reports start at the ledger. `Simulator` runs
inside a test, `dispatcher simulate` as a process.
"""

from dispatcher.simulator.json_config import (
    ConfigTextError,
    read_faults,
    read_options,
    read_reports,
)
from dispatcher.simulator.ledger import Row, fingerprint
from dispatcher.simulator.options import Options, ReportOptions
from dispatcher.simulator.server import Simulator

__all__ = [
    "ConfigTextError",
    "Options",
    "ReportOptions",
    "Row",
    "Simulator",
    "fingerprint",
    "read_faults",
    "read_options",
    "read_reports",
]
