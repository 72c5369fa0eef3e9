"""``dispatcher run``: runs the service."""

import traceback
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.cli.errors import NO_APP, USED_WRONGLY, CommandError
from dispatcher.core.language import ENGLISH, _, in_english, use_language


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
            help="worker: sends, and has the console. reports: only receives status reports.",
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=64, help="Receivers on one port; with --only reports."
        ),
    ] = 1,
    shared_port: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Apply migrations, then send until SIGTERM or Ctrl-C.

    Open requests are finished and recorded before it exits. Any number of workers may share a
    database.
    """
    import structlog
    import uvloop

    from dispatcher import service
    from dispatcher.cli.connection import explained, read_settings
    from dispatcher.core.errors import first_error
    from dispatcher.db.migrate import MigrationError
    from dispatcher.postgres.programs import EmbeddedError
    from dispatcher.service.http import ListenError
    from dispatcher.service.receivers import ReceiverError, run_receivers
    from dispatcher.service.run import collect_rarely
    from dispatcher.settings import ALL_PARTS, Part
    from dispatcher.telemetry.logs import configure_logs
    from dispatcher.worker.worker import UnknownWorkerError

    parts: dict[ServicePart | None, tuple[Part, ...]] = {
        None: ALL_PARTS,
        ServicePart.WORKER: ("sending", "console"),
        ServicePart.REPORTS: ("reports",),
    }
    settings = read_settings(parts[only])
    if not settings.apps and only is not ServicePart.REPORTS:
        raise CommandError(_(NO_APP), code=USED_WRONGLY)
    if settings.report_path_token is None and only is ServicePart.REPORTS:
        raise CommandError(
            _(
                "the report receiver is closed: set DISPATCHER_REPORT_PATH_TOKEN, the last part"
                ' of its address. python3 -c "import secrets; print(secrets.token_urlsafe())"'
                " makes one."
            ),
            code=USED_WRONGLY,
        )
    if processes > 1 and only is not ServicePart.REPORTS:
        raise CommandError(
            _(
                "--processes is for --only reports: start a worker several times instead, each"
                " listens on an address of its own."
            ),
            code=USED_WRONGLY,
        )
    collect_rarely()
    configure_logs(settings.log_level, settings.log_format)
    try:
        with service.database(settings) as dsn, explained(dsn):
            try:
                if processes > 1:
                    with in_english():
                        run_receivers(settings, dsn, processes)
                else:
                    running = service.run(
                        settings, dsn, only=only.value if only else None, shared_port=shared_port
                    )
                    uvloop.run(_in_english(running))
            except BaseExceptionGroup as group:
                raise first_error(group) from group
    except (
        EmbeddedError,
        ListenError,
        MigrationError,
        ReceiverError,
        UnknownWorkerError,
    ) as error:
        raise CommandError(str(error)) from error
    except (CommandError, KeyboardInterrupt):
        raise
    except Exception as error:
        structlog.get_logger(__name__).debug("the worker ended with an error", exc_info=True)
        raise CommandError(_own_error(error)) from error


async def _in_english(running: Coroutine[Any, Any, None]) -> None:
    """Run the service: logs and what is stored are for all, a failed start is for the user."""
    use_language(ENGLISH)
    await running


def _own_error(error: Exception) -> str:
    """Return the line for an error that this program did not expect: its type and its place.

    Not its text, which may hold a value of a row.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return (
        f"ended by an error of its own: {type(error).__name__} in {last.name} ({place}). What was"
        " on its way was finished. Please report it; DISPATCHER_LOG_LEVEL=debug shows more."
    )
