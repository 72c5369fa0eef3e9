"""The console: pages for operators. Nothing is loaded from elsewhere.

Every page but the login requires a session (`auth.Auth`). Every action is a form that is confirmed,
checked and written to the audit log. Everything but the charts works without scripts.
"""

from dispatcher.console.backend import Desk
from dispatcher.console.routes import closed_console_routes, console_routes

__all__ = ["Desk", "closed_console_routes", "console_routes"]
