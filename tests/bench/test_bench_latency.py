"""The urgent messages of `latency` are measured beside a backlog that lasts as long as they do."""

from contextlib import nullcontext
from types import SimpleNamespace

from dispatcher.bench import latency


async def test_a_backlog_that_did_not_last_is_doubled_and_the_round_repeated(monkeypatch):
    backlogs, printed = [], []

    async def run(_, urgent, backlog):
        backlogs.append(backlog)
        return None if 0 < backlog < 400 else [0.01] * urgent

    monkeypatch.setattr(latency, "_run", run)
    environment = SimpleNamespace(template=nullcontext)
    results = await latency.measure(
        environment, rounds=2, urgent=5, backlog=100, progress=printed.append
    )
    assert backlogs == [0, 100, 200, 400, 400, 0]
    assert results.settings["backlog"] == 400
    assert [len(figure.values) for figure in results.figures] == [2] * 6
    assert "round 1 of 2: again, with a backlog of 400" in printed
