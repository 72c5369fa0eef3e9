"""/metrics of a running service: counts are right and well-formed, without secrets."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from support.service import app_settings, running, until

from dispatcher.core.message import Batch, Entry, Message, RequestDraft
from dispatcher.core.outcome import Accepted, Deferred, Rejected, Resolved, UnknownResult
from dispatcher.core.result import BatchResult
from dispatcher.core.status import AppState, StatusSnapshot, WorkerState
from dispatcher.simulator import Simulator, read_options
from dispatcher.telemetry import Metrics, State

NUMBERS = [f"+86131{number:08d}" for number in range(20)]
REFUSED = "+8613900000001"
ALIVE = ("dispatcher_workers", (("state", "alive"),))


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.slow
async def test_a_running_service_counts_outcomes(db, dsn):
    options = read_options(b'{"refused": {"%s": "E200031"}}' % REFUSED.encode())
    async with Simulator({"key": "secret"}, options=options) as sim:
        await db.copy_records_to_table(
            "message",
            schema_name="dispatcher",
            columns=["recipient", "template_id", "params"],
            records=[(number, "tpl1", ["837465"]) for number in [*NUMBERS, REFUSED]],
        )
        async with running(dsn, **app_settings(sim.url)) as service:

            async def counted() -> str:
                _, text = await service.get("/metrics")
                accepted = (
                    "dispatcher_messages_total",
                    (("app", "default"), ("outcome", "accepted")),
                )
                rejected = (
                    "dispatcher_codes_total",
                    (("app", "default"), ("code", "E200031"), ("outcome", "rejected")),
                )
                seen = samples(text)
                wanted = {accepted: len(NUMBERS), rejected: 1, ALIVE: 1}
                return text if seen.items() >= wanted.items() else ""

            text = await until(counted, what="20 accepted and 1 rejected in /metrics")
    seen = samples(text)
    assert seen["dispatcher_database_up", ()] == 1
    assert seen["dispatcher_rate_limit_configured", (("app", "default"),)] == 500
    assert seen["dispatcher_batch_messages_count", (("app", "default"),)] >= 1
    for secret in (*NUMBERS, REFUSED, "837465", "secret", "tpl1", str(sim.url)):
        assert secret not in text
    check_with_promtool(text)


def test_missing_messages_are_counted_by_app():
    metrics = Metrics()
    for app, messages in (("shop", 2), ("shop", 500), ("bank", 1)):
        metrics.missing(app, messages)
    got = metrics.registry.get_sample_value
    assert got("dispatcher_messages_missing_total", {"app": "shop"}) == 502
    assert got("dispatcher_messages_missing_total", {"app": "bank"}) == 1


def test_an_unknown_code_is_no_label():
    metrics = Metrics()
    messages = [message(number) for number in range(4)]
    outcomes = [
        Accepted(messages[0], "id", 1),
        Rejected(messages[1], "+8613112345678", "a code from outside"),
        Deferred(messages[2], "E200015", 10.0, counted=True),
    ]
    metrics.recorded(
        [
            closing(messages, Resolved(outcomes, unsure=[messages[3]])),
            closing(messages, UnknownResult("timeout", "no answer")),
        ],
        0.01,
    )
    got = metrics.registry.get_sample_value
    assert count(got, "accepted") == 1
    assert count(got, "rejected") == 1
    assert count(got, "deferred") == 1
    assert count(got, "unsure") == 5
    labels = {"app": "default", "outcome": "rejected", "code": "other"}
    assert got("dispatcher_codes_total", labels) == 1


def test_figures_that_cannot_be_looked_up_are_absent():
    metrics = Metrics()
    now = datetime(2026, 11, 1, tzinfo=UTC)
    state = State(metrics.registry, now=lambda: now)
    got = metrics.registry.get_sample_value
    app = AppState("default", True, now, "worker", "E000104", "why", None, 500.0, 250.0, 7, now,
                   3, 1, ["PL"])  # fmt: skip
    worker = WorkerState(
        1, "far", 7, "1", ["default"], now, 1.0, alive=True, unreachable_apps=["default"]
    )
    state.show(StatusSnapshot(now, [app], [worker, replace(worker, id=2, alive=False)], []))
    cut_off = {"app": "default", "host": "far"}
    assert got("dispatcher_unreachable_workers", cut_off) == 1
    assert got("dispatcher_waiting_messages", {"app": "default"}) == 7
    paused = {"app": "default", "by": "worker", "code": "E000104"}
    assert got("dispatcher_app_paused", paused) == 1
    state.show(None)
    assert got("dispatcher_database_up") == 0
    assert got("dispatcher_waiting_messages", {"app": "default"}) is None
    assert got("dispatcher_workers", {"state": "alive"}) is None
    assert got("dispatcher_unreachable_workers", cut_off) is None
    assert got("dispatcher_app_paused", paused) is None


def check_with_promtool(text: str) -> None:
    """Let Prometheus' own linter read *text*; it has nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing (Debian: apt install prometheus)")
    said = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def count(got, outcome: str) -> float:
    return got("dispatcher_messages_total", {"app": "default", "outcome": outcome})


def message(number: int) -> Message:
    return Message(number, f"+86131{number:08d}", "tpl1", [], sender="1")


def closing(messages: list[Message], verdict: Resolved | UnknownResult) -> BatchResult:
    batch = Batch(1, "default", "token", RequestDraft("1", [Entry(b"", messages)], 100), 0.0)
    return BatchResult(
        batch, verdict, http_status=200, code="E000510", description="", tries=2, seconds=0.1
    )
