"""The settings: environment variables that begin with DISPATCHER_.

All mistakes are reported at once before anything starts, each with the full name of its variable.
pydantic-settings is not used: it ignores unknown variables, supports no ``_FILE`` variables, and
reports by field.
"""

from dispatcher.settings.loader import ALL_PARTS, PREFIX, Part, SettingsError, load_settings
from dispatcher.settings.models import AppSettings, Settings

__all__ = [
    "ALL_PARTS",
    "PREFIX",
    "AppSettings",
    "Part",
    "Settings",
    "SettingsError",
    "load_settings",
]
