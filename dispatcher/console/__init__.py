"""The console: web pages for operators, which load nothing from other servers.

Every page but the login requires a session (`auth.Auth`). Every action is a form that is confirmed,
checked and written to the audit log. Everything but the charts works without scripts.
"""

from dispatcher.console.auth import ADMITTED
from dispatcher.console.backend import ConsoleBackend
from dispatcher.console.proxy_sign_in import ProxySignIn
from dispatcher.console.routes import closed_console_routes, console_routes

__all__ = ["ADMITTED", "ConsoleBackend", "ProxySignIn", "closed_console_routes", "console_routes"]
