"""Completes names of apps and campaigns in a shell."""

from dispatcher.cli.errors import CommandError


def complete_app(incomplete: str) -> list[str]:
    """Return the names of apps, for the completion of a shell."""
    from dispatcher.cli.connection import read_settings, with_database
    from dispatcher.db.status import app_names

    try:
        names = {*read_settings().apps, *with_database(app_names)}
    except CommandError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def complete_campaign(incomplete: str) -> list[str]:
    """Return the names of campaigns, for the completion of a shell."""
    from dispatcher.cli.connection import with_database
    from dispatcher.db import campaigns

    try:
        return with_database(lambda connection: campaigns.names(connection, incomplete))
    except CommandError:
        return []
