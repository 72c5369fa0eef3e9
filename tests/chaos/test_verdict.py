"""The storm's judge: which unsure batch has a reason to be."""

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from chaos.verdict import Still, _explain
from dispatcher.simulator.ledger import RequestRecord

BATCH = {"token": "t", "worker": 1, "code": "no-answer", "messages": 3, "opened": 100.0}


def seen(**more) -> RequestRecord:
    return RequestRecord(
        1, 100.0, 100.0, "host", "aksk", token="t", http_status=200, seconds=0.01, **more
    )


def judged(
    batch: dict, *visits: RequestRecord, refusals: int = 1, stills: Sequence[Still] = ()
) -> tuple[dict[str, int], list[str]]:
    faults = SimpleNamespace(injected=Counter(refuse=refusals))
    return _explain([batch], SimpleNamespace(journal=visits, faults=faults), [], stills)


@pytest.mark.parametrize("visits", [(), (seen(code="E000000"),)], ids=["unseen", "refused before"])
def test_a_last_try_that_nobody_read_is_explained_by_a_broken_connection(visits):
    why, unexplained = judged(BATCH, *visits)
    assert why["unread"] == 3
    assert unexplained == []
    assert judged(BATCH, *visits, refusals=0)[1] != []


def test_what_was_accepted_and_answered_has_no_reason_to_be_unsure():
    assert judged(BATCH, seen(accepted=3))[1] == ["batch t is unsure (no-answer) without a fault"]
    why, unexplained = judged(BATCH, seen(accepted=3, faults=["cut"]))
    assert (why["answer lost"], unexplained) == (3, [])


def test_a_refusal_that_was_read_is_no_reason_either():
    refused = BATCH | {"code": "E000104"}
    assert len(judged(refused, seen(code="E000104"))[1]) == 1


def test_an_answer_that_waited_while_the_machine_stood_still_was_lost_to_the_time_out():
    assert judged(BATCH, seen(accepted=3), stills=[(100.1, 104.0)])[1] == []
    assert len(judged(BATCH, seen(accepted=3), stills=[(100.1, 100.9)])[1]) == 1  # too short
    assert len(judged(BATCH, seen(accepted=3), stills=[(200.0, 204.0)])[1]) == 1  # another time
