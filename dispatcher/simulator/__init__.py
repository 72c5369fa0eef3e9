"""The provider, written from its documents; it shares nothing with the other rooms.

::

    request -> api -> signature | wsse -> submission -> verdict -> ledger -> answer
                          (who)             (form)     (numbers)  (witness)
                faults strike between any two of these; reports start at the ledger

`Simulator` runs it inside a test, `dispatcher simulate` as a process.
"""

from dispatcher.simulator.ledger import Row, fingerprint
from dispatcher.simulator.options import Options
from dispatcher.simulator.reports import ReportOptions
from dispatcher.simulator.server import Simulator
from dispatcher.simulator.text import TextError, read_faults, read_options, read_reports

__all__ = [
    "Options",
    "ReportOptions",
    "Row",
    "Simulator",
    "TextError",
    "fingerprint",
    "read_faults",
    "read_options",
    "read_reports",
]
