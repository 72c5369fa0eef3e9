"""Messages of one number, or with a sender each, leave the pace to the others of their app."""

import asyncio
from time import monotonic

import pytest
from support.messages import insert
from support.provider import app_at
from support.waiting import until

from dispatcher.simulator.faults import Delay

PACE, SECONDS = 200, 10  # numbers a second, of the ordinary messages of each app
ODD = 2000


async def storm(db, app: str, kind: str) -> None:
    await db.execute(
        "INSERT INTO dispatcher.message (app, recipient, template_id, params, sender)"
        " SELECT $3, CASE $1 WHEN 'number' THEN '+8613900000000'"
        "     ELSE '+86139' || lpad(n::text, 8, '0') END,"
        " 'tpl', ARRAY[n::text], CASE $1 WHEN 'sender' THEN 's' || n END"
        " FROM generate_series(1, $2::int) AS n",
        kind,
        ODD,
        app,
    )


async def all_sent(db, ids: list[int]) -> bool:
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM unnest($1::bigint[]) AS u (id) WHERE NOT EXISTS ("
        "SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id))",
        ids,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["number", "sender"])
async def test_a_storm_leaves_most_of_the_pace_to_others(db, workers, provide, kind):
    """Two apps of one worker are compared: the machine is as busy for the one as for the other."""
    sim = await provide(faults=[Delay(seconds=0.2)])
    await storm(db, "stormy", kind)
    ids = {app: await insert(db, PACE * SECONDS, app=app) for app in ("stormy", "calm")}
    app = app_at(sim.url, numbers_per_second=PACE)
    began = monotonic()
    await workers.start({"stormy": app, "calm": app})
    took: dict[str, float] = {}

    async def both_sent() -> bool:
        for name in ids.keys() - took.keys():
            if await all_sent(db, ids[name]):
                took[name] = monotonic() - began
        return len(took) == len(ids)

    await until(both_sent, deadline=60, what="the ordinary ones are sent")
    print(kind, took)  # noqa: T201 - for the report
    assert took["calm"] >= 0.6 * took["stormy"]  # half, if the storm had an equal share


@pytest.mark.slow
async def test_a_storm_alone_has_all_slots(db, workers, provide):
    sim = await provide(faults=[Delay(seconds=5)])
    await storm(db, "default", "sender")
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})

    def open_requests() -> int:
        return sum(visit.seconds is None for visit in sim.journal)

    await until(lambda: open_requests() >= 7, what="seven of eight slots are taken")
    await asyncio.sleep(0.5)
    assert open_requests() <= 7  # the eighth is for urgent messages
