"""Logs: one event a line, on stderr, in the asked-for form."""

import json
import logging
import os
import sys

import pytest
import structlog

from dispatcher.core.format import mask
from dispatcher.telemetry.logs import configure_logs


@pytest.fixture(autouse=True)
def as_before():
    """Leave structlog and logging as they were."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()


def said(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_an_event_is_one_line_of_json_with_its_fields(capsys):
    configure_logs("info", "json")
    structlog.get_logger().info("batch sent", batch="token", messages=500, seconds=0.41)
    (line,) = said(capsys)
    event = json.loads(line)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert (event["event"], event["level"], event["messages"]) == ("batch sent", "info", 500)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch, form):
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", full)
    configure_logs("info", form)
    for _ in range(3):
        structlog.get_logger().info("batch sent", batch="token" * 5_000)
        logging.getLogger("some.library").warning("trouble")
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_auto_is_json_where_nobody_looks(capsys):
    configure_logs("info", "auto")
    structlog.get_logger().info("started")
    assert json.loads(said(capsys)[0])["event"] == "started"


def test_the_console_form_is_for_reading(capsys):
    configure_logs("info", "console")
    structlog.get_logger().info("started", worker=7)
    (line,) = said(capsys)
    assert "started" in line
    assert "worker=7" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_libraries_speak_in_the_same_form_and_only_of_trouble(capsys, form):
    configure_logs("debug", form)
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble with %s", "it")
    (line,) = said(capsys)
    assert "trouble with it" in line
    assert (line[0] == "{") is (form == "json")


def test_what_is_below_the_level_is_not_said(capsys):
    configure_logs("warning", "json")
    structlog.get_logger().info("started")
    structlog.get_logger().warning("paused")
    assert [json.loads(line)["event"] for line in said(capsys)] == ["paused"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variable(capsys, form):
    configure_logs("info", form)
    try:
        _fail("hunter" + str(2))  # put together here, or the source line would show it
    except ValueError:
        structlog.get_logger().exception("it failed")
        logging.getLogger("some.library").exception("it failed")
    text = "\n".join(said(capsys))
    assert text.count("ValueError: of no value") == 2
    assert "hunter2" not in text


def _fail(secret: str) -> None:
    if secret:
        raise ValueError("of no value")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+8613112345678", "+86131****5678"),
        ("13112345678", "131****5678"),
        ("+2412000000", "+24****0000"),
        ("+447700900123", "+4477****0123"),
        ("+15550100", "+****0100"),
        ("12345678", "****78"),
        ("12345", "****45"),
    ],
)
def test_a_masked_number_keeps_its_ends_and_hides_its_middle(number, shown):
    assert mask(number) == shown
