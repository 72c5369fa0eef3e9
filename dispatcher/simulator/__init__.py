"""The provider, written from its documents; it shares nothing with the other rooms.

::

    request -> api -> signature | wsse -> submission -> verdict -> ledger -> answer
                          (who)             (form)     (numbers)  (witness)

`Simulator` runs it inside a test, `dispatcher simulate` as a process.
"""

from dispatcher.simulator.ledger import Row, fingerprint
from dispatcher.simulator.options import Options
from dispatcher.simulator.server import Simulator

__all__ = ["Options", "Row", "Simulator", "fingerprint"]
