"""The console: see, understand, act. Pages made here, nothing loaded from elsewhere.

Every page but the login is behind `guard.Guard`; every deed is a form that is confirmed, checked
and written down. Scripts only make pages livelier: all but the charts works without them.
"""

from dispatcher.console.backend import AwayError, Desk
from dispatcher.console.routes import closed_console_routes, console_routes

__all__ = ["AwayError", "Desk", "closed_console_routes", "console_routes"]
