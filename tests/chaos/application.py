"""The application: inserts messages all along, cancels some, and remembers what it was told."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import asyncpg
from support.messages import TEMPLATE

from chaos.database import Database

NUMBERS = ("+86138{:08d}", "138{:08d}", "+3361{:07d}", "+49151{:07d}", "+1212555{:04d}")
TEMPLATES = (TEMPLATE, "8ff55eac1d0b478ab3c06c3c6a492301", "t")
TEXT = "txt{:08d}"  # the first parameter; so written, it is like nothing else that is ever said
BAD = "bad"  # a parameter that a fault of the provider objects to
KNOWN = 10_000  # numbers of each kind; they come again and again
COLUMNS = (
    "app, recipient, template_id, params, priority, send_at, expires_at, sender, signature,"
    " idempotency_key"
)


# One column of a row, and an odd value for it.
ODD: tuple[tuple[str, object], ...] = (
    ("params", ["\U0001f600 \u202e\ufeff"]),
    ("params", ["line\r\nbreak", "tab\t", '"quoted" \\ back']),
    ("params", ["", " ", ""]),
    ("params", ["x"] * 20),
    ("params", ["y" * 60_000]),
    ("params", ["y" * 70_000]),
    ("params", ["NULL", "{}", "{nested,{list}}"]),
    ("recipient", "+1234"),
    ("recipient", "+12345678"),
    ("recipient", "+99912345678901234567"),
    ("recipient", "not a number"),
    ("recipient", "+8613800138000 "),
    ("template_id", "unknown-template"),
    ("template_id", ""),
    ("signature", "\u3010shop\u3011"),
    ("signature", "a\nb"),
    ("sender", "nobody"),
    ("priority", 10),
    ("send_at", datetime(1970, 1, 1, tzinfo=UTC)),
    ("expires_at", datetime(2001, 1, 1, tzinfo=UTC)),
    ("reference", "r" * 200),
    ("campaign", "\u00e9t\u00e9"),
)


@dataclass(frozen=True)
class Cancel:
    """A cancel that was answered."""

    ids: list[int]
    told: int


@dataclass
class Memory:
    """What the application was told, and may rely on."""

    inserted: set[int] = field(default_factory=set)
    cancels: list[Cancel] = field(default_factory=list)
    requeued: set[int] = field(default_factory=set)  # perhaps; these expire no more
    calls: int = 0
    unanswered: int = 0  # calls that may have been done, or not
    odd: int = 0  # rows that nobody expects, and no constraint refused
    refused: int = 0


class Application:
    """Works on the database until it is stopped."""

    def __init__(self, dsn: str, apps: list[str], dice: Random) -> None:
        self.memory = Memory()
        self._database = Database(dsn)
        self._apps = apps
        self._dice = dice
        self._written = 0  # parameters that were given; each text is another
        self._recent: list[int] = []  # not asked to be cancelled yet
        self._requeued_before: set[int] = set()  # before a backup was restored
        self.working = asyncio.Lock()  # held while it calls

    async def work(self, rate: float) -> None:
        """Insert about *rate* messages a second, and cancel some of them."""
        while True:
            count = round(self._dice.paretovariate(1.2) * rate / 20)
            async with self.working:
                await self._insert(min(count, 3000))
                if self._dice.random() < 0.3:
                    await self._cancel()
                if self._dice.random() < 0.05:
                    await self._requeue()
                if self._dice.random() < 0.2:
                    await self._insert_odd()
            await asyncio.sleep(self._dice.expovariate(8.0))

    async def _insert(self, count: int) -> None:
        rows = [self._row() for _ in range(count)]

        async def insert(connection: asyncpg.Connection) -> list[int]:
            # One statement or a transaction of several; sometimes the application gives it up.
            made: list[int] = []
            step = self._dice.choice((1, 7, 500, 3000)) if count < 100 else 500
            transaction = connection.transaction()
            await transaction.start()
            for at in range(0, count, step):
                found = await connection.fetch(
                    f"INSERT INTO dispatcher.message ({COLUMNS})"
                    " SELECT a, r, t, string_to_array(p, '|'), y, now() + make_interval(secs => w),"
                    " now() + make_interval(secs => w + e), NULLIF(s, ''), NULLIF(g, ''), k"
                    " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[],"
                    " $6::float8[], $7::float8[], $8::text[], $9::text[], $10::text[])"
                    " AS u (a, r, t, p, y, w, e, s, g, k) RETURNING id",
                    *map(list, zip(*rows[at : at + step], strict=True)),
                )
                made += [row["id"] for row in found]
            if self._dice.random() < 0.1:
                await transaction.rollback()
                return []
            await transaction.commit()
            return made

        made = await self._call(insert)
        if made:
            self.memory.inserted.update(made)
            self._recent = [*self._recent, *made][-5000:]

    def _row(self) -> tuple[object, ...]:
        dice = self._dice
        self._written += 1
        number = dice.choices(NUMBERS, (6, 2, 1, 1, 1))[0].format(dice.randrange(KNOWN))
        text = TEXT.format(self._written)
        if dice.random() < 0.01:
            text += "x" * dice.randrange(500, 3000)  # long ones, so that bytes bind now and then
        if dice.random() < 0.01:
            text += f"|{BAD}"  # a second parameter
        return (
            dice.choice(self._apps),
            number,
            dice.choice(TEMPLATES),
            text,
            dice.choices((0, 1, 5, 9), (1, 2, 20, 3))[0],
            dice.choices((0.0, dice.uniform(0.1, 5.0)), (9, 1))[0],
            dice.uniform(0.2, 15.0) if dice.random() < 0.1 else None,
            dice.choice(("", "", "", "csms100000002")),
            dice.choice(("", "", "", "some shop")),
            f"key-{self._written}" if dice.random() < 0.05 else None,
        )

    async def _insert_odd(self) -> None:
        """Insert a row that nobody expects: a constraint refuses it, or it must come to an end."""
        self._written += 1
        column, value = self._dice.choice(ODD)
        row: dict[str, object] = {
            "app": self._dice.choice(self._apps),
            "recipient": NUMBERS[0].format(self._dice.randrange(KNOWN)),
            "template_id": TEMPLATE,
            "params": [TEXT.format(self._written)],
        }
        if column == "params":
            assert isinstance(value, list)
            row["params"] = [TEXT.format(self._written), *value]
        else:
            row[column] = value
        columns = ", ".join(row)
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))

        async def insert(connection: asyncpg.Connection) -> int:
            try:
                return await connection.fetchval(  # type: ignore[no-any-return]
                    f"INSERT INTO dispatcher.message ({columns}) VALUES ({places}) RETURNING id",
                    *row.values(),
                )
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
                self.memory.refused += 1
                return 0

        if made := await self._call(insert):
            self.memory.odd += 1
            self.memory.inserted.add(made)

    async def _cancel(self) -> None:
        if not self._recent:
            return
        count = min(len(self._recent), self._dice.choice((1, 1, 10, 100)))
        ids = self._dice.sample(self._recent, count)
        gone = set(ids)  # each is asked for once, so that each answer can be judged
        self._recent = [one for one in self._recent if one not in gone]
        told = await self._call(
            lambda connection: connection.fetchval("SELECT dispatcher.cancel($1)", ids)
        )
        if told is not None:
            self.memory.cancels.append(Cancel(ids, told))

    async def _requeue(self) -> None:
        """Take back some of what was rejected: never sent, so it may be sent now.

        A restored database shows as rejected also what was taken back and sent since the backup:
        the operator knows what he has taken back.
        """
        rejected = await self._call(
            lambda connection: connection.fetchval(
                "SELECT array(SELECT message_id FROM dispatcher.outcome"
                " WHERE state = 'rejected' LIMIT 50)"
            )
        )
        rejected = [one for one in rejected or () if one not in self._requeued_before]
        if rejected:
            self.memory.requeued.update(rejected)
            await self._call(
                lambda connection: connection.fetchval("SELECT dispatcher.requeue($1)", rejected)
            )

    def go_back(self, inserted: set[int], cancels: list[Cancel]) -> None:
        """Take back what it was told since a backup that is restored."""
        self.memory.inserted, self.memory.cancels = set(inserted), list(cancels)
        self._recent = []
        self._requeued_before = set(self.memory.requeued)

    async def _call(self, work):
        self.memory.calls += 1
        given = await self._database.ask(work)
        self.memory.unanswered += given is None
        return given
