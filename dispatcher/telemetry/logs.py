"""What the service says: events with fields, one line each, on stderr.

Secrets, texts and whole numbers are not filtered out here: they are never handed over. A number
that must be told apart is shown by :func:`mask`.
"""

import logging
import sys
from typing import Literal

import msgspec
import structlog
from structlog.types import Processor


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send all logs, those of libraries too, to stderr as JSON or for reading.

    *form* ``auto`` is for reading on a terminal and JSON otherwise.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    fields: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written = _written(form)
    structlog.configure(
        processors=[*fields, *written],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*fields, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _written(form: Literal["json", "console"]) -> list[Processor]:
    if form == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_json),
        ]
    # The renderer's own tracebacks show local variables, and those hold numbers and secrets.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _json(fields: dict[str, object], **_: object) -> str:
    first = {name: fields.pop(name, None) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode(first | fields, enc_hook=str).decode()
