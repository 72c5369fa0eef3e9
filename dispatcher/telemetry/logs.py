"""Logs: events with fields, one line each, on stderr.

Secrets, texts and whole numbers are not filtered here: callers never pass them. A number that must
be recognizable is passed through `core.format.mask`.
"""

import logging
import sys
from contextlib import suppress
from typing import Literal, TextIO, cast

import msgspec
import structlog
from structlog.types import Processor


class _Log:
    """A stream whose errors are dropped: a log that cannot be written stops no work.

    An OSError of it, on a full disk or where its reader has ended, would look like one of the
    database's connection.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send all logs, those of libraries too, to stderr.

    *form* ``auto`` is ``console`` on a terminal and ``json`` otherwise.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    fields: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(form)
    stream = cast("TextIO", _Log(sys.stderr))
    structlog.configure(
        processors=[*fields, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*fields, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _renderers(form: Literal["json", "console"]) -> list[Processor]:
    if form == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_json),
        ]
    # The renderer's default tracebacks show local variables, which hold numbers and secrets.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _json(fields: dict[str, object], **_: object) -> str:
    first = {name: fields.pop(name, None) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode(first | fields, enc_hook=str).decode()
