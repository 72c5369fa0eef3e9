"""Overall health: whether messages are sent, and if not, the cause and the next step."""

from contextvars import copy_context
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from dispatcher.core.codes import request_code
from dispatcher.core.delays import pause_for
from dispatcher.core.health import Level, database_unavailable, diagnose
from dispatcher.core.language import use_language
from dispatcher.core.rules import Rules
from dispatcher.core.status import (
    AppState,
    EventCount,
    EventTotal,
    MissingReports,
    StatusSnapshot,
    StoppedCampaign,
    WorkerState,
)

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
APP = AppState(
    "shop", True, None, None, None, None, None, 500.0, 500.0, 0, None, 0, 0, []
)  # fmt: skip
WORKER = WorkerState(1, "host", 7, "1", ["shop"], NOW, 1.0, alive=True)


def now(app: AppState = APP, **changes) -> StatusSnapshot:
    return replace(StatusSnapshot(NOW, [app], [WORKER], []), **changes)


def paused(code: str) -> AppState:
    pause = pause_for(request_code(code))
    return replace(
        APP, paused_at=NOW, paused_by="worker", pause_code=code, pause_reason=pause.reason
    )


def happened(**counts: int) -> list[EventCount]:
    return [
        EventCount(NOW, "shop", *name.split("_"), count) if "_" in name
        else EventCount(NOW, "shop", name, "", count)
        for name, count in counts.items()
    ]  # fmt: skip


def test_a_send_time_as_far_ahead_as_grants_reach_is_fine():
    soon = replace(APP, next_at=NOW + timedelta(seconds=10), oldest_due_at=NOW, sending=1)
    assert diagnose(now(soon)).findings == []


@pytest.mark.parametrize("code", ["suppressed", "unsubscribed"])
def test_messages_to_suppressed_numbers_are_no_trouble(code):
    totals = [EventTotal("shop", "rejected", code, 900, 900)]
    for accepted in (0, 50):
        withheld = happened(accepted=accepted, **{f"rejected_{code}": 900})
        assert diagnose(now(recent=withheld, totals=totals)).findings == []


def test_messages_to_suppressed_numbers_hide_no_failures():
    totals = [
        EventTotal("shop", "rejected", "unsubscribed", 900, 900),
        EventTotal("shop", "rejected", "E200033", 40, 40),
        EventTotal("shop", "accepted", "", 60, 60),
    ]
    (finding,) = diagnose(now(totals=totals)).findings
    assert finding.title == "shop: 40 messages rejected in the last hour"


def test_a_spike_is_told_with_its_figures():
    braked = replace(
        APP, paused_at=NOW, paused_by="operator", pause_code="spike", pause_reason="9 of 1"
    )
    (finding,) = diagnose(now(braked)).findings
    assert finding.title == "shop is paused: far more messages than usual"
    assert (finding.cause, "dispatcher resume shop" in finding.step) == ("9 of 1", True)


def test_health_is_fine_when_idle_and_when_sending():
    assert diagnose(now()).headline == "All is sent; nothing is due."
    busy = diagnose(now(replace(APP, oldest_due_at=NOW, sending=50)))
    assert (busy.headline, busy.level, busy.findings) == (
        "Messages are going out.", Level.FINE, []
    )  # fmt: skip


# The drills: what is wrong, what its first finding says of the cause, and of the next step.
DRILLS = [
    ("wrong secret", now(paused("E000045")), "The signature is wrong", "SHOP__APP_SECRET"),
    ("not on the white list", now(paused("E000620")), "white list", "10 to 15 minutes"),
    ("quota spent", now(paused("E000623")), "quota of messages is spent", "00:00 UTC+8"),
    ("provider down", now(paused("unreachable")), "cannot be reached", "Check network, DNS"),
    (
        "template rejected",
        now(recent=happened(accepted=50, rejected_E200030=50)),
        "The template is not active",
        "activate it, then requeue",
    ),
    (
        "callback address broken",
        now(awaiting=[MissingReports("shop", 500, 500, 0, 600.0)]),
        "nothing was reported of any",
        "DISPATCHER_CALLBACK_URL",
    ),
    (
        "callback address broken since yesterday",
        now(awaiting=[MissingReports("shop", 5000, 2000, 1500, 90_000.0)]),
        "30% have no report",
        "dispatcher check",
    ),
    (
        "callback address broken for an hour",
        now(awaiting=[MissingReports("shop", 80_000, 3000, 1500, 4000.0, 20)]),
        "20 messages accepted more than an hour ago, after the last one with a report",
        "dispatcher check",
    ),
    (
        "E200015 flood",
        now(replace(APP, rate=31.0), recent=happened(accepted=50, deferred_E200015=500)),
        "Too many messages wait at the provider",
        "lower the rate limit",
    ),
    (
        "a template rejected, nothing accepted",
        now(recent=happened(rejected_E200033=50)),
        "E200033: The template is of the wrong type",
        "then requeue",
    ),
    (
        "the only message rejected",
        now(recent=happened(rejected_E200033=1)),
        "E200033",
        "then requeue",
    ),
    (
        "worker without the app",
        now(replace(APP, waiting=3), workers=[replace(WORKER, apps=["other"])]),
        "not in any worker that runs now",
        "Start a worker with DISPATCHER_APPS__SHOP__",
    ),
    (
        "a few messages without a report for long",
        now(awaiting=[MissingReports("shop", 3, 3, 3, 4000.0)]),
        "3 messages accepted, the first 1 h ago, and nothing was reported",
        "dispatcher check",
    ),
    (
        "the database's clock was set back",
        now(replace(APP, next_at=NOW + timedelta(minutes=10))),
        "clock of the database was ahead",
        "clocks of the database's hosts",
    ),
    ("no worker", now(workers=[]), "nobody sends", "dispatcher run"),
    ("app unknown", now(replace(APP, known=False)), "not configured", "SHOP__ENDPOINT"),
    ("daily limit", now(paused("daily-limit")), "its daily limit allows", "dispatcher limit"),
    ("unknown results", now(paused("unknown-results")), "unknown", "2026-11-01 12:00 UTC"),
    ("all refused", now(paused("all-refused")), "refused", "2026-11-01 12:00 UTC"),
    ("unsure", now(replace(APP, unsure_batches=2)), "answer was lost", "settle"),
    ("held", now(replace(APP, unsure_batches=2, held_batches=1)), "1 of them are from", "settle"),
    ("country quota", now(replace(APP, paused_countries=["PL"])), "one country", "threshold"),
]


@pytest.mark.parametrize(
    ("seen", "cause", "step"), [each[1:] for each in DRILLS], ids=[each[0] for each in DRILLS]
)
def test_the_cause_and_the_next_step_come_first(seen, cause, step):
    found = diagnose(seen)
    assert found.level >= Level.WARNING
    assert cause in found.findings[0].cause
    assert step in found.findings[0].step
    assert "<NAME>" not in found.findings[0].step


def test_a_database_that_is_away_is_the_whole_story():
    found = database_unavailable("No PostgreSQL answers at db:5432 (connection refused): start it.")
    assert found.headline == "Messages are not going out."
    assert "db:5432" in found.findings[0].cause
    assert "Nothing is lost" in found.findings[0].step


def test_a_headline_counts_the_apps_that_are_many():
    for count, shown in ((3, "app0 and app1 and app2"), (4, "4 of 5 apps")):
        stopped = [replace(paused("E000045"), name=f"app{place}") for place in range(count)]
        found = diagnose(now(apps=[*stopped, APP]))
        assert found.headline == f"Messages are going out, but not those of {shown}."


def test_the_worst_finding_comes_first():
    other = replace(paused("E000045"), name="other")
    found = diagnose(now(apps=[replace(APP, unsure_batches=1, sending=5), other]))
    assert found.headline == "Messages are going out, but not those of other."
    assert [finding.app for finding in found.findings] == ["other", "shop"]


def test_failures_of_the_last_hour_are_a_note():
    totals = [
        EventTotal("shop", "rejected", "E200033", 40, 40),
        EventTotal("shop", "accepted", "", 60, 60),
    ]
    found = diagnose(now(totals=totals))
    assert (found.level, found.headline) == (Level.NOTE, "Nothing is due.")
    assert found.findings[0].title == "shop: 40 messages rejected in the last hour"
    lately = happened(accepted=60, rejected_E200033=40)
    assert len(diagnose(now(totals=totals, recent=lately)).findings) == 1


def test_flow_control_is_one_finding():
    flood = now(replace(APP, rate=31.0), recent=happened(accepted=50, deferred_E200015=500))
    assert len(diagnose(flood).findings) == 1


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (now(), "Nothing is due."),
        (now(replace(APP, sending=5)), "Messages go out."),
        (now(recent=happened(accepted=5)), "Messages go out."),
        (now(paused("E000045")), "Nothing goes out: the provider refuses our settings."),
        (now(workers=[]), "Nothing goes out: no worker is running."),
        (now(replace(APP, unsure_batches=2)), "Problem: 2 unsure requests."),
        (
            now(replace(APP, paused_at=NOW, paused_by="operator")),
            "Nothing goes out: paused by an operator.",
        ),
    ],
)
def test_each_app_has_a_sentence(seen, sentence):
    assert [said.sentence for said in diagnose(seen).apps] == [sentence]


def test_a_pause_by_an_operator_offers_to_resume():
    app = replace(APP, paused_at=NOW, paused_by="operator", pause_reason="odd texts (Ana)")
    (finding,) = diagnose(now(app)).findings
    assert finding.cause == "odd texts (Ana)"
    assert finding.act == "resume"


def test_a_few_failures_are_no_finding():
    quiet = [
        now(recent=happened(accepted=5, rejected_E200028=5)),
        now(recent=happened(accepted=1000, rejected_E200028=20)),
        now(awaiting=[MissingReports("shop", 5000, 300, 250, 200_000.0)]),
        now(awaiting=[MissingReports("shop", 5000, 300, 250, 200_000.0, 19)]),
        now(awaiting=[MissingReports("shop", 500, 500, 0, 60.0)]),
        now(awaiting=[MissingReports("shop", 3, 3, 0, 600.0)]),
        now(replace(APP, rate=499.0, oldest_due_at=NOW - timedelta(seconds=30))),
    ]
    assert [finding for each in quiet for finding in diagnose(each).findings] == []


def test_an_unreachable_host_is_named_and_others_send():
    lost = replace(WORKER, id=2, host="far", unreachable_apps=["shop"])
    found = diagnose(now(workers=[WORKER, lost]))
    assert found.headline == "Nothing is due, but there are problems."
    assert [each.title for each in found.findings] == ["shop: host far cannot send"]
    assert "Other workers send meanwhile" in found.findings[0].cause
    assert "dispatcher check" in found.findings[0].step

    alone = diagnose(now(workers=[lost]))
    assert alone.level is Level.STOPPED
    assert "Other workers" not in alone.findings[0].cause

    elsewhere = diagnose(now(workers=[WORKER, replace(lost, unreachable_apps=["other"])]))
    assert elsewhere.level is Level.FINE
    assert diagnose(now(workers=[WORKER, replace(lost, alive=False)])).level is Level.NOTE


def failing(line: str, host: str = "here", **more: object) -> WorkerState:
    return replace(WORKER, host=host, failing_parts=[line], **more)


def test_a_part_of_a_worker_that_fails_is_named_once_with_its_hosts():
    line = "maintenance (old rows deleted): no such table"
    workers = [failing(line, host, id=number) for number, host in enumerate(["b", "a", "b"])]
    [finding] = diagnose(now(workers=workers)).findings
    assert finding.level is Level.WARNING
    assert finding.title == "A part of a worker on a, b fails: maintenance (old rows deleted)"
    assert finding.cause == "no such table"
    assert "tried again by itself" in finding.step
    workers.append(failing("maintenance (old rows deleted): a right is missing", "c", id=9))
    workers.append(failing(line, "silent", id=10, alive=False))
    found = {each.cause: each.title for each in diagnose(now(workers=workers)).findings}
    assert " on c fails" in found["a right is missing"]
    assert " on a, b fails" in found["no such table"]


@pytest.mark.parametrize("part", ["spool", "connections"])
def test_what_a_worker_looks_at_once_takes_its_restart(part):
    [finding] = diagnose(now(workers=[failing(f"{part}: too few")])).findings
    assert "then restart the worker" in finding.step
    assert "by itself" not in finding.step


def test_a_rule_that_cannot_be_read_is_named_in_chinese():
    rules = Rules(
        unreadable_templates=frozenset({"operator"}), unreadable_limits=frozenset({"split"})
    )
    lines = [f"{part}: {why}" for part, why in rules.unreadable().items()]

    def found() -> list[str]:
        use_language("zh-CN")
        findings = diagnose(now(workers=[replace(WORKER, failing_parts=lines)])).findings
        return [f"{one.title}：{one.cause}" for one in findings]

    limits, template = copy_context().run(found)
    assert limits.startswith(
        "host 上工作进程的一个部分出错：split 的限额：这些限额无法读取，split 的短信"
    )
    assert template.startswith(
        "host 上工作进程的一个部分出错：模板 operator：该模板无法读取，使用它的短信"
    )


def test_messages_that_wait_while_nothing_is_sent_are_told():
    late = replace(APP, oldest_due_at=NOW - timedelta(minutes=3))
    found = diagnose(now(late))
    assert (found.level, found.headline) == (Level.STOPPED, "Messages are not going out.")
    assert "nothing goes out" in found.findings[0].title
    for event in ("accepted", "rejected", "deferred", "returned", "unsure"):
        assert diagnose(now(late, recent=happened(**{event: 1}))).level < Level.STOPPED
    assert diagnose(now(replace(late, sending=1))).level < Level.STOPPED


def test_reports_that_come_in_hide_no_stall():
    late = replace(APP, oldest_due_at=NOW - timedelta(minutes=3))
    others = ("delivered", "undelivered", "reported", "replied", "cancelled", "settled", "expired")
    settled = EventCount(NOW, "shop", "accepted", "settled-by-report", 5)
    recovered = EventCount(NOW, "shop", "unsure", "worker-lost", 5)
    recent = [*happened(**dict.fromkeys(others, 5)), settled, recovered]
    found = diagnose(now(late, recent=recent))
    assert (found.level, found.headline) == (Level.STOPPED, "Messages are not going out.")
    assert "nothing goes out" in found.findings[0].title
    assert diagnose(now(recent=[settled, recovered])).apps[0].sentence == "Nothing is due."
    refused = diagnose(now(recent=[*happened(rejected_E200033=50), settled]))
    assert refused.findings[0].title.endswith("rejected in ten minutes, none accepted")


@pytest.mark.parametrize(
    ("state", "title", "step"),
    [
        ("paused", "shop: the campaign May 1 is paused, and", "campaign resume 'May 1'`"),
        ("moving", "shop: the campaign May 1 is being moved", "A worker moves them"),
    ],
)
def test_a_stopped_campaign_with_due_messages_is_a_note(state, title, step):
    stopped = replace(APP, waiting=9, stopped_campaigns=[StoppedCampaign("May 1", state, "")])
    found = diagnose(now(stopped))
    (finding,) = found.findings
    assert found.headline == "Only messages of stopped campaigns are due."
    assert found.apps[0].sentence == found.headline
    assert finding.level is Level.NOTE
    assert title in finding.title
    assert step in finding.step
    sending = diagnose(now(replace(stopped, sending=1)))
    assert sending.headline == "Messages are going out."
    assert sending.apps[0].sentence == "Messages go out."
