"""The policy `resend` waits for reports that a receiver keeps on disk, and no longer."""

from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from support.patient import PatientDatabase

from dispatcher.core.errors import DatabaseUnavailable
from dispatcher.core.outcome import UnknownResult
from dispatcher.core.report import Report
from dispatcher.receiver.intake import Intake, ReceivedReport, Stored
from dispatcher.worker.recovery import SilentRequests

MARGIN = 30.0
INTERVAL = 10.0  # between two rounds of recovery


class SwitchedDatabase(PatientDatabase):
    """The test's database, which a test can make unavailable."""

    away = False

    @asynccontextmanager
    async def acquire(self, **more):
        if self.away:
            raise DatabaseUnavailable("it is away")
        async with super().acquire(**more) as connection:
            yield connection


class Rounds:
    """Rounds of recovery by a clock of their own, over one unsure request without a report."""

    def __init__(self, hands, database, spool) -> None:
        self.hands = hands
        self.database = database
        self.now = 1000.0
        self.policy = SilentRequests(lambda: self.now, margin=MARGIN, spool=spool)

    async def begin(self, *, silent: float) -> str:
        """Make a request unsure *silent* seconds after its wait; return its token."""
        await self.hands.begin(on_unsure="resend", resend_after=60.0)
        await self.hands.insert(1)
        [batch] = await self.hands.claim()
        await self.hands.record(batch, UnknownResult("timeout", "no answer"))
        await self.hands.db.execute(
            "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $1)",
            60.0 + silent,
        )
        return batch.token

    async def look(self) -> bool:
        """Do the next round; return whether the message has returned to the queue."""
        self.now += INTERVAL
        try:
            await self.policy.look(self.database)
            await self.policy.resend(self.database, self.hands.id)
        except DatabaseUnavailable:
            assert self.database.away
        return bool(await self.hands.queue())

    async def looks(self, count: int) -> list[bool]:
        return [await self.look() for _ in range(count)]


@pytest.fixture
def database(database) -> SwitchedDatabase:
    return SwitchedDatabase(database.dsn, database.pool, retry_refusals=True)


@pytest.fixture
def rounds(hands, database, tmp_path) -> Rounds:
    return Rounds(hands, database, tmp_path / "spool")


async def keep_on_disk(database, folder, token: str) -> Intake:
    """Have a receiver of the data directory *folder* take a report in an outage that begins."""
    database.away = True
    receiver = Intake(database, folder / "spool")
    report = Report("p1", 1, 1, "DELIVRD", "delivered", token=token)
    assert await receiver._write_spool([ReceivedReport(report, 0.0)]) == Stored()
    return receiver


async def test_a_start_counts_as_an_outage(rounds):
    await rounds.begin(silent=2 * MARGIN)
    assert await rounds.looks(4) == [False, False, False, True]


async def test_a_report_kept_in_an_outage_stops_the_resend(rounds, database, tmp_path):
    """Its receiver is on another host, and stores it a round after the database is back."""
    token = await rounds.begin(silent=-1000.0)
    assert await rounds.looks(5) == [False] * 5
    receiver = await keep_on_disk(database, tmp_path / "elsewhere", token)
    assert await rounds.looks(2) == [False, False]
    await rounds.hands.db.execute(
        "UPDATE dispatcher.batch SET unsure_at = unsure_at - interval '2000 s'"
    )
    database.away = False
    assert not await rounds.look()
    await receiver.replay_spool()
    assert await rounds.looks(6) == [False] * 6


async def test_after_an_outage_what_is_silent_is_sent_again(rounds, database):
    await rounds.begin(silent=2 * MARGIN)
    assert await rounds.looks(2) == [False, False]
    database.away = True
    assert await rounds.looks(2) == [False, False]
    database.away = False
    assert await rounds.looks(4) == [False, False, False, True]


async def test_what_did_not_look_for_long_may_have_missed_an_outage(rounds):
    """It was frozen, with or without its host."""
    await rounds.begin(silent=-1000.0)
    assert await rounds.looks(5) == [False] * 5
    await rounds.hands.db.execute(
        "UPDATE dispatcher.batch SET unsure_at = unsure_at - interval '2000 s'"
    )
    rounds.now += 5 * MARGIN
    assert await rounds.looks(4) == [False, False, False, True]


async def test_reports_on_this_disk_are_waited_for(rounds, database, tmp_path):
    token = await rounds.begin(silent=2 * MARGIN)
    receiver = await keep_on_disk(database, tmp_path, token)
    database.away = False
    assert await rounds.looks(8) == [False] * 8
    await receiver.replay_spool()
    assert await rounds.looks(2) == [False, False]


async def test_reports_of_others_on_this_disk_end_no_resend(rounds, database, tmp_path):
    await rounds.begin(silent=2 * MARGIN)
    receiver = await keep_on_disk(database, tmp_path, "another")
    database.away = False
    assert await rounds.looks(5) == [False] * 5
    await receiver.replay_spool()
    assert await rounds.look()


async def test_reports_that_nobody_stores_are_logged_once(rounds, database, tmp_path):
    token = await rounds.begin(silent=2 * MARGIN)
    receiver = await keep_on_disk(database, tmp_path, token)
    database.away = False
    with capture_logs() as logs:
        assert await rounds.looks(30) == [False] * 30
        assert logs == []
        assert await rounds.looks(30) == [False] * 30
    [line] = logs
    assert line["event"] == "no unsure message is sent again by policy"
    assert str(tmp_path / "spool") in line["why"]
    assert "Start a receiver" in line["why"]
    await receiver.replay_spool()
    with capture_logs() as logs:
        await rounds.looks(60)
    assert [each for each in logs if each["event"] == line["event"]] == []


async def test_a_worker_that_never_looks_long_enough_says_so(rounds):
    await rounds.begin(silent=2 * MARGIN)
    with capture_logs() as logs:
        for _ in range(20):
            rounds.now += MARGIN
            assert not await rounds.look()
    [line] = logs
    assert line["event"] == "no unsure message is sent again by policy"
    assert "DISPATCHER_LEASE" in line["why"]
    assert await rounds.looks(3) == [False, False, True]


async def test_where_nothing_is_unsure_no_line_is_logged(rounds, database, tmp_path):
    await rounds.begin(silent=-1000.0)
    await keep_on_disk(database, tmp_path, "another")
    database.away = False
    with capture_logs() as logs:
        await rounds.looks(60)
    assert logs == []


@pytest.mark.parametrize(("silent", "again"), [(MARGIN - 10.0, False), (MARGIN + 1.0, True)])
async def test_a_report_of_the_last_moment_has_time_too(rounds, silent, again):
    """It may be on its way to the database, or on a disk after a short outage."""
    await rounds.begin(silent=-1000.0)
    assert await rounds.looks(5) == [False] * 5
    await rounds.hands.db.execute(
        "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $1)",
        1000.0 + silent,
    )
    assert await rounds.look() == again
