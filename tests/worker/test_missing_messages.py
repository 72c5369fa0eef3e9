"""The log names what waits and has no row in the table of messages; it harms nothing else."""

from support.messages import finished, insert, states
from support.provider import app_at
from support.waiting import until


async def delete(db, ids: list[int]) -> None:
    await db.execute("DELETE FROM dispatcher.message WHERE id = ANY ($1)", ids)


def told(worker) -> list[dict]:
    return [line for line in worker.events() if "not in dispatcher.message" in line["event"]]


async def is_told(worker, messages: int) -> None:
    await until(
        lambda: sum(line["messages"] for line in told(worker)) == messages,
        what="the log names all missing messages",
    )


async def test_missing_messages_are_told_and_the_others_sent(db, workers, sim):
    alone = [(await insert(db, 1, first=place))[0] for place in range(6)]
    together = await insert(db, 700, first=1000)
    whole = await insert(db, 40, first=3000)
    [done, *_] = late = await insert(db, 40, first=4000)
    missing = [alone[0], alone[3], together[0], *together[20:30], together[-1], *whole]
    await db.execute(
        "INSERT INTO dispatcher.outcome (message_id, state, attempts) VALUES ($1, 'cancelled', 0)",
        done,
    )
    await delete(db, [*missing, done])
    worker = await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db), deadline=30, what="everything is finished")
    sent = [each for each in (*alone, *together, *late) if each not in {*missing, done}]
    assert await states(db) == {"accepted": len(sent)}
    assert sim.ledger.numbers == len(sent)
    await is_told(worker, len(missing))
    lines = told(worker)
    assert {line["app"] for line in lines} == {"default"}
    shown = [each for line in lines for each in line["ids"]]
    assert alone[0] in shown
    assert set(shown) <= set(missing)
    assert all(len(line["ids"]) == min(10, line["messages"]) for line in lines)
    assert worker.code is None


async def test_an_app_whose_messages_are_all_missing_goes_on(db, workers, sim):
    for count in (1, 1, 300):
        await delete(db, await insert(db, count))
    await db.execute(
        "INSERT INTO dispatcher.app (name, paused_at, paused_by, pause_code, probe_at)"
        " VALUES ('default', now(), 'worker', 'E000101', now())"
    )
    [sent] = await insert(db, 1, first=1000)
    worker = await workers.start({"default": app_at(sim.url)})
    await until(lambda: finished(db), deadline=30, what="everything is finished")
    assert await states(db) == {"accepted": 1}
    assert await db.fetchval("SELECT message_id FROM dispatcher.outcome") == sent
    await is_told(worker, 302)
    assert len(told(worker)) <= 3
