"""PostgreSQL keeps what `model.promises` says: the same operations, the same states after each."""

import itertools
from collections import Counter
from random import Random

import pytest
from msgspec.structs import replace
from support.claims import arrange
from support.fast_forward import forget_heartbeat, let_pass
from support.messages import insert

from dispatcher.core.circuit import CircuitLimits, CircuitState, SlowStart, change, signal
from dispatcher.core.codes import UNKNOWN_RESULTS
from dispatcher.core.delays import Pause
from dispatcher.core.message import Batch
from dispatcher.core.outcome import (
    Accepted,
    Deferred,
    Outcome,
    Rejected,
    Resolved,
    ReturnAll,
    UnknownResult,
)
from dispatcher.core.packing import halve
from dispatcher.core.report import Report
from dispatcher.core.result import BatchResult
from dispatcher.db import workers
from dispatcher.db.circuit import end_probe
from dispatcher.db.claim import claim
from dispatcher.db.due_messages import ClaimRequest
from dispatcher.db.record import record
from dispatcher.db.report_matching import match
from dispatcher.db.reports import store
from dispatcher.db.split import split
from model import promises

MESSAGES = 4  # at a time; then they go, and others come
ROUND = 40  # operations on the same messages
SILENCE = 3600.0


class Twins:
    """The same operations on the model's tables and on PostgreSQL's."""

    def __init__(self, db, database, dice: Random, policy: str) -> None:
        self.done: Counter[str] = Counter()
        self._db = db
        self._database = database
        self._dice = dice
        self._policy = policy
        self._tokens = (f"token-{number:06d}" for number in itertools.count(1))
        self._workers: list[int] = []
        self._first = 0
        self._circuit = CircuitState()

    async def begin(self) -> None:
        """Announce the app and two workers."""
        await workers.register_app(
            self._database,
            "default",
            numbers_per_second=None,
            on_unsure=self._policy,
            resend_after=SILENCE,
        )
        self._workers = [await self._register() for _ in range(2)]

    async def _register(self) -> int:
        return (
            await workers.register_worker(
                self._database, host="here", pid=1, version="0", apps=["default"], lease=60.0
            )
        ).id

    async def start(self) -> None:
        """Begin with other messages; those before are out of the way."""
        await self._db.execute("TRUNCATE dispatcher.queue")
        await self._db.execute("SELECT dispatcher.resume('default')")
        await self._db.execute(
            "UPDATE dispatcher.batch SET state = 'closed' WHERE state <> 'closed'"
        )
        self._circuit = CircuitState(
            slow_start=SlowStart() if self._circuit.pause_code else self._circuit.slow_start
        )
        self._ids = await insert(self._db, MESSAGES, first=self._first)
        self._first += MESSAGES
        self._tables = promises.start(MESSAGES)
        self._batches: list[Batch] = []
        # The first of them that was opened after the last pause ended, and after it began.
        self._fresh_from = self._paused_from = 0

    async def step(self) -> None:
        """Do one operation on both, and compare."""
        name = self._dice.choices(
            ("claim", "record", "rescue", "resend", "settle", "cancel", "requeue", "report",
             "match", "abandon", "split"),
            (8, 8, 2, 2, 3, 1, 3, 4, 4, 1, 2),
        )[0]  # fmt: skip
        if await getattr(self, f"_{name}")():
            self.done[name] += 1
        await self._compare(name)

    async def _compare(self, name: str) -> None:
        rows = await self._db.fetch(
            "SELECT state, attempts FROM dispatcher.message_status WHERE id = ANY ($1) ORDER BY id",
            self._ids,
        )
        states = [promises.state_of(self._tables, message) for message in range(MESSAGES)]
        assert [tuple(row) for row in rows] == states, (name, self._tables)
        rows = await self._db.fetch(
            "SELECT state FROM dispatcher.batch WHERE id = ANY ($1) ORDER BY id",
            [batch.id for batch in self._batches],
        )
        assert [row["state"] for row in rows] == [each.state for each in self._tables.batch], name
        row = await self._db.fetchrow(
            "SELECT unknown_streak, pause_code, slow_start, slow_start_left, slow_start_answered,"
            " paused_at IS NOT NULL FROM dispatcher.app"
        )
        circuit, round_ = self._circuit, self._circuit.slow_start
        told = (round_.requests, round_.left, round_.answered) if round_ else (None, 0, 0)
        known = (circuit.unknown, circuit.pause_code, *told, self._tables.paused)
        assert tuple(row) == known, name

    async def _claim(self) -> bool:
        """Claim what is due: some of what waits, first.

        An open circuit is probed without a message. The rounds of a slow start go by without
        answers here, as if their worker was lost: after that time what it lacks may be claimed.
        """
        waiting = [number for number, row in enumerate(self._tables.queue) if row]
        if not waiting:
            return False
        due = self._dice.sample(waiting, self._dice.randint(1, min(2, len(waiting))))
        if self._tables.paused:
            due = due[:1]
            await let_pass(self._db, SILENCE)
        await self._db.execute(
            "UPDATE dispatcher.app SET slow_start_at = slow_start_at - make_interval(secs => $1)",
            SILENCE,
        )
        await self._db.execute(
            "UPDATE dispatcher.queue SET due_at = clock_timestamp()"
            " + CASE WHEN id = ANY ($1) THEN interval '-1 second' ELSE interval '1 day' END",
            [self._ids[number] for number in due],
        )
        place = self._dice.randrange(len(self._workers))
        claimed = await claim(
            self._database,
            self._workers[place],
            ClaimRequest("default", slots=4, sender="csms100000001"),
            arrange=arrange,
            token=lambda: next(self._tokens),
        )
        if self._circuit.pause_code == UNKNOWN_RESULTS:
            assert claimed.probe
            assert not claimed.batches
            await end_probe(self._database, "default", claimed.probe)
            self._resumed()
            self.done["probe"] += 1
            return True
        assert not claimed.probe
        [batch] = claimed.batches
        ids = [self._ids.index(message.id) for message in batch.messages]
        assert set(ids) <= set(due)
        round_ = None if self._tables.paused else self._circuit.slow_start
        assert len(ids) == min(len(due), round_.requests if round_ else len(due))
        if round_:
            left = round_.left or max(1, round_.requests - round_.answered)
            self._circuit = replace(self._circuit, slow_start=replace(round_, left=left - 1))
        self._tables = promises.claim(self._tables, self._workers[place], ids)
        self._batches.append(batch)
        return True

    def _any(self, *states: str) -> int | None:
        found = [n for n, each in enumerate(self._tables.batch) if each.state in states]
        return self._dice.choice(found) if found else None

    async def _record(self) -> bool:
        """Record any end of any batch, also of one that is closed: late, or once more."""
        number = self._any("open", "unsure", "closed")
        if number is None:
            return False
        batch = self._batches[number]
        verdict = self._verdict(batch)
        closing = BatchResult(
            batch, verdict, http_status=200, code="x", description="", tries=1, seconds=0.1
        )
        recorded = await record(self._database, self._workers[0], [closing])
        local = self._localize(verdict)
        paused = self._tables.paused
        self._tables, written = promises.record(self._tables, number, local)
        self._tables = self._tables._replace(paused=paused)  # the circuit decides
        assert (batch.token in recorded.written) == written
        if written:
            self._tell_circuit(number, closing)
        return True

    def _tell_circuit(self, number: int, result: BatchResult) -> None:
        """Let the real circuit decide what *result*, which was written, does to the app.

        A request that was opened before the last pause ended says nothing about the app, and one
        from before a pause began does not end it.
        """
        fresh = number >= self._fresh_from
        new = change(self._circuit, [signal(result)] if fresh else [], CircuitLimits())
        self._circuit = new.state
        probed = self._circuit.pause_code and self._tables.batch[number].probe
        if probed and isinstance(result.verdict, Resolved) and number >= self._paused_from:
            self._resumed()
        pause = new.pause
        if isinstance(result.verdict, ReturnAll):
            pause = result.verdict.pause if fresh else None
        if pause is not None:
            if not self._tables.paused:
                self._paused_from = len(self._batches)
            self._circuit = CircuitState(pause_code=pause.code)
            self._tables = self._tables._replace(paused=True)
            self.done["opened"] += new.pause is not None

    def _resumed(self) -> None:
        self._circuit = replace(self._circuit, pause_code=None, slow_start=SlowStart())
        self._fresh_from = len(self._batches)
        self._tables = self._tables._replace(paused=False)

    def _verdict(self, batch: Batch) -> promises.Verdict:
        kind = self._dice.random()
        if kind < 0.2:
            return UnknownResult("timeout", "no answer")
        if kind < 0.3:
            return ReturnAll(Pause("E000101", "why", 60.0, 600.0))
        outcomes: list[Outcome] = []
        unsure = []
        for message in batch.messages:
            local = self._ids.index(message.id)
            what = self._dice.choice("AARLD")
            if what == "A":
                given = promises.provider_id(batch.id, local)
                outcomes.append(Accepted(message, given, 1))
            elif what == "R":
                outcomes.append(Rejected(message, "E200028", "no"))
            elif what == "L":
                outcomes.append(Deferred(message, "E200015", 0.0, self._dice.random() < 0.5))
            else:
                unsure.append(message)
        return Resolved(outcomes, unsure) if outcomes else UnknownResult("x", "none")

    def _localize(self, verdict: promises.Verdict) -> promises.Verdict:
        """Return *verdict* with the model's numbers of messages."""

        def local(message):
            return replace(message, id=self._ids.index(message.id))

        if not isinstance(verdict, Resolved):
            return verdict
        return Resolved(
            [replace(each, message=local(each.message)) for each in verdict.outcomes],
            [local(message) for message in verdict.unsure],
        )

    async def _rescue(self) -> bool:
        """Let one worker be dead, and another one take its place."""
        place = self._dice.randrange(len(self._workers))
        dead = self._workers[place]
        await forget_heartbeat(self._db, dead)
        self._workers[place] = await self._register()
        before = self._tables
        await workers.rescue(self._database, self._workers[place])
        self._tables = promises.rescue(before, frozenset({dead}))
        return self._tables is not before

    async def _resend(self) -> bool:
        await self._db.execute(
            "UPDATE dispatcher.batch SET unsure_at = unsure_at - make_interval(secs => $1)"
            " WHERE state = 'unsure'",
            2 * SILENCE,
        )
        await workers.resend_unsure(self._database, self._workers[0])
        before = self._tables
        if self._policy == "resend":
            for number in range(len(before.batch)):
                self._tables = promises.resend(self._tables, number)
        return self._tables is not before

    async def _settle(self) -> bool:
        number = self._any("unsure")
        if number is None:
            return False
        how = self._dice.choice(("sent", "resend"))
        await self._db.execute("SELECT dispatcher.settle($1, $2)", self._batches[number].token, how)
        self._tables = promises.settle(self._tables, number, how)
        return True

    async def _cancel(self) -> bool:
        message = self._dice.randrange(MESSAGES)
        count = await self._db.fetchval("SELECT dispatcher.cancel($1)", [self._ids[message]])
        before = self._tables
        self._tables = promises.cancel(before, message)
        assert bool(count) == (self._tables is not before)
        return bool(count)

    async def _requeue(self) -> bool:
        message = self._dice.randrange(MESSAGES)
        count = await self._db.fetchval("SELECT dispatcher.requeue($1)", [self._ids[message]])
        before = self._tables
        self._tables = promises.requeue(before, message)
        assert bool(count) == (self._tables is not before)
        return bool(count)

    async def _report(self) -> bool:
        """Store a report of any message of any batch, perhaps once more."""
        number = self._any("open", "unsure", "closed")
        if number is None:
            return False
        batch = self._batches[number]
        message = self._dice.choice(batch.messages)
        local = self._ids.index(message.id)
        given = promises.provider_id(batch.id, local)
        report = Report(given, 1, 1, "DELIVRD", "delivered", batch.token, message.recipient)
        await store(self._database, [(report, 0.0)])
        self._tables = promises.store(self._tables, number, local)
        return True

    async def _match(self) -> bool:
        """Match all that has come, in the model one after the other."""
        await self._db.execute(
            "UPDATE dispatcher.unmatched_report SET due_at = clock_timestamp()"
            " WHERE due_at IS NOT NULL"
        )
        before = self._tables
        await match(self._database)
        # Of two requests of a message, the one that is unsure comes before one that was given up.
        for batch, message in sorted(
            before.inbox,
            key=lambda key: (before.batch[key[0]].settled_by in promises.GIVEN_UP, key),
        ):
            self._tables = promises.match(self._tables, batch, message)
        return self._tables is not before

    async def _split(self) -> bool:
        """Divide any batch of several messages, also one that is not open any more."""
        number = self._any("open", "unsure", "closed")
        if number is None:
            return False
        batch = self._batches[number]
        halves = halve(batch.packed)
        if halves is None:
            return False
        worker = self._workers[0]
        parts = await split(
            self._database,
            worker,
            batch,
            halves,
            code="E000503",
            description="",
            http_status=400,
            tries=1,
            token=lambda: next(self._tokens),
        )
        ids = [tuple(self._ids.index(one.id) for one in half.messages) for half in halves]
        self._tables, new = promises.split(self._tables, worker, number, ids)
        assert len(parts) == len(new)
        self._batches += parts
        return bool(parts)

    async def _abandon(self) -> bool:
        """A claim whose answer was lost: its worker puts back what it never had."""
        number = self._any("open")
        if number is None or self._tables.batch[number].worker not in self._workers:
            return False
        worker = self._tables.batch[number].worker
        mine = {
            batch.token
            for batch, request in zip(self._batches, self._tables.batch, strict=True)
            if request.worker == worker
        }
        token = self._batches[number].token
        await workers.release_unsent(self._database, worker, mine - {token}, {token: None})
        self._tables = promises.abandon(self._tables, number)
        return True


async def compare(db, database, *, steps: int, seed: int, policy: str) -> Counter[str]:
    """Do so many operations; return how often each had an effect."""
    twins = Twins(db, database, Random(seed), policy)
    await twins.begin()
    for number in range(steps):
        if number % ROUND == 0:
            await twins.start()
        await twins.step()
    return twins.done


@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_the_database_keeps_what_the_model_promises(db, database, policy):
    done = await compare(db, database, steps=400, seed=2, policy=policy)
    assert done["claim"] > 20
    assert done["record"] > 20
    assert done["split"]
    assert done["opened"]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_ten_thousand_operations_leave_both_alike(db, database, policy):
    done = await compare(db, database, steps=5_000, seed=11, policy=policy)
    assert all(done[name] > 50 for name in ("claim", "record", "settle", "report", "match"))
    assert done["opened"]
    assert done["probe"]
