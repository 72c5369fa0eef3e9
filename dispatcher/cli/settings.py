"""The settings of this process, or a failure that lists every mistake in them."""

import os

from dispatcher.cli.errors import USED_WRONGLY, CommandError
from dispatcher.settings import Settings, SettingsError, load_settings


def read_settings() -> Settings:
    """Return the settings that the environment holds."""
    try:
        return load_settings(os.environ)
    except SettingsError as error:
        raise CommandError(*error.mistakes, code=USED_WRONGLY) from None
