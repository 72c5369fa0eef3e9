"""The settings: environment variables that begin with DISPATCHER_, and nothing else.

Every mistake is found before anything starts, and all of them are reported at once, each by the
full name of its variable. The variables are read here and not by pydantic-settings, because that
takes unknown ones in silence, knows no ``_FILE`` beside a variable, and reports by field.
"""

from dispatcher.settings.loader import PREFIX, SettingsError, load_settings
from dispatcher.settings.models import AppSettings, Settings

__all__ = ["PREFIX", "AppSettings", "Settings", "SettingsError", "load_settings"]
