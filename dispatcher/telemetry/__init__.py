"""Metrics for Prometheus (one registry for each process), logs and traces.

No label holds a number, a token or a text: labels are the names of apps, words that stand in
this room, and codes of `core.codes`. A code that nobody here knows counts as ``other``, for it
comes from outside and may be anything.
"""

from dispatcher.telemetry.collector import State
from dispatcher.telemetry.metrics import Metrics, ReportMetrics

__all__ = ["Metrics", "ReportMetrics", "State"]
