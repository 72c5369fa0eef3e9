"""Traces: a span for each request, from claim to answer. An extra, and off unless asked for.

Where to send spans, and how, are OpenTelemetry's own environment variables; only whether there is
anywhere to send them is looked at here. No span holds a number, a variable or a secret.
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

NAMES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
SECOND: Final = 1_000_000_000  # nanoseconds


def missing(names: Iterable[str] = NAMES) -> bool:
    """Tell whether the extra is not installed: one of its modules *names*."""
    try:
        return any(find_spec(name) is None for name in names)
    except ModuleNotFoundError:  # a parent of them
        return True


@contextmanager
def tracing() -> Iterator[Trace]:
    """Give what makes spans and sends them in the background; what is left is sent at the end.

    The extra must be installed.
    """
    # ruff: noqa: PLC0415 - of an extra; and half a second that nobody else should wait for
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.name": "dispatcher", "service.version": __version__})
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield traced(provider)
    finally:
        provider.shutdown()


def traced(provider: "TracerProvider") -> Trace:
    """Return what makes a span of a request that is over, with *provider*."""
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
            start_time=end - int(age * SECOND),
        )
        if not isinstance(closing.verdict, Resolved):
            span.set_status(Status(StatusCode.ERROR, closing.code))
        span.end(end)

    return trace
