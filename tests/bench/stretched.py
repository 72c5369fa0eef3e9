"""A command of the dispatcher that runs under valgrind: ``python -m bench.stretched run ...``.

Its processor is some fifty times slower there, its clock is not. Waits that gather work would end
before any has gathered, so they are longer by as much; nothing else differs.
"""

import sys

from dispatcher.cli import main
from dispatcher.receiver import intake, receiver
from dispatcher.worker import claim_loop, result_queue

SLOWDOWN = 50

for module, name in (
    (claim_loop, "GATHER_SECONDS"),
    (result_queue, "GATHER_SECONDS"),
    (intake, "SLOW_COMMIT_SECONDS"),
    (receiver, "MATCH_INTERVAL_SECONDS"),
):
    setattr(module, name, getattr(module, name) * SLOWDOWN)

sys.exit(main())
