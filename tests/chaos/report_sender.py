"""Status reports in a storm: who takes them in, and how they settle what is unsure.

The provider sends a report once. So the receiver is never killed here (issue 4 has tests of its
own for that); its database is, and its reports come late, twice, in any order, and before the
answers. What the provider never took gets no report, ever: that is sent again at the end, by the
policy `resend`, for its silence is then real.
"""

import asyncio
import secrets
from collections import Counter
from pathlib import Path
from random import Random
from time import monotonic

import aiohttp
import asyncpg
from support.waiting import until
from support.worker import START, WorkerProcess, environment

from chaos.database import Database
from chaos.workers import MODULES
from dispatcher.bench.ports import free_port
from dispatcher.simulator import ReportOptions, Simulator

# Seconds before the policy sends again: nothing is so old, also when the database's clock jumps.
SILENCE = 3 * 86_400.0
PATIENCE = 90.0  # seconds until all reports have come in and are matched

OPTIONS = ReportOptions(
    delay=(0.0, 4.0),
    mix={"DELIVRD": 8.0, "UNDELIV": 1.0, "EXPIRED": 0.5, "MK:0001": 0.5},
    mix_by="segment",
    interim=0.2,
    duplicates=0.1,
    reorder=True,
    before_answer=0.2,
)


class Receiver:
    """`dispatcher run --only reports`."""

    def __init__(self, dsn: str, folder: Path) -> None:
        token = secrets.token_urlsafe()
        self.secrets = (token,)  # what it must not tell
        listen = f"127.0.0.1:{free_port()}"
        self.callback = f"http://{listen}/reports/{token}"
        settings = {
            "listen": listen,
            "report_path_token": token,
            "data_dir": folder / "receiver",
        }
        self._process = WorkerProcess(
            environment(dsn, {}, settings) | MODULES,
            folder / "receiver.log",
            "--only",
            "reports",
            module="chaos.branches",
        )

    async def started(self) -> None:
        """Wait until it can be reached: a report that meets nobody is lost."""
        await until(
            lambda: any(event.get("event") == "listening" for event in self._process.events()),
            deadline=START,
            what="the receiver listens",
        )

    async def end(self) -> list[str]:
        """Stop it; return what was wrong with it."""
        self._process.terminate()
        code = await self._process.ended(60.0)
        said = self._process.stumbled or (f"it ended with {code}" if code else "")
        return [f"the receiver: {said}"] if said else []

    def kill(self) -> None:
        """Leave nothing behind."""
        self._process.kill()


# Posts that are no reports, or odd ones: content type and body. The numbers are no one's.
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
_REPORT = "smsMsgId={id}&total={total}&sequence={sequence}&status={status}&source=2&extend={token}"
ODD_POSTS = (
    (FORM, "\udcff\udcfe garbage"),
    (FORM, ""),
    (FORM, "a" * 2_000_000),
    (FORM, _REPORT.format(id="{id}", token="{token}", total=1, sequence=1, status="DELIVRD")),
    (FORM, _REPORT.format(id="{id}", token="", total=0, sequence=0, status="UNDELIV")),
    (FORM, _REPORT.format(id="{id}", token="{token}", total=1, sequence=9, status="DELIVRD")),
    (FORM, _REPORT.format(id="{id}", token="{token}", total="x", sequence="-1", status="%B3%C9")),
    (FORM, _REPORT.format(id="{id}", token="{token}", total=10**12, sequence=1, status="A" * 999)),
    (FORM, "smsMsgId={id}&smsMsgId={id}&status=DELIVRD&status=UNDELIV"),
    (JSON, "{{"),
    (JSON, "[]"),
    (JSON, '{{"statusReportList":null}}'),
    (JSON, '{{"statusReportList":[{{"smsMsgId":5}},{{"smsMsgId":"{id}","status":null}}]}}'),
    (JSON, "[" * 50_000),
)


async def post_odd_reports(callback: str, dice: Random, answers: Counter[str]) -> None:
    """Post what is no report, or one of an unknown request; count the answers by status."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session:
        while True:
            await asyncio.sleep(dice.expovariate(2.0))
            kind, body = dice.choice(ODD_POSTS)
            if "{" in body:
                body = body.format(
                    id=f"{dice.getrandbits(64):x}", token=f"{dice.getrandbits(128):x}"
                )
            raw = body.encode("utf-8", "surrogateescape")
            try:
                async with session.post(
                    callback, data=raw, headers={"Content-Type": kind}
                ) as answer:
                    answers[f"odd reports: {answer.status}"] += 1
            except (aiohttp.ClientError, TimeoutError):
                answers["odd reports: no answer"] += 1


async def all_in(simulator: Simulator, base: Database) -> bool:
    """Wait until every report was answered and matched."""
    reports = simulator.reports
    await until(lambda: reports.idle, deadline=PATIENCE, what="all reports are sent")
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        if await base.ask(_all_matched):
            return True
        await asyncio.sleep(0.3)
    return False


async def _all_matched(db: asyncpg.Connection) -> bool:
    """Tell whether no unsure batch has a report that could settle something."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.batch b JOIN dispatcher.report r USING (token)"
        " WHERE b.state = 'unsure' AND NOT EXISTS"
        " (SELECT FROM dispatcher.outcome o WHERE o.provider_id = r.provider_id))"
    )


async def keep_silent(db: asyncpg.Connection) -> bool:
    """Let the silence of what is still unsure last long enough for the policy."""
    await db.execute(
        "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $1)"
        " WHERE state = 'unsure'",
        2 * SILENCE,
    )
    return True


async def settle_by_hand(db: asyncpg.Connection) -> bool:
    """Do what an operator must where an answer was lost that refused some numbers of a request.

    The others have their reports, which proves that the provider took the request; the refused
    ones never get any, and the policy leaves them alone. The ledger is the witness that they were
    not accepted.
    """
    await db.execute(
        "SELECT dispatcher.settle(b.token, 'resend') FROM dispatcher.batch b"
        " WHERE b.state = 'unsure'"
        " AND EXISTS (SELECT FROM dispatcher.report r WHERE r.token = b.token)"
    )
    return True


async def nothing_unsure(db: asyncpg.Connection) -> bool:
    """Tell whether every message has an outcome."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.batch WHERE state <> 'closed')"
        " OR EXISTS (SELECT FROM dispatcher.queue) OR EXISTS (SELECT FROM dispatcher.bulk)"
    )
