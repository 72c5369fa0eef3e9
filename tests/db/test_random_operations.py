"""After any operations the counts, the feed and the previews say what the tables say."""

import itertools
from collections import Counter
from random import Random

import pytest
from support.claims import arrange

from dispatcher.core.country import country
from dispatcher.core.delays import Pause
from dispatcher.core.message import Batch, Message
from dispatcher.core.outcome import Accepted, Deferred, Rejected, Resolved, ReturnAll, UnknownResult
from dispatcher.core.report import Report
from dispatcher.core.report_status import report_status
from dispatcher.core.result import BatchResult
from dispatcher.db import campaigns, events, message_actions, operator, report_matching, workers
from dispatcher.db.claim import claim
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.message_lists import MessageFilter
from dispatcher.db.queries import sql
from dispatcher.db.record import record
from dispatcher.db.reports import register_statuses, store

CAMPAIGNS = ("may", "june", None)
# The last is one that the platform makes up; the carrier's takes its place, which is no news of a
# message as long as another segment is awaited.
STATUSES = ("DELIVRD", "DELIVRD", "UNDELIV", "ACCEPTD", "E000629", "MBBLACK", "EXPIRED")
OPERATIONS = (
    "insert", "insert", "claim", "claim", "claim", "claim", "answer", "answer", "answer",
    "report", "report", "report",
    "settle", "cancel", "requeue", "act", "act", "move", "pause", "expire", "rescue", "erase",
    "requeue_campaign", "resend", "touch",
)  # fmt: skip
SEEDS = 4
# What the feed may have said last of a message that has no end.
BEFORE_AN_END = {None, "unsure", "requeued"}


class Application:
    """An application, a worker, a provider and an operator, on one database."""

    def __init__(self, db, database, dice: Random) -> None:
        self.done: Counter[str] = Counter()
        self._db = db
        self._database = database
        self._dice = dice
        self._tokens = (f"token-{number:06d}" for number in itertools.count(1))
        self._numbers = itertools.count(13100000000)
        self._provider_ids: dict[tuple[str, int], str] = {}
        self._batches: list[Batch] = []
        self._told: dict[int, str] = {}
        self._position = 0

    async def begin(self) -> None:
        """Announce the app and a worker."""
        await register_statuses(self._database)
        await workers.register_app(
            self._database, "default", numbers_per_second=None, on_unsure="resend", resend_after=60
        )
        self._worker = await self._register()

    async def _register(self) -> int:
        return (
            await workers.register_worker(
                self._database, host="here", pid=1, version="0", apps=["default"], lease=60.0
            )
        ).id

    async def step(self) -> None:
        """Do one operation, and compare all that is derived."""
        name = self._dice.choice(OPERATIONS)
        if await getattr(self, f"_{name}")():
            self.done[name] += 1
        await self._compare(name)

    async def _compare(self, name: str) -> None:
        rows = await self._db.fetch(
            "SELECT id, campaign, state, code FROM dispatcher.message_status"
        )
        assert "lost" not in {row["state"] for row in rows}, name
        await self._compare_places(name)
        await self._compare_counts(name, rows)
        await self._compare_feed(name)

    async def _compare_places(self, name: str) -> None:
        """Each message is in one place."""
        doubled = await self._db.fetch(
            "SELECT id FROM (SELECT id FROM dispatcher.queue UNION ALL"
            " SELECT generate_series(lower(r), upper(r) - 1)"
            " FROM (SELECT unnest(ids) AS r FROM dispatcher.bulk) AS b"
            " UNION ALL SELECT message_id FROM dispatcher.outcome"
            " UNION ALL SELECT u.id FROM (SELECT unnest(coalesce(unsure_ids, message_ids)) AS id"
            " FROM dispatcher.batch WHERE state <> 'closed') AS u"
            " WHERE NOT EXISTS (SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id)"
            ") AS place GROUP BY id HAVING count(*) > 1"
        )
        assert [row["id"] for row in doubled] == [], name

    async def _compare_counts(self, name: str, rows: list) -> None:
        for campaign in filter(None, CAMPAIGNS):
            mine = Counter((r["state"], r["code"]) for r in rows if r["campaign"] == campaign)
            if mine:
                counted = await campaigns.count(self._db, campaign, country=country)
                assert {(c.state, c.code): c.messages for c in counted.codes} == mine, name
        states = Counter(row["state"] for row in rows)
        live = await self._db.fetchrow(sql("live_counts"), None)
        assert (live["queued"], live["sending"]) == (states["queued"], states["sending"]), name
        logged = await self._db.fetch(
            "SELECT event, code, sum(message_count)::bigint FROM dispatcher.event"
            " WHERE code <> 'settled-by-operator' AND code <> 'resend' GROUP BY event, code"
        )
        kinds = [row["event"] for row in logged]
        counted = await self._db.fetch(
            "SELECT event, code, sum(count)::bigint FROM dispatcher.event_count"
            " WHERE event = ANY ($1) AND (event, code) <> ('settled', 'sent') GROUP BY event, code",
            kinds,
        )
        assert {tuple(row) for row in counted} == {tuple(row) for row in logged}, name

    async def _compare_feed(self, name: str) -> None:
        """Match what is due, and fold the feed: what it told last of each message is its state."""
        await self._db.execute(
            "UPDATE dispatcher.unmatched_report SET due_at = now() WHERE due_at IS NOT NULL"
        )
        await report_matching.match(self._database)
        while await events.place(self._database):
            pass
        rows = await self._db.fetch("SELECT * FROM dispatcher.events($1, 100000)", self._position)
        for row in rows:
            assert row["position"] == self._position + 1, name
            self._position = row["position"]
            self._told[row["message_id"]] = row["event"]
        rows = await self._db.fetch("SELECT id, state FROM dispatcher.message_status")
        for message, state in rows:
            told = self._told.get(message)
            if state in {"queued", "sending"}:
                assert told in BEFORE_AN_END, (name, message, state, told)
            else:
                assert told == state, (name, message, state, told)

    async def _some(self, where: str, most: int) -> list[int]:
        rows = await self._db.fetch(
            f"SELECT id FROM dispatcher.message_status WHERE {where} ORDER BY id"
        )
        ids = [row["id"] for row in rows]
        return self._dice.sample(ids, min(len(ids), self._dice.randint(1, most)))

    async def _insert(self) -> bool:
        count = self._dice.choice((1, 3, 25, 40))
        await self._db.execute(
            "INSERT INTO dispatcher.message (recipient, template_id, params, campaign, expires_at)"
            " SELECT '+86' || n, 't', '{1}', $2, clock_timestamp() + $3 * interval '1 second'"
            " FROM unnest($1::bigint[]) AS n",
            list(itertools.islice(self._numbers, count)),
            self._dice.choice(CAMPAIGNS),
            self._dice.choice((None, None, 3600)),
        )
        return True

    async def _claim(self) -> bool:
        await self._db.execute("SELECT dispatcher.resume('default')")
        await self._db.execute("UPDATE dispatcher.app SET slow_start = NULL")
        await self._db.execute(
            "UPDATE dispatcher.queue SET due_at = now() - interval '1 s' WHERE id % 3 = $1",
            self._dice.randrange(3),
        )
        claimed = await claim(
            self._database,
            self._worker,
            ClaimRequest("default", slots=self._dice.randint(1, 2), sender="csms100000001"),
            arrange=arrange,
            token=lambda: next(self._tokens),
        )
        self._batches += claimed.batches
        return bool(claimed.batches)

    async def _answer(self) -> bool:
        """Answer any request, also one that is over: late, or once more."""
        if not self._batches:
            return False
        batch = self._dice.choice(self._batches[-6:])
        verdict = self._verdict(batch)
        result = BatchResult(batch, verdict, 200, "x", "", tries=1, seconds=0.1)
        await record(self._database, self._worker, [result])
        return True

    def _verdict(self, batch: Batch) -> Resolved | UnknownResult | ReturnAll:
        kind = self._dice.random()
        if kind < 0.25:
            return UnknownResult("timeout", "no answer")
        if kind < 0.32:
            return ReturnAll(Pause("E000101", "why", 60.0, 600.0))
        outcomes: list = []
        unsure = []
        for message in batch.messages:
            what = self._dice.choice("AAAARLDM")
            if what in "AM":
                outcomes.append(Accepted(message, self._provider_id(batch, message), 1))
            elif what == "R":
                outcomes.append(Rejected(message, "E200028", "no"))
            elif what == "L":
                outcomes.append(Deferred(message, "E200015", 0.0, self._dice.random() < 0.5))
            else:
                unsure.append(message)
        return Resolved(outcomes, unsure) if outcomes else UnknownResult("x", "none")

    def _provider_id(self, batch: Batch, message: Message) -> str:
        return self._provider_ids.setdefault(
            (batch.token, message.id), f"{batch.token}-{message.id}"
        )

    async def _report(self) -> bool:
        """Report any messages of any request, in one or two segments."""
        if not self._batches:
            return False
        batch = self._dice.choice(self._batches[-8:])
        told = []
        for message in batch.messages:
            if self._dice.random() < 0.5:
                total = 2 if message.id % 4 == 0 else 1
                status = self._dice.choice(STATUSES[:-1] if total > 1 else STATUSES)
                given = self._provider_id(batch, message)
                segment = self._dice.randint(1, total)
                state = report_status(status).state
                told.append(
                    Report(given, segment, total, status, state, batch.token, message.recipient)
                )
        await store(self._database, [(report, 0.0) for report in told])
        return bool(told)

    async def _settle(self) -> bool:
        tokens = await self._db.fetch("SELECT token FROM dispatcher.batch WHERE state = 'unsure'")
        if not tokens:
            return False
        token = self._dice.choice(tokens)["token"]
        await operator.settle(self._db, "Ana", token, self._dice.choice(("sent", "resend")))
        return True

    async def _cancel(self) -> bool:
        ids = await self._some("true", 30)
        waiting = await self._some_in(ids, "state = 'queued'")
        done = await operator.cancel(self._db, "Ana", ids)
        assert done.count == waiting
        return bool(waiting)

    async def _some_in(self, ids: list[int], where: str) -> int:
        return await self._db.fetchval(
            f"SELECT count(*) FROM dispatcher.message_status WHERE id = ANY ($1) AND {where}", ids
        )

    async def _requeue(self) -> bool:
        ids = await self._some("state IN ('rejected', 'expired', 'undelivered', 'accepted')", 10)
        return bool((await operator.requeue(self._db, "Ana", ids)).count)

    async def _act(self) -> bool:
        """Preview an action on a filter, and do it: what was previewed is what is changed."""
        name = self._dice.choice(("cancel", "requeue", "settle-sent", "settle-resend"))
        wanted = MessageFilter(campaign=self._dice.choice(("may", "june")))
        action = await message_actions.preview(self._database, "Ana", name, wanted, ("", ""))
        await message_actions.start(self._db, "Ana", action)
        while await message_actions.step(self._db, action):
            pass
        done = await message_actions.message_action(self._database, action)
        assert done.changed == done.messages, name
        return bool(done.changed)

    async def _move(self) -> bool:
        name = self._dice.choice(("may", "june"))
        if await campaigns.find(self._db, name) is None:
            return False
        wait = self._dice.choice((0.0, 0.0, 1.0))
        await self._db.execute(sql("move_campaign"), name, None, wait, 4, "Ana")
        while await self._db.fetchval(
            "SELECT count(*) FROM dispatcher.campaign WHERE moved_id IS NOT NULL"
        ):
            await self._db.execute(sql("move_campaign_step"))
        return True

    async def _pause(self) -> bool:
        name = self._dice.choice(("may", "june"))
        if await campaigns.find(self._db, name) is None:
            return False
        change = self._dice.choice(("pause", "resume", "resume"))
        if change == "pause":
            await campaigns.pause(self._db, "Ana", name, "")
        else:
            await campaigns.resume(self._db, "Ana", name)
        return True

    async def _expire(self) -> bool:
        ids = await self._some("true", 10)
        await self._db.execute(
            "UPDATE dispatcher.message SET send_at = now() - interval '2 h',"
            " expires_at = now() - interval '1 s'"
            " WHERE id = ANY ($1) AND expires_at IS NOT NULL",
            ids,
        )
        return bool(await self._db.fetchval("SELECT expired FROM dispatcher.expire()"))

    async def _rescue(self) -> bool:
        await self._db.execute(
            "UPDATE dispatcher.worker SET heartbeat_at = now() - interval '1 day' WHERE id = $1",
            self._worker,
        )
        self._worker = await self._register()
        return bool((await workers.rescue(self._database, self._worker))[0])

    async def _resend(self) -> bool:
        await self._db.execute(
            "UPDATE dispatcher.batch SET unsure_at = now() - interval '1 h' WHERE state = 'unsure'"
        )
        return bool((await workers.resend_unsure(self._database, self._worker))[0])

    async def _erase(self) -> bool:
        ids = await self._some("recipient <> '0'", 1)
        if not ids or self._dice.random() < 0.5:
            return False
        number = await self._db.fetchval(
            "SELECT recipient FROM dispatcher.message WHERE id = $1", ids[0]
        )
        await operator.forget(self._db, "Ana", number)
        return True

    async def _requeue_campaign(self) -> bool:
        name = self._dice.choice(("may", "june"))
        if await campaigns.find(self._db, name) is None:
            return False
        return bool(await campaigns.requeue(self._db, "Ana", name))

    async def _touch(self) -> bool:
        """Open a bulk row, by cancelling one of its messages."""
        first = await self._db.fetchval("SELECT min(first_id) FROM dispatcher.bulk")
        return first is not None and bool((await operator.cancel(self._db, "Ana", [first])).count)


async def play(db, database, *, steps: int, seed: int) -> Counter[str]:
    """Do so many random operations; return how often each had an effect."""
    application = Application(db, database, Random(seed))
    await application.begin()
    for _ in range(steps):
        await application.step()
    return application.done


async def test_counts_and_feed_are_true_after_each_operation(db, database):
    done = await play(db, database, steps=40, seed=1)
    assert len(done) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_thousand_operations_leave_counts_and_feed_true(db, database, seed):
    done = await play(db, database, steps=250, seed=seed)
    assert len(done) > 10, done
