"""Metrics for Prometheus (one registry for each process), logs and traces.

No label holds a number, a token or a text: labels are names of apps, constants of this package,
and codes of `core.codes`. An unknown code counts as ``other``: it comes from outside and may be
anything.
"""

from dispatcher.telemetry.collector import State
from dispatcher.telemetry.metrics import Metrics, ReportMetrics

__all__ = ["Metrics", "ReportMetrics", "State"]
