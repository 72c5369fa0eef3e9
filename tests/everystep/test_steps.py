"""Steps are counted, named and judged as `./dev everystep` says."""

import asyncio
import json
from collections.abc import Callable
from io import StringIO
from time import monotonic
from types import SimpleNamespace

import pytest
from rich.console import Console

from dispatcher.db.queries import sql
from everystep import lane, verdict
from everystep.crew import Crew, Outcome
from everystep.lane import Lane
from everystep.page import pages
from everystep.place import MOST_FAILED_STARTS, Place
from everystep.postgres_proxy import _first_text, _name_of
from everystep.results import OtherCommitError, ResultFile
from everystep.run import PORT_IS_TAKEN, THE_SCENE, Job, NoStartError, Result
from everystep.scene import LOST_ANSWER, TEXTS
from everystep.steps import CUT_AFTER, CUT_BEFORE, FAULTS, Script, Step, often


def test_the_step_that_is_asked_for_is_struck_once():
    script = Script("worker claim > Bind #2", "kill")
    told = [script.reach("worker claim > Bind", most=3, turn=True) for _ in range(5)]
    assert told == [None, "kill", None, None, None]
    assert script.struck


@pytest.mark.parametrize(
    ("kind", "statement", "turn", "times"),
    [
        ("record", "close_batches", True, 3),
        ("record", "close_batches", False, 1),
        ("record", "COMMIT", True, 6),
        ("match_lock", "take_reports", True, 1),
        ("limits", "limits", True, 1),
        ("limits", "limits", False, 0),
    ],
)
def test_what_concerns_messages_is_struck_most_often(kind, statement, turn, times):
    assert often(kind, statement, turn=turn) == times


def test_a_reply_that_was_taken_is_stored_once():
    assert verdict.of_replies(["a", "b", "c"], 2) == []
    assert verdict.of_replies(["a"], 2) == ["2 replies were taken, and 1 are stored"]
    assert verdict.of_replies(["a", "a"], 1) == ["1 replies are stored twice"]


def test_what_is_repeated_is_a_step_only_so_often():
    script = Script()
    for _ in range(5):
        script.reach("worker poll > Bind", most=2, turn=False)
    assert list(script.steps) == ["worker poll > Bind #1", "worker poll > Bind #2"]


@pytest.mark.parametrize(
    ("label", "turn", "faults"),
    [
        ("worker claim > Sync #1", True, FAULTS),
        ("worker claim > Bind #1", False, (CUT_BEFORE,)),
        ("worker claim < BindComplete #1", True, (CUT_BEFORE, *FAULTS[2:])),
        ("worker claim < DataRow #1", False, (CUT_BEFORE,)),
        ("worker claim < ReadyForQuery #1", False, (CUT_BEFORE, CUT_AFTER)),
        ("worker record/claim < RowDescription #1", False, (CUT_BEFORE, CUT_AFTER)),
        ("worker limits > Sync #1", True, FAULTS[:3]),
        ("request probe answer half #1", True, FAULTS),
    ],
)
def test_a_step_has_the_faults_that_differ_from_its_neighbours(label, turn, faults):
    assert Step(label, turn=turn).faults == faults


@pytest.mark.parametrize("name", ["begin", "claim", "open_batches", "heartbeat"])
def test_a_statement_of_ours_is_known_by_its_name(name):
    assert _name_of(sql(name)) == name


def test_the_first_parameter_of_a_claim_is_its_app():
    bind = b"B\0\0\0\0" + b"\0__stmt\0" + b"\0\1\0\1" + b"\0\1" + b"\0\0\0\3one" + b"\0\0"
    assert _first_text(bind) == "one"


def test_every_message_of_the_scene_has_a_number_of_its_own():
    assert len({text.number for text in TEXTS.values()}) == len(TEXTS)


def unsure(**more):
    return {"token": "t", "worker": 1, "code": "x", "opened": 10.0, "names": ["plain-1"]} | more


def test_unsure_needs_a_reason():
    [said] = verdict.of_unsure([unsure()], workers=set(), struck_at=0.0, token=None)
    assert "without a reason" in said


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (unsure(names=[LOST_ANSWER]), {}),
        (unsure(), {"workers": {1}, "struck_at": 11.0}),
        (unsure(), {"token": "t"}),
    ],
)
def test_what_was_lost_killed_or_cut_may_be_unsure(row, reason):
    given = {"workers": set(), "struck_at": 0.0, "token": None} | reason
    assert verdict.of_unsure([row], **given) == []


def test_what_a_worker_opened_after_its_kill_may_not():
    row = unsure(opened=20.0)
    assert verdict.of_unsure([row], workers={1}, struck_at=11.0, token=None)


@pytest.mark.parametrize(
    ("error", "doing", "word"),
    [
        (TimeoutError(), THE_SCENE, "stalled"),
        (TimeoutError(), "everything has its end", "problems"),
        (NoStartError(f"receiver does not start: {PORT_IS_TAKEN}"), "a start", "broken"),
        (NoStartError("receiver does not start: ValueError"), "a start", "problems"),
        (AssertionError(PORT_IS_TAKEN), THE_SCENE, "problems"),
    ],
)
def test_an_error_is_of_the_machine_or_of_the_service(error, doing, word):
    result = Result(Job("a #1", "kill"))
    result.fail(error, doing)
    assert [name for name in ("stalled", "broken", "problems") if getattr(result, name)] == [word]


def test_the_pages_show_what_was_violated_missed_and_not_done():
    step = Step("worker claim > Sync #1", turn=True)
    results = [
        Result(Job(step.label, "kill"), reached=True),
        Result(Job(step.label, "freeze"), reached=True, problems=["lost"]),
        Result(Job(step.label, CUT_AFTER)),
        Result(Job(step.label, CUT_BEFORE), broken="no server"),
    ]
    promises, every = pages([step], Outcome(5, results))
    assert "| `worker claim > Sync` | 1? | 1? | 1 | 1! |  |" in every
    assert "violated: `worker claim > Sync #1`, freeze: lost" in promises
    assert "1 steps, 5 runs, **3 of them done**" in promises
    assert "| did not come to their step in three tries | 1 |" in promises
    whole = pages([step], Outcome(1, results[:1]))[0]
    assert "1 steps, 1 runs, all of them done" in whole


class StallingLane:
    """The scene of each job stalls a given number of times."""

    def __init__(self, stalls: dict[Job, int], then: Callable[[], None] = lambda: None) -> None:
        self.beside: list[int] = []  # of each run, how many there were at a time
        self._stalls = stalls
        self._then = then
        self._busy = 0

    async def do(self, job: Job, *, keep: bool) -> Result:
        assert not keep
        self._busy += 1
        await asyncio.sleep(0)
        self.beside.append(self._busy)
        await asyncio.sleep(0)
        self._busy -= 1
        self._then()
        self._stalls[job] -= 1
        stalled = "TimeoutError:  (the scene)" if self._stalls[job] >= 0 else ""
        return Result(job, reached=True, stalled=stalled)


@pytest.mark.parametrize(("seconds", "problems"), [(60.0, [0, 0, 1]), (0.0, [])])
async def test_a_scene_that_stalls_is_repeated_alone_before_it_counts(seconds, problems):
    stalls = {Job(f"a #{times}", "kill"): times for times in range(3)}
    lane = StallingLane(stalls.copy())
    crew = Crew(0, seconds, Console(file=StringIO()))
    crew._lanes = [lane]
    outcome = await crew.work(list(stalls))
    crew._lanes = []
    await crew.__aexit__()
    ended = {result.job: len(result.problems) for result in outcome.results}
    assert [ended[job] for job in stalls if job in ended] == problems
    assert outcome.broken == []
    assert lane.beside == ([3, 3, 3, 1, 1] if problems else [])


async def test_a_scene_that_stalls_and_has_no_time_left_is_not_done():
    job = Job("a #1", "kill")
    crew = Crew(0, 60.0, Console(file=StringIO()))
    crew._lanes = [StallingLane({job: 1}, then=lambda: setattr(crew, "_end", 0.0))]
    outcome = await crew.work([job])
    crew._lanes = []
    await crew.__aexit__()
    assert (outcome.failed, [result.job for result in outcome.broken]) == ([], [job])


def test_a_file_of_results_has_what_need_not_be_repeated(tmp_path):
    path = tmp_path / "everystep.jsonl"
    first = ResultFile(path, "abc")
    first.keep_steps([Step("a #1", turn=True)])
    done = Result(Job("a #1", "kill"), reached=True)
    violated = Result(Job("a #1", "freeze"), reached=True, problems=["lost"])
    for result in (done, violated, Result(Job("a #1", CUT_AFTER), broken="no server")):
        first.append(result)
    first.append(Result(Job("a #1", CUT_BEFORE)))  # it did not come to its step
    with path.open("a") as file:
        file.write('{"elapsed": 3')  # the call was killed
    again = ResultFile(path, "abc")
    assert again.steps == [Step("a #1", turn=True)]
    assert again.done == {done.job: done, violated.job: violated}
    with pytest.raises(OtherCommitError):
        ResultFile(path, "def")


@pytest.mark.slow
async def test_a_process_that_never_starts_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("everystep.place.QUICK_SECONDS", 600.0)  # the machine may stand still
    up = asyncio.Event()
    up.set()
    forks = FailingStarts(tmp_path)
    place = Place(
        "worker1",
        Script(),
        forks,  # type: ignore[arg-type]
        tmp_path,
        lambda: None,
        database_up=up,
        frozen_for=1.0,
        on_freeze=lambda _: None,
        arguments=(),
    )
    await place.start()
    async with asyncio.timeout(60):
        await place.keep_up(forks.died)
    assert place.no_start == "worker1 does not start: DISPATCHER_LISTEN: no such address"
    assert len(forks.ended) == MOST_FAILED_STARTS


class FailingStarts:
    """Processes that end at once, with a line that says why."""

    def __init__(self, folder):
        self.ended = {}
        self._folder = folder

    async def start(self, _environ, log, *_arguments):
        log.write_text("DISPATCHER_LISTEN: no such address\n")
        pid = len(self.ended) + 1
        self.ended[pid] = 1
        return pid

    async def died(self, _pid):
        pass


def test_an_end_that_the_scene_does_not_know_is_told():
    rows = [
        {
            "id": number,
            "params": [name],
            "state": "queued" if name == "plain-1" else text.ends,
            "code": None,
            "attempts": 1,
            "recipient": text.number,
            "template_id": "t",
            "provider_id": None,
            "batch_token": None,
        }
        for number, (name, text) in enumerate(TEXTS.items())
        if name != "half-1"
    ]
    books = SimpleNamespace(messages=rows, ledger=[], problems=list, accepted_twice=1)
    told = verdict.of_ends(books)
    assert told == [
        "1 accepted twice",
        "half-1 is missing",
        "plain-1 is queued (None), not accepted",
    ]


@pytest.mark.parametrize("stood_still", [False, True])
async def test_what_ended_ill_while_the_machine_stood_still_shows_nothing(
    tmp_path, monkeypatch, capsys, stood_still
):
    machine = Lane(tmp_path, tmp_path, tmp_path)
    machine._shared = SimpleNamespace(up=asyncio.Event())
    machine._shared.up.set()
    machine._may_start.set()

    async def run(job, *_arguments, **_more):
        if stood_still:
            machine._stood_still = monotonic()
        return Result(job, reached=True, problems=["accepted twice"])

    monkeypatch.setattr(lane, "run", run)
    monkeypatch.setattr(lane, "BETWEEN_STARTS", 0.0)
    await machine._do({"label": "a #1", "fault": "kill"}, None)
    printed = json.loads(capsys.readouterr().out)
    if stood_still:
        assert printed["broken"] == "the machine stood still: accepted twice"
        assert printed["problems"] == []
    else:
        assert (printed["broken"], printed["problems"]) == ("", ["accepted twice"])
