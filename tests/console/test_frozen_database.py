"""A frozen database is named within six seconds on every page; no page looks newer than it is."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from client import Answer

from dispatcher.console.backend import ACTION_TIMEOUT_SECONDS, QUERY_TIMEOUT_SECONDS

PAGES = (
    "",
    "/fresh",
    "/problems",
    "/messages",
    "/messages?state=queued",
    "/messages?state=unsure",
    "/messages?code=E200031",
    "/messages?same_number_as=1",
    "/message-action/1",
    "/message/1",
    "/batch/0123456789abcdef0123456789abcdef",
    "/rules",
    "/codes",
    "/actions",
    "/audit",
    "/audit.csv",
)
FORMS = (
    ("/search", {"text": "+8613112345678"}),
    ("/messages", {"number": "+8613112345678"}),
    ("/message/1", {}),
    ("/message-action", {"action": "cancel"}),
    ("/message-action/1", {}),
    ("/actions/pause", {"app": "default"}),
)
LIMIT_SECONDS = 7.5  # two time-outs one after the other would take 8


@pytest.fixture(autouse=True)
def patient_queries() -> None:
    """The time-outs are those of an operator's console: they are tested here."""


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    """Freeze the PostgreSQL server of *backend* with all of its processes, as a hung host would."""
    stat = Path(f"/proc/{backend}/stat").read_text(encoding="ascii")
    server = int(stat.rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGSTOP)  # first: it reaps no child any more
    read = Path(f"/proc/{server}/task/{server}/children").read_text(encoding="ascii")
    children = [int(pid) for pid in read.split()]
    try:
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in (*children, server):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(240)  # each request waits until it gives up
async def test_every_page_names_a_frozen_database_in_6_s(operator, db):
    form_token = (await operator.get("/console/messages")).form_token
    assert (await operator.get("/console/fresh")).status == 200
    backend = await db.fetchval("SELECT pg_backend_pid()")

    async def timed(path: str, form: dict[str, str] | None = None) -> tuple[Answer, float]:
        began = monotonic()
        if form is None:
            page = await operator.get("/console" + path)
        else:
            page = await operator.post("/console" + path, {"form_token": form_token, **form})
        return page, monotonic() - began

    late = 0.0  # seconds by which a busy machine holds up this process, which the console is in

    async def watch() -> None:
        nonlocal late
        while True:
            due = monotonic() + 0.1
            await asyncio.sleep(0.1)
            late += max(0.0, monotonic() - due)

    assert max(QUERY_TIMEOUT_SECONDS, ACTION_TIMEOUT_SECONDS) <= 5.0  # a second for the rest
    watching = asyncio.create_task(watch())
    with frozen(backend):
        await asyncio.sleep(1.0)  # what was asked before may be shown for a second
        # All at once: several operators look when the database is gone.
        pages = await asyncio.gather(*map(timed, PAGES), *(timed(*each) for each in FORMS))
    watching.cancel()
    paths = (*PAGES, *(path for path, _ in FORMS))
    for path, (page, seconds) in zip(paths, pages, strict=True):
        assert seconds - late < LIMIT_SECONDS, path
        assert "Bring PostgreSQL back" in page.text, path
        assert page.status == (200 if path == "" else 503), path


async def test_every_page_says_of_when_it_is(operator):
    for path in ("", "/problems", "/messages", "/rules", "/actions", "/search"):
        page = await operator.get("/console" + path)
        assert 'as of <time id="as-of"' in page.text, path
        assert 'data-fresh="/console/fresh"' in page.text, path
