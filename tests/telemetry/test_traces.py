"""A span for each request if OpenTelemetry is configured, without personal data."""

from time import monotonic

import pytest
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.service import app_settings, running, until

from dispatcher.core.message import Batch, Entry, Message, RequestDraft
from dispatcher.core.outcome import Resolved, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.service.http import serving
from dispatcher.settings import load_settings
from dispatcher.simulator import Simulator
from dispatcher.telemetry.traces import missing, span_maker

NUMBER, WORD = "+8613112345678", "837465"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def trace(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield span_maker(provider)
    provider.shutdown()


def closing(verdict, *, tries: int = 1) -> BatchResult:
    message = Message(1, NUMBER, "t", [WORD], "s")
    packed = RequestDraft("s", [Entry(b"", [message])], 10)
    batch = Batch(1, "shop", "the-token", packed, claimed_at=monotonic() - 2.0)
    return BatchResult(batch, verdict, 200, "000000", WORD, tries, 0.5)


def test_a_request_is_a_span_from_its_claim_to_its_answer(trace, exporter):
    trace(closing(Resolved([])))
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes) == {
        "dispatcher.app": "shop",
        "dispatcher.numbers": 1,
        "dispatcher.token": "the-token",
        "dispatcher.code": "000000",
        "dispatcher.verdict": "Resolved",
        "dispatcher.tries": 1,
        "http.response.status_code": 200,
    }
    assert 2.0 <= (span.end_time - span.start_time) / 1e9 < 60.0
    assert span.status.is_ok or span.status.is_unset
    told = span.to_json()
    assert NUMBER.lstrip("+") not in told
    assert WORD not in told


def test_an_answer_that_was_lost_is_an_error(trace, exporter):
    trace(closing(UnknownResult("timeout", "no answer")))
    assert not exporter.get_finished_spans()[0].status.is_ok


def test_what_was_never_sent_is_no_span(trace, exporter):
    trace(closing(Resolved([]), tries=0))
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("name", ["ENDPOINT", "TRACES_ENDPOINT"])
def test_it_is_on_where_opentelemetry_has_an_address(name):
    assert load_settings({f"OTEL_EXPORTER_OTLP_{name}": "http://127.0.0.1:1"}).traces
    assert not load_settings({f"OTEL_EXPORTER_OTLP_{name}": ""}).traces


@pytest.mark.slow
async def test_a_service_sends_all_spans_before_it_stops(db, dsn):
    bodies: list[bytes] = []

    async def collect(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    collector = serving("127.0.0.1", 0, [web.post("/v1/traces", collect)])
    async with Simulator({"key": "secret"}) as simulator, collector as (host, port):
        otel = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        async with running(dsn, **app_settings(simulator.url), **otel) as service:
            await db.execute(
                "INSERT INTO dispatcher.message (recipient, template_id, params)"
                " VALUES ($1, 'tpl', ARRAY[$2])",
                NUMBER,
                WORD,
            )
            query = "SELECT count(*) = 1 FROM dispatcher.outcome"
            await until(lambda: db.fetchval(query), what="the message accepted")
            assert await service.stop() == 0
    token = await db.fetchval("SELECT token FROM dispatcher.batch")
    told = str([MessageToDict(ExportTraceServiceRequest.FromString(body)) for body in bodies])
    assert token in told
    assert NUMBER.lstrip("+") not in told
    assert WORD not in told


@pytest.mark.parametrize("name", ["no_such_package.sdk", "opentelemetry.no_such_exporter"])
def test_a_missing_extra_is_found_without_importing_it(name):
    assert not missing()
    assert missing([name])
