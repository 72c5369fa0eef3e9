"""The rate limit: numbers in any second, for any number of workers, and how it recovers."""

import random
from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import rate_limit
from dispatcher.core.prepare import prepare
from dispatcher.db import claim as claims
from dispatcher.db.queries import sql
from dispatcher.db.workers import register_app, register_worker

JITTER_SECONDS = 0.035  # by which the way to the provider differs


def fullest_second(rate, size, seed):
    """Return the most numbers in any second, if each grant takes up to JITTER_SECONDS longer."""
    dice = random.Random(seed)
    arrivals = sorted(
        at * rate_limit.grant_seconds(rate, size) + dice.uniform(0, JITTER_SECONDS)
        for at in range(int(3 * rate / size) + 2)
    )
    most = first = 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most * size


@given(seed=st.integers())
def test_at_500_a_second_no_second_gets_more_than_510(seed):
    assert fullest_second(500, rate_limit.grant_size(500), seed) <= 510


@given(rate=st.floats(5, 20_000), least=st.floats(1, 40), seed=st.integers())
def test_no_second_gets_two_percent_and_one_grant_too_many(rate, least, seed):
    size = rate_limit.grant_size(rate, least=least)
    assert fullest_second(rate, size, seed) <= rate * rate_limit.BURST_RATIO + size


@pytest.mark.parametrize("rate", [1, 5, 30, 100, 500, 3000, 50_000])
def test_the_mean_rate_is_at_least_98_percent_of_the_limit(rate):
    size = rate_limit.grant_size(rate)
    assert 0.98 <= size / rate_limit.grant_seconds(rate, size) / rate <= 1.0


def test_at_500_a_second_grants_are_of_ten():
    assert rate_limit.grant_size(500) == 10


def test_short_request_slots_make_larger_grants():
    assert rate_limit.grant_size(500, least=26) == 30  # 17 of them make 510


async def paced(database, rate):
    await register_app(
        database, "default", numbers_per_second=rate, on_unsure="hold", resend_after=1000.0
    )
    registration = await register_worker(
        database, host="here", pid=1, version="0", apps=["default"], lease=60.0
    )
    return registration.id


async def claim(database, worker, slots=4):
    return await claims.claim(
        database,
        worker,
        claims.ClaimRequest("default", slots=slots, sender="csms12345678"),
        arrange=lambda messages, countries, most, decided: prepare(
            messages,
            decided=decided,
            callback=None,
            token_length=32,
            paused_countries=countries,
            country=lambda _: "CN",
            most=most,
        ),
        token=lambda: random.randbytes(16).hex(),
    )


async def load(db, many):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id)"
        " SELECT '+86139' || lpad(n::text, 8, '0'), 'T' FROM generate_series(1, $1::int) n",
        many,
    )


async def test_grants_of_two_workers_never_share_a_time(database, db):
    first = await paced(database, 500.0)
    second = await paced(database, 500.0)
    await load(db, 1000)
    one = await claim(database, first)
    began = monotonic()
    other = await claim(database, second)
    took = monotonic() - began
    grant = rate_limit.grant_seconds(500, 10)
    assert [len(batch.messages) for batch in one.batches] == [10, 10, 10, 10]
    assert {len(batch.messages) for batch in other.batches} == {10}
    for claimed in (one, other):
        times = [batch.send_at for batch in claimed.batches]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([grant] * len(gaps), abs=1e-5)
    # A claim takes the time before it asks the database: its own times may be too early by that.
    assert other.batches[0].send_at + took >= one.batches[-1].send_at + grant - 1e-3


async def test_a_claim_before_its_time_returns_how_long_to_wait(database, db):
    worker = await paced(database, 0.02)  # 50.8 s a number
    await load(db, 100)
    began = monotonic()
    first = await claim(database, worker)
    again = await claim(database, worker)
    assert [len(batch.messages) for batch in first.batches] == [1]  # the next waits in the queue
    assert not again.batches
    assert again.wait + monotonic() - began > 50
    assert again.wait < 51


async def test_an_app_without_a_limit_has_no_send_times(database, db):
    worker = await paced(database, None)
    await load(db, 100)
    claimed = await claim(database, worker)
    assert [batch.send_at for batch in claimed.batches] == [None]
    assert claimed.wait is None


async def test_a_slowed_rate_recovers_slowly(database, db):
    await paced(database, 500.0)
    await db.execute(sql("slow_down"), "default", 0.6, 300.0, 0.0, 0.4, 0.6)
    rates = [await db.fetchval("SELECT rate FROM dispatcher.app")]
    for _ in range(10):
        await db.fetchval(sql("charge_pace"), "default", 1.0)
        rates.append(await db.fetchval("SELECT rate FROM dispatcher.app"))
    assert rates[0] == 300
    assert rates[10] == pytest.approx(300 + 10 * 500 / 600)
    await db.execute(sql("slow_down"), "default", 0.001, 0.0, 0.0, 1.0, 0.01)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == 5  # 1 % of the setting
    await db.fetchval(sql("charge_pace"), "default", 3.0)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == pytest.approx(5.1)


async def test_a_rate_that_is_no_longer_refused_recovers_faster(database, db):
    await paced(database, 500.0)
    await db.execute(sql("slow_down"), "default", 0.001, 0.0, 0.0, 1.0, 0.01)
    await db.execute("UPDATE dispatcher.app SET slowed_at = slowed_at - interval '61 s'")
    await db.fetchval(sql("charge_pace"), "default", 3.0)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == pytest.approx(6)


async def test_flow_control_gives_an_unlimited_app_the_accepted_rate(database, db):
    await paced(database, None)
    await db.execute(sql("slow_down"), "default", 0.6, 300.0, 0.0, 0.4, 0.6)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == 300
    await db.fetchval(sql("charge_pace"), "default", 1.0)
    assert await db.fetchval("SELECT rate FROM dispatcher.app") == pytest.approx(302)
