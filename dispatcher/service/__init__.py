"""Composition: what `dispatcher run` starts, and how it stops.

SIGTERM and SIGINT stop the claiming; what is on its way is finished and written within
`shutdown_timeout`; what is not over by then is written as unsure.
"""

from dispatcher.service.run import database, run

__all__ = ["database", "run"]
