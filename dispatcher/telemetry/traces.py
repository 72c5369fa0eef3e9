"""Traces: a span for each request, from claim to answer. An optional extra, off by default.

OpenTelemetry's environment variables set the destination; the settings only check whether one is
set. No span holds a number, a variable or a secret.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Final

from dispatcher import __version__
from dispatcher.core.outcome import Resolved
from dispatcher.core.result import BatchResult

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

Trace = Callable[[BatchResult], None]

REQUIRED_MODULES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
SECOND_NANOSECONDS: Final = 1_000_000_000


def missing(names: Iterable[str] = REQUIRED_MODULES) -> bool:
    """Return whether one of the modules *names* of the extra is not installed."""
    try:
        return any(find_spec(name) is None for name in names)
    except ModuleNotFoundError:  # a parent of them
        return True


@contextmanager
def tracing() -> Iterator[Trace]:
    """Give a function that makes spans and sends them in the background; flush them at the end.

    The extra must be installed.
    """
    # ruff: noqa: PLC0415 - modules of an extra, which take half a second to import
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.name": "dispatcher", "service.version": __version__})
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield span_maker(provider)
    finally:
        provider.shutdown()


def span_maker(provider: "TracerProvider") -> Trace:
    """Return a function that makes the span of an ended request with *provider*."""
    from opentelemetry.trace import SpanKind, Status, StatusCode

    tracer = provider.get_tracer("dispatcher", __version__)

    def trace(closing: BatchResult) -> None:
        if not closing.tries:
            return  # nothing was sent
        end = time.time_ns()
        age = monotonic() - closing.batch.claimed_at
        attributes: dict[str, str | int] = {
            "dispatcher.app": closing.batch.app,
            "dispatcher.numbers": len(closing.batch.messages),
            "dispatcher.token": closing.batch.token,
            "dispatcher.code": closing.code,
            "dispatcher.verdict": type(closing.verdict).__name__,
            "dispatcher.tries": closing.tries,
        }
        if closing.http_status is not None:
            attributes["http.response.status_code"] = closing.http_status
        span = tracer.start_span(
            "batchSendDiffSms",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=end - int(age * SECOND_NANOSECONDS),
        )
        if not isinstance(closing.verdict, Resolved):
            span.set_status(Status(StatusCode.ERROR, closing.code))
        span.end(end)

    return trace
