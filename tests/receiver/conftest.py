"""Messages, requests and reports, as a worker and the provider would have left them."""

import pytest
from support.messages import take_out
from support.patient import PatientDatabase

from dispatcher.core.report import Report
from dispatcher.core.report_status import report_status
from dispatcher.db import report_matching, reports
from dispatcher.db.events import place


@pytest.fixture(autouse=True)
def patient_receiver(monkeypatch) -> None:
    """A machine that stands still is no database that is away: reports would go to disk."""
    monkeypatch.setattr("dispatcher.db.database.Database", PatientDatabase)


class World:
    """One test's database, and the steps between a report and what becomes of its message."""

    def __init__(self, db, database) -> None:
        self.db = db
        self.database = database

    async def batch(
        self, numbers: list[str], *, token: str = "t1", state: str = "unsure", app: str = "default"
    ) -> list[int]:
        """Insert a message to each number, and take them into a batch; return their ids."""
        async with self.db.transaction():
            rows = await self.db.fetch(
                "INSERT INTO dispatcher.message (app, recipient, template_id) "
                "SELECT $2, n, 't' FROM unnest($1::text[]) n RETURNING id",
                numbers,
                app,
            )
            ids = [row["id"] for row in rows]
            await take_out(self.db, ids)
            await self.db.execute(
                "INSERT INTO dispatcher.batch "
                "(token, app, worker, message_ids, attempts, state, bytes, unsure_at, code) "
                "VALUES ($2, $4, 1, $1::bigint[], "
                "array_fill(1::smallint, ARRAY[cardinality($1::bigint[])]), $3, 100, "
                "CASE WHEN $3 = 'unsure' THEN now() END, "
                "CASE WHEN $3 = 'unsure' THEN 'timeout' END)",
                ids,
                token,
                state,
                app,
            )
        return ids

    async def accept(self, ids: list[int], provider_ids: list[str | None], *, token="t1") -> None:
        """Write the answer to a batch: all accepted."""
        async with self.db.transaction():
            await self.db.execute(
                "UPDATE dispatcher.batch SET state = 'closed', closed_at = now() WHERE token = $1",
                token,
            )
            await self.db.execute(
                "INSERT INTO dispatcher.outcome "
                "(message_id, batch_id, state, attempts, provider_id, code) "
                "SELECT u.id, b.id, 'accepted', 1, u.p, '000000' "
                "FROM unnest($1::bigint[], $2::text[]) u (id, p), dispatcher.batch b "
                "WHERE b.token = $3",
                ids,
                provider_ids,
                token,
            )

    async def store(self, *told: Report) -> None:
        """Store reports, as one commit of the receiver."""
        await reports.store(self.database, [(report, 0.0) for report in told])

    async def match(self) -> report_matching.MatchingStep:
        """Do one step of matching."""
        return await report_matching.match(self.database)

    async def hurry(self) -> None:
        """Make everything due that waits to be looked at again."""
        await self.db.execute(
            "UPDATE dispatcher.unmatched_report SET due_at = now() WHERE due_at IS NOT NULL"
        )

    async def states(self) -> dict[int, tuple[str, str | None]]:
        """Return each message's state and provider id."""
        rows = await self.db.fetch("SELECT id, state, provider_id FROM dispatcher.message_status")
        return {row["id"]: (row["state"], row["provider_id"]) for row in rows}

    async def batch_state(self, token: str = "t1") -> tuple[str, str | None]:
        """Return state and settler of a batch."""
        return tuple(
            await self.db.fetchrow(
                "SELECT state, settled_by FROM dispatcher.batch WHERE token = $1", token
            )
        )

    async def why(self) -> dict[str, tuple[str, bool]]:
        """Return why reports are unmatched, and whether they are matched again."""
        rows = await self.db.fetch(
            "SELECT provider_id, reason, due_at IS NOT NULL AS again"
            " FROM dispatcher.unmatched_report"
        )
        return {row["provider_id"]: (row["reason"], row["again"]) for row in rows}

    async def tally(self) -> dict[tuple[str, str, str], int]:
        """Return what was counted: by app, event and code."""
        rows = await self.db.fetch(
            "SELECT app, event, code, sum(count)::bigint AS count FROM dispatcher.event_count "
            "GROUP BY app, event, code"
        )
        return {(row["app"], row["event"], row["code"]): row["count"] for row in rows}

    async def events(self, after: int = 0, limit: int = 1000) -> list[tuple[int, str, str]]:
        """Place what is new in the event log; return message, event and code of each entry."""
        await place(self.database)
        rows = await self.db.fetch("SELECT * FROM dispatcher.events($1, $2)", after, limit)
        return [(row["message_id"], row["event"], row["code"]) for row in rows]


@pytest.fixture
def world(db, database) -> World:
    """This test's database."""
    return World(db, database)


def report(provider_id: str, number: str | None = "+8613100000001", **fields) -> Report:
    """Return a report as the parser makes it."""
    status = fields.pop("status", "DELIVRD")
    return Report(
        **{
            "provider_id": provider_id,
            "segment": 1,
            "total": 1,
            "status": status,
            "state": report_status(status).state,
            "token": "t1",
            "recipient": number,
            **fields,
        }
    )


@pytest.fixture
def told():
    """Makes reports."""
    return report
