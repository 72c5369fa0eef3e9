"""Texts are English where nothing was chosen, and in the catalogue where something was."""

import contextvars
import inspect
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lint.languages import CATALOGUES, complaints, of_code, style_of

from dispatcher.console.list_pages import LINES
from dispatcher.core.circuit import (
    CircuitLimits,
    CircuitState,
    Refused,
    SlowStart,
    Unknown,
    change,
)
from dispatcher.core.codes import number_code, request_code
from dispatcher.core.format import duration, plural
from dispatcher.core.language import (
    LANGUAGES,
    _,
    accepted_language,
    language,
    locale_language,
    use_language,
    with_stop,
)
from dispatcher.core.report_status import report_status
from dispatcher.core.roles import shown_name
from dispatcher.core.stored_texts import FAILING_PARTS, stored_text, suppression_reason
from dispatcher.core.templates import Template, template_mismatch
from dispatcher.db import workers
from dispatcher.lists.shown_texts import LIST_TEXTS, list_text
from dispatcher.settings import load_settings
from dispatcher.worker import maintenance, recovery


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_text_has_a_translation_with_the_same_fields(catalogue):
    assert complaints(catalogue) == []


@pytest.mark.parametrize(
    ("translation", "complaint"),
    [
        ("号码打码。", "打码 is 脱敏"),
        ("每个国家的价格", "国家 is 国家/地区"),
        ("每个国家/地区的价格，国家码", None),
        ("已取消 短信", "a blank between two Chinese words"),
        ("写入3 条短信", "no blank between Chinese and Latin letters or figures"),
        ("共 %(count)s条", None),  # with a measure word of its own
        ("见CSV 文件", "no blank between Chinese and Latin letters or figures"),
        ("先检查,再写入", "half-width punctuation after Chinese"),
        ("写入 3 条短信（CSV）；`dispatcher status` 显示状态。", None),
    ],
)
def test_the_glossary_holds_for_each_translation(translation, complaint):
    assert style_of("a text", translation) == [complaint] * bool(complaint)


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("Its messages go out at once.", False), ("Resend it.", True), ("It is sent again.", True)],
)
def test_only_what_is_sent_a_second_time_is_said_to_be(text, is_right):
    assert style_of(text, "会重新发送。") == ["重新发送 is send again"] * (not is_right)


def test_every_language_but_english_has_a_catalogue():
    assert {*CATALOGUES} == {tag.replace("-", "_") for tag in LANGUAGES} - {"en"}


def test_a_choice_of_language_holds_in_its_context_only():
    def chinese() -> tuple[str, str, str]:
        use_language("zh-CN")
        return _("Log in"), plural(2, "message"), duration(125)

    assert contextvars.copy_context().run(chinese) == ("登录", "2 条短信", "2 分钟")
    assert (language(), _("Log in")) == ("en", "Log in")
    assert (plural(2, "message"), duration(125)) == ("2 messages", "2 min")


def test_a_text_without_translation_stays_english():
    def chinese() -> str:
        use_language("zh-CN")
        return _("no such text is in the catalogue")

    assert contextvars.copy_context().run(chinese) == "no such text is in the catalogue"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("zh;q=0.5, en;q=0.7", "en"),
        ("zh-Hant-TW", "zh-CN"),
        ("de, fr;q=0.9, zh;q=0.2", "zh-CN"),
        ("zh;q=0, de", "en"),
        ("zh;q=x", "en"),
        ("*", "en"),
        (";;,,=", "en"),
    ],
)
def test_a_browser_gets_the_language_it_prefers(header, expected):
    assert accepted_language(header) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C.UTF-8", "LC_MESSAGES": "zh_CN"}, "zh-CN"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh-CN"),
    ],
)
def test_a_command_speaks_the_language_of_its_locale(environ, expected):
    assert locale_language(environ) == expected


def in_chinese(function, *arguments):
    def chinese():
        use_language("zh-CN")
        return function(*arguments)

    return contextvars.copy_context().run(chinese)


def test_the_words_of_codes_are_in_the_readers_language():
    assert number_code("E200028").meaning == "The variables do not fit the template."
    assert in_chinese(number_code, "E200028").meaning == "变量与模板不符。"
    assert in_chinese(request_code, "HTTP 451").meaning.endswith("拒绝了请求：HTTP 451。")
    assert in_chinese(report_status, "DELIVRD").meaning == "已送达手机终端。"
    assert in_chinese(report_status, "MK:9998").meaning.endswith("：MK:9998。")
    assert in_chinese(number_code, "E200028").kind is number_code("E200028").kind


def test_tables_stay_english_when_first_used_in_chinese():
    program = (
        "from dispatcher.core.language import use_language; use_language('zh-CN');"
        "from dispatcher.core.report_status import STATUSES;"
        "from dispatcher.core.codes import NUMBER;"
        "print(STATUSES['DELIVRD'].meaning, NUMBER['E200028'].meaning)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"Arrived on the handset. The variables do not fit the template.\n"


ROW = number_code("too-long")


@pytest.mark.parametrize(
    ("stored", "chinese"),
    [
        (f"{ROW.meaning} {ROW.advice}", "单条短信的请求就超过 64 KB。缩短 params，重新写入。"),
        (
            "Too many messages wait at the provider; it did not take this one. That was attempt 9.",
            "服务商积压的短信过多，未受理此短信。这是第 9 次尝试。",
        ),
        ("Variable 2 is no NUM_6: digits only, at most 6.",
         "第 2 个变量不是 NUM_6：只能是数字，最多 6 位。"),
        ("It has 1 variable, and the template takes 2.", "有 1 个变量，而模板需要 2 个。"),
        ("3 of 5 cancelled", "5 条中有 3 条已取消"),
        ("An unknown code: X1.", "未知错误码：X1。"),
        ("20000 messages accepted in an hour, and at most 10 in any hour of the last 30 days",
         "一小时内受理了 20000 条短信，而最近 30 天内任何一小时最多 10 条"),
        ("7 of 9 finished messages were rejected or undelivered: over its limit of 5.0%",
         "已完成的 9 条短信中有 7 条被拒绝或未送达，超过上限 5.0%"),
        ('The signature is wrong. It said: "no. 7".', "鉴权签名不正确。响应内容：“no. 7”。"),
        ("no reason given (Ana (shared token))", "未说明原因（Ana（共享令牌））"),
        ("no reason given (ben)", "未说明原因（ben）"),
        ("odd texts (Ana (shared token))", "odd texts（Ana，共享令牌）"),
        ("odd texts (ben)", "odd texts (ben)"),
        ("not done: there is no campaign no", "未执行：没有群发任务 no"),
        ("not done: campaign paused is cancelled for good", "未执行：群发任务 paused 已永久取消"),
        ("An unknown code: worker.", "未知错误码：worker。"),
        ("whole numbers", "完整号码"),
        ("all lines again", "所有行，再次导入"),
        ("2 left: on their way, or unsure", "保留 2 条：正在发送，或结果未知"),
        ("a value cannot be processed (DataError 22003)", "有一个值无法处理（DataError 22003）"),
        ("Waiting for Ana. See the ticket.", "Waiting for Ana. See the ticket."),
        ("", ""),
    ],
)  # fmt: skip
def test_stored_texts_are_shown_in_the_readers_language(stored, chinese):
    assert in_chinese(stored_text, stored) == chinese
    assert stored_text(stored) == stored


@pytest.mark.parametrize("text", ["x. " * 1_000, "a " * 1_000, " of " * 1_000, "x. " * 9])
def test_a_long_text_from_outside_stays_as_it_is(text):
    assert in_chinese(stored_text, text) == text


@pytest.mark.parametrize(
    "piece", ["x. ", " of ", "not done: ", "An unknown code: ", '. It said: "']
)
def test_a_text_from_outside_is_shown_at_once(piece):
    begun = time.process_time()
    in_chinese(stored_text, piece * 1_000)
    in_chinese(stored_text, piece * (600 // len(piece)))
    assert time.process_time() - begun < 1


def test_stored_texts_are_those_that_core_writes():
    template = Template("t", ["NUM_6", "TXT_5", "TEXT", "PHONE", "CHARDIGIT", "MONEY"])
    fitting = ["1", "a", "a", "1", "a", "1"]
    for place, wrong in enumerate(["x", "{", "<", "x", "-", "x"]):
        params = [*fitting[:place], wrong, *fitting[place + 1 :]]
        assert "变量不是" in in_chinese(stored_text, template_mismatch(template, params))
    assert "而模板需要" in in_chinese(stored_text, template_mismatch(template, ["1", "2"]))


def test_reasons_of_pauses_are_in_the_readers_language():
    lost = Unknown("HTTP 502", "A proxy lost the API over the request.")
    limits, slow = CircuitLimits(unknown=3, refused=5), SlowStart(4, left=0, answered=2)
    again = CircuitState(slow_start=slow)
    for state, signals in (
        (CircuitState(), [lost] * 3),
        (again, [lost]),
        (CircuitState(), [Refused(text, "E000027", "") for text in range(5)]),
        (
            CircuitState(),
            [Refused(text, "E000027", "The signature is wrong.") for text in range(5)],
        ),
    ):
        pause = change(state, signals, limits).pause
        chinese = in_chinese(stored_text, pause.reason)
        assert re.findall("[a-z]{3,}", chinese) == [], chinese


class OldQueue:
    """A connection to a database in which messages of one app wait."""

    async def fetch(self, *_: object) -> list[dict[str, str]]:
        return [{"app": "shop"}]

    async def execute(self, *_: object) -> None:
        pass


async def test_what_is_stored_after_a_restore_is_in_the_readers_language():
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    for is_known, begin in ((True, "数据库是从备份恢复的：缺少"), (False, "数据库可能是从备份")):
        _apps, why = await workers._pause_old_queue(OldQueue(), workers.Absence(at, at, is_known))
        assert in_chinese(stored_text, why).startswith(begin)
        shown = in_chinese(stored_text, f"{why} (dispatcher run)")  # as pause() stores it
        assert shown.startswith(begin)
        assert re.findall("[A-Za-z]+", shown) == ["UTC", "dispatcher", "run"]
    assert in_chinese(list_text, workers.LOAD_ENDED).startswith("导入此名单期间数据库可能从备份")


def test_every_part_that_may_fail_has_a_name_in_the_readers_language():
    named = load_settings({"DISPATCHER_RETENTION": "30d", "DISPATCHER_WIPE_PARAMS_AFTER": "1d"})
    names = {f"maintenance ({step})" for step in maintenance._steps(named, None)}
    assert len(names) > 13
    source = inspect.getsource(recovery)
    steps = source[source.index("    steps: dict[str, Step]") : source.index("    while not stop")]
    found = re.findall(r'^        "([^"]+)": ', steps, re.MULTILINE)
    assert len(found) == 5
    names |= {f"recovery ({step})" for step in found}
    for name in (*names, "spool", "connections", "reports", "events"):
        shown = in_chinese(stored_text, name, FAILING_PARTS)
        assert not re.search("[A-Za-z]", shown), shown


@pytest.mark.parametrize(
    "result",
    [
        *("whole numbers", "dropped", "erased", "revoked", "there is no such token", "defined"),
        *LINES.values(),
    ],
)
def test_a_result_in_the_audit_is_in_the_readers_language(result):
    assert not re.search("[A-Za-z]", in_chinese(stored_text, result))


def test_texts_that_statements_store_are_in_the_catalogue():
    root = Path(__file__).parents[2]
    columns = "description|settled_by|paused_by|pause_reason"
    stored = re.compile(
        rf"(?:{columns}) = (?:CASE WHEN [^']*'[^']*'[^']*'[^']*' THEN )?'([^']+)'"
        r"|coalesce\(a\.pause_reason, '([^']+)'\)|true, '([^']+)', '([^']+)'"
    )
    found = set()
    for file in [*(root / "dispatcher/db/sql").glob("*.sql"), *(root / "migrations").glob("*.sql")]:
        for groups in stored.findall(file.read_text()):
            found |= {each for each in groups if each}
    assert {"late answer", "worker", "its worker", "unsubscribed by a reply"} <= found
    assert len(found) > 10
    missing = {each for each in found if in_chinese(stored_text, each) == each}
    assert missing - {"operator: "} == set()  # what follows it is a value


def test_reasons_of_the_client_are_in_the_catalogue():
    source = (Path(__file__).parents[2] / "dispatcher/provider/client.py").read_text()
    body = source[source.index("def _no_reply") : source.index("def _clock_skew")]
    texts = re.findall(r'(?:reason = |NoReply\(|return |\w: )f?"([^"]+)"', body)
    texts += re.findall(r'get\(code, "([^"]+)"\)', body)
    assert len(texts) > 12
    why = "{why_unconnected(error)}"
    values = {why: "timed out", "{what}": "answer", "{timeout:g}": "5", "{error.status}": "407"}
    for text in texts:
        for field, value in values.items():
            text = text.replace(field, value)  # noqa: PLW2901
        chinese = in_chinese(stored_text, text)
        assert re.search("[\u4e00-\u9fff]", chinese), text


def test_an_error_ends_with_the_full_stop_of_its_language():
    assert with_stop(ValueError("wrong")) == "wrong."
    assert in_chinese(with_stop, "错误") == "错误。"


def test_the_reason_of_a_suppression_keeps_its_status():
    status = report_status("MK:0012")
    shown = in_chinese(suppression_reason, f"MK:0012: {status.meaning}")
    assert shown == f"MK:0012：{in_chinese(report_status, 'MK:0012').meaning}"
    assert shown != f"MK:0012：{status.meaning}"
    for text in ("asked: by phone", "asked by phone", ""):
        assert in_chinese(suppression_reason, text) == text
        assert suppression_reason(text) == text


def test_an_operator_with_the_shared_token_is_marked():
    assert shown_name("Ana (shared token)") == "Ana (shared token)"
    assert in_chinese(shown_name, "Ana (shared token)") == "Ana（共享令牌）"
    assert in_chinese(shown_name, "operator") == "operator"


def test_stored_texts_of_lists_are_those_of_their_reader():
    files = ["core/number.py", "lists/"]
    written = {
        text
        for place, text in of_code()
        if place.startswith(tuple(files)) and re.search(r"\{\w+\}", text) and "{4," not in text
    }
    assert {*LIST_TEXTS} == written
    assert in_chinese(list_text, "recipient: it is too short: 2 digits") == (
        "recipient：过短：2 位数字"
    )
