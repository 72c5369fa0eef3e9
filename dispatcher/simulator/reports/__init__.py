"""Status reports: what the carriers say of accepted numbers, posted to the callback address."""

from dispatcher.simulator.reports.options import ReportOptions

__all__ = ["ReportOptions"]
