"""Whatever is posted is stored as a report or a reply, or kept as it came with a reason.

`FUZZ_CASES=100000 ./dev test -n 0 tests/receiver/test_fuzz.py` posts more of it; FUZZ_SEED other
cases.
"""

import asyncio
import json
import os
import re
from collections import Counter
from hashlib import sha256
from random import Random
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from receiving_end import FORM, TOKEN, form, receiver

from dispatcher.core.reply import UNSUBSCRIBE_WORDS, read_posted
from dispatcher.core.report import CHECK_STATUS, read_push

CASES = int(os.environ.get("FUZZ_CASES", "1500"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
AT_ONCE = 16
FIELDS = ["smsMsgId", "total", "sequence", "status", "source", "updateTime", "extend", "to", "x"]
REPLY_FIELDS = ["smsMsgId", "from", "to", "body", "createTime", "x"]
NASTY = [
    "", " ", "\0", "a\0b", "-1", "0", "1e9", "999999999999999999999", "NaN", "null", "\ud800",
    "\U0001f600" * 50, "x" * 63, "x" * 300, "x" * 5000, "x" * 70_000, "'; DROP TABLE report; --",
    "{}", "[]", "%", "%00", "\r\nX: y", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-12:00", "X-CHECK", "ACCEPTD", "DELIVRD", "E200015", "\u202e", "\ufffe",
    "+86131****0001", "0086 131-0000-0001", "131\uff10\uff10 000001", "R", "退订", "\uff32\0",
]  # fmt: skip
ODD = [None, True, 0, -1, 1.5, 1e308, 10**40, [], {}, [[]], {"a": {"b": []}}, ["x"], "x"]
UNSUBSCRIBED = re.compile("[+][0-9]{5,20}")  # a number that can be suppressed
TYPES = [FORM, "application/json", "text/plain", "application/json; charset=utf-16", "x", ""]


class Mutator:
    """Makes bodies that begin well and end badly."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)

    def case(self) -> tuple[bytes, str]:
        """Return a body and what it is called."""
        body = self.json() if self.dice.random() < 0.5 else self.form()
        for _ in range(self.dice.choice([0, 0, 1, 2, 5])):
            body = self.bend(body)
        usual = "application/json" if body[:1] == b"{" else FORM
        return body, usual if self.dice.random() < 0.8 else self.dice.choice(TYPES)

    def value(self) -> str:
        """Return a value that a field may not like."""
        value = self.dice.choice(NASTY)
        return value if self.dice.random() < 0.8 else value + str(self.dice.random())

    def form(self) -> bytes:
        """Return a form, with some fields wrong, twice or unknown."""
        pairs = dict.fromkeys(FIELDS, "1") | {
            "smsMsgId": f"f{self.dice.randrange(1000)}",
            "status": "DELIVRD",
        }
        for _ in range(self.dice.choice([0, 1, 1, 3])):
            pairs[self.dice.choice([*FIELDS, self.value()])] = self.value()
        parts = [
            f"{quote(n, errors='surrogatepass')}={quote(v, errors='surrogatepass')}"
            for n, v in pairs.items()
        ]
        if self.dice.random() < 0.1:
            parts += parts
        return "&".join(parts).encode()

    def reply(self) -> tuple[bytes, str]:
        """Return a reply and what it is called, with some fields wrong or unknown."""
        fields: dict[str, object] = dict.fromkeys(REPLY_FIELDS, "1") | {
            "smsMsgId": f"r{self.dice.randrange(1000)}",
            "from": f"+86131{self.dice.randrange(10**8):08d}",
            "body": self.dice.choice(["R", "When?", "退订", ""]),
        }
        for _ in range(self.dice.choice([0, 1, 1, 3])):
            fields[self.dice.choice([*REPLY_FIELDS, self.value()])] = self.value()
        if self.dice.random() < 0.3:
            fields[self.dice.choice(REPLY_FIELDS)] = self.dice.choice(ODD)
            body = json.dumps(self.dice.choice([fields, [fields, fields]])).encode()
        else:
            body = urlencode(fields, errors="surrogatepass").encode()
        for _ in range(self.dice.choice([0, 0, 1, 2])):
            body = self.bend(body)
        return body, self.dice.choice([FORM, FORM, *TYPES])

    def json(self) -> bytes:
        """Return a batch, with some reports wrong."""
        listed: list[object] = [self.report() for _ in range(self.dice.choice([1, 1, 3, 50, 51]))]
        if self.dice.random() < 0.1:
            listed.append(self.dice.choice(ODD))
        whole: object = {"statusReportList": listed}
        if self.dice.random() < 0.1:
            whole = self.dice.choice([listed, {"statusReportList": self.dice.choice(ODD)}, *ODD])
        return json.dumps(whole).encode()

    def report(self) -> dict[str, object]:
        """Return a report of a batch."""
        fields: dict[str, object] = {
            "smsMsgId": f"j{self.dice.randrange(1000)}",
            "status": "DELIVRD",
            "sequence": self.dice.choice([1, "1", "2"]),
            "total": "2",
        }
        if self.dice.random() < 0.3:
            fields[self.dice.choice(FIELDS)] = self.dice.choice([*ODD, self.value()])
        return fields

    def bend(self, body: bytes) -> bytes:
        """Return *body* with some bytes gone, changed or repeated."""
        at, size = self.dice.randrange(len(body) + 1), self.dice.choice([1, 1, 4, 50])
        match self.dice.randrange(5):
            case 0:
                return body[:at]
            case 1:
                return body[:at] + body[at + size :]
            case 2:
                return body[:at] + self.dice.randbytes(size) + body[at + size :]
            case 3:
                return body[:at] + body[at : at + size] * 3 + body[at:]
            case _:
                return self.dice.choice([b"", b"\xef\xbb\xbf", b"[" * 2000, b"&" * 100]) + body


@pytest.mark.timeout(60 + CASES // 50)
@pytest.mark.slow
async def test_no_body_takes_the_receiver_down(dsn, db, tmp_path):
    seen: Counter[int | str] = Counter()
    keys: set[tuple[str, int]] = set()
    unreadable: set[bytes] = set()
    mutator = Mutator(SEED)
    cases = iter([mutator.case() for _ in range(CASES)])

    async def post_some(session: aiohttp.ClientSession, url: str) -> None:
        for body, content_type in cases:
            headers = {"Content-Type": content_type} if content_type else {}
            async with session.post(url, data=body, headers=headers) as response:
                said = json.loads(await response.text())["returnCodeDesc"]
            assert response.status in (200, 413), (response.status, said, body[:500])
            assert said
            seen[response.status] += 1
            if response.status == 200:
                push = read_push(body)
                reports = [report for report in push.reports if report.status != CHECK_STATUS]
                keys.update((report.provider_id, report.segment) for report in reports)
                if push.unreadable is not None:
                    unreadable.add(sha256(body).digest())
                seen["read"] += bool(push.reports)

    async with receiver(dsn, tmp_path) as receives, asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(post_some(receives.session, f"{receives.url}/reports/{TOKEN}"))
    async with receiver(dsn, tmp_path) as receives:
        assert await receives.post(form("after")) == (200, "Success")
    assert seen[200] + seen[413] == CASES
    assert seen["read"] > CASES / 2  # most damage costs no report
    stored = await db.fetch("SELECT provider_id, segment FROM dispatcher.report")
    assert {tuple(row) for row in stored} == keys | {("after", 1)}
    kept = await db.fetch("SELECT digest, reason FROM dispatcher.unreadable_push")
    assert {row["digest"] for row in kept} == unreadable
    reasons = {row["reason"] for row in kept}
    assert len(unreadable) > CASES / 20  # both ways were walked
    assert len(reasons) > 5
    made = await db.fetchrow(
        "SELECT (SELECT count(*) FROM dispatcher.message) AS messages,"
        " (SELECT count(*) FROM dispatcher.outcome) AS outcomes,"
        " (SELECT count(*) FROM dispatcher.queue) AS queued"
    )
    assert tuple(made) == (0, 0, 0)
    print(dict(seen), len(reasons), "reasons")  # noqa: T201 - the figures of a long run


@pytest.mark.timeout(60 + CASES // 50)
@pytest.mark.slow
async def test_no_reply_takes_the_receiver_down(dsn, db, tmp_path):
    replies: set[tuple[str | None, str, str | None, str, bool]] = set()
    unreadable: set[bytes] = set()
    refused = 0
    mutator = Mutator(SEED)
    cases = iter([mutator.reply() for _ in range(CASES)])

    async def post_some(session: aiohttp.ClientSession, url: str) -> None:
        nonlocal refused
        for body, content_type in cases:
            headers = {"Content-Type": content_type} if content_type else {}
            async with session.post(url, data=body, headers=headers) as response:
                said = json.loads(await response.text())["returnCodeDesc"]
            assert response.status in (200, 413), (response.status, said, body[:500])
            if response.status == 413:
                refused += 1
                continue
            posted = read_posted(body, is_reply=True, words=UNSUBSCRIBE_WORDS)
            for one in posted.replies:
                told = one.unsubscribes and bool(UNSUBSCRIBED.fullmatch(one.number))
                replies.add((one.provider_id, one.number, one.channel, one.text, told))
            if posted.unreadable is not None:
                unreadable.add(body)

    await db.execute("INSERT INTO dispatcher.app (name) VALUES ('default')")
    async with receiver(dsn, tmp_path) as receives, asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            url = f"{receives.url}/replies/{TOKEN}/default"
            tasks.create_task(post_some(receives.session, url))
    stored = await db.fetch(
        "SELECT provider_id, number, channel, text, unsubscribed FROM dispatcher.reply"
    )
    assert {tuple(row) for row in stored} == replies
    kept = await db.fetch("SELECT body FROM dispatcher.unreadable_push")
    assert {row["body"] for row in kept} == unreadable
    assert len(replies) > CASES / 2  # most damage costs no reply
    assert len(unreadable) > CASES / 50
    stopped = await db.fetch("SELECT recipient FROM dispatcher.suppression")
    assert {row["recipient"] for row in stopped} == {one[1] for one in replies if one[4]}
    print(len(replies), "replies", len(unreadable), "unreadable", refused, "too long")  # noqa: T201 - the figures of a long run
