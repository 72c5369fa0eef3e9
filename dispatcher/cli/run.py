"""``dispatcher run``: runs the service."""

from enum import StrEnum
from typing import Annotated

import typer

from dispatcher.cli.errors import USED_WRONGLY, CommandError


class ServicePart(StrEnum):
    """A part of the service that can run alone."""

    WORKER = "worker"
    REPORTS = "reports"


def run(
    *,
    only: Annotated[
        ServicePart | None,
        typer.Option(
            metavar="PART",
            help="worker: sends, without console and reports. reports: only receives those.",
        ),
    ] = None,
) -> None:
    """Apply migrations, then send until SIGTERM or Ctrl-C.

    Open requests are finished and recorded before it exits. Any number of workers may share a
    database.
    """
    import uvloop

    from dispatcher import service
    from dispatcher.cli.connection import explained, read_settings
    from dispatcher.db.migrate import MigrationError
    from dispatcher.postgres.programs import EmbeddedError
    from dispatcher.service.run import collect_rarely
    from dispatcher.telemetry.logs import configure_logs

    settings = read_settings()
    if not settings.apps and only is not ServicePart.REPORTS:
        raise CommandError(
            "no app is configured: set DISPATCHER_APPS__DEFAULT__ENDPOINT, __APP_KEY and"
            " __APP_SECRET; `dispatcher demo` shows how it works without an account.",
            code=USED_WRONGLY,
        )
    if settings.report_path_token is None and only is ServicePart.REPORTS:
        raise CommandError(
            "the report receiver is closed: set DISPATCHER_REPORT_PATH_TOKEN, the last part of its"
            ' address. python3 -c "import secrets; print(secrets.token_urlsafe())" makes one.',
            code=USED_WRONGLY,
        )
    collect_rarely()
    configure_logs(settings.log_level, settings.log_format)
    try:
        with service.database(settings) as dsn, explained(dsn):
            uvloop.run(service.run(settings, dsn, only=only.value if only else None))
    except (EmbeddedError, MigrationError) as error:
        raise CommandError(str(error)) from error
