"""Messages of one number, or with a sender each, leave the pace to the others of their app."""

from time import monotonic

import pytest
from support.messages import insert, states
from support.provider import app_at
from support.waiting import until

from dispatcher.simulator.faults import Delay

ORDINARY, ODD = 400, 2000


async def storm(db, kind: str) -> None:
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id, params, sender)"
        " SELECT CASE $1 WHEN 'number' THEN '+8613900000000'"
        "     ELSE '+86139' || lpad(n::text, 8, '0') END,"
        " 'tpl', ARRAY[n::text], CASE $1 WHEN 'sender' THEN 's' || n END"
        " FROM generate_series(1, $2::int) AS n",
        kind,
        ODD,
    )


async def all_sent(db, ids: list[int]) -> bool:
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM unnest($1::bigint[]) AS u (id) WHERE NOT EXISTS ("
        "SELECT FROM dispatcher.outcome o WHERE o.message_id = u.id))",
        ids,
    )


@pytest.mark.parametrize("kind", ["number", "sender"])
async def test_a_storm_leaves_the_pace_to_the_others(db, workers, provide, kind):
    sim = await provide(faults=[Delay(seconds=0.2)])
    await storm(db, kind)
    ids = await insert(db, ORDINARY)
    began = monotonic()
    await workers.start({"default": app_at(sim.url, numbers_per_second=500)})
    await until(lambda: all_sent(db, ids), deadline=40, what="the ordinary ones are sent")
    assert monotonic() - began < 15.0
    assert (await states(db))["accepted"] > ORDINARY
