"""Collects the texts that people read, and brings the catalogues up to date with them.

`./dev languages` writes new texts into the catalogues, without a translation, and removes those
that are no longer used. It prints what is still to be done.
"""

import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import jinja2
import typer.main
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from jinja2.nodes import Const, Filter

from dispatcher.cli.commands import app, help_paragraphs, help_texts
from dispatcher.core.code_table import CODE_ROWS
from dispatcher.core.codes import NUMBER, OURS, REQUEST, Kind
from dispatcher.core.format import counted
from dispatcher.core.report_matching import UNMATCHED_REASONS
from dispatcher.core.report_status import Reason
from dispatcher.core.roles import ROLES
from dispatcher.db.list_uploads import State
from dispatcher.db.message_lists import STATES
from dispatcher.settings import AppSettings

PACKAGE = Path(__file__).parents[2] / "dispatcher"
CATALOGUES = {"zh_CN": PACKAGE / "core/zh_CN.po"}
_PYTHON_KEYWORDS = {"_": None, "N_": None}
# What `event_count` counts of messages, as the console and `dispatcher status` show it.
EVENTS = (
    *("accepted", "delivered", "undelivered", "rejected", "expired", "cancelled", "deferred"),
    *("returned", "requeued", "settled", "reported", "unsure"),
)
_TEMPLATE_OPTIONS = {"trimmed": "true", "trim_blocks": "true", "lstrip_blocks": "true"}
_HEADER = """\
# Chinese of the console and the commands. `./dev languages` adds what is new and removes what is
# not used any more. One word for one thing; the terms are those of the provider's own console:
#
#   message 短信                app 应用                    signature 签名
#   template 模板               variable 变量               sender 通道号
#   recipient 接收号码          campaign 群发任务           list 名单
#   batch 批次                  request 请求                answer 响应
#   code 错误码                 accepted 已受理             delivered 已送达
#   status report 状态报告      reply 上行短信              unsubscribed 已退订
#   segment 段，分段数          enqueue 写入                queued 排队中
#   claim 领取                  deferred 已推迟             retry 重试
#   unsure 结果未知             settle 处置                 requeue 重新排队
#   send again 重新发送         pause 暂停                  resume 恢复
#   probe 探测                  circuit 熔断                rate 速率
#   rate limit 限流             limit 限额                  limit of the provider 上限
#   suppress 屏蔽               block list 黑名单           blocked word 敏感词
#   masked 脱敏                 quiet hours 免打扰时段      worker 工作进程
#   silent 失联                 endpoint 接入地址           provider id 服务商消息 ID
#   provider 服务商             carrier 运营商              operator 运维人员
#   country 国家/地区           mainland 中国大陆           dialling code 国家码
#   migration 迁移              apply it 执行               fail-over 故障切换
#
# A blank stands between Chinese and Latin letters or figures, and none between two Chinese words;
# punctuation of a Chinese sentence is full-width.
#"""
# What a translation must keep as it is: fields, code, names of settings, options.
_KEPT = re.compile(r"\{\w*\}|%\(\w+\)[sd]|`[^`]*`|DISPATCHER_[A-Z_<>]+|--[a-z][a-z-]+|<[^>]*>")

# Words for which the glossary has another; Hong Kong is in the list of 国家/地区.
_AVOIDED = {
    "打码": "脱敏", "内地": "中国大陆", "批量任务": "群发任务", "回执": "状态报告",
    "屏蔽词": "敏感词", "限速": "限流", "账户": "账号",
}  # fmt: skip
_COUNTRY_ALONE = re.compile("国家(?!/地区|码)")
_SECOND_TIME = re.compile(r"\bagain\b|\bresen[dt]", re.IGNORECASE)  # where 重新发送 stands rightly
_BLANK_BETWEEN = re.compile("[\u4e00-\u9fff] [\u4e00-\u9fff]")
_NO_BLANK = re.compile("[\u4e00-\u9fff][A-Za-z0-9`$]|[A-Za-z0-9`%][\u4e00-\u9fff]")
_FIELDS = re.compile(r"%\(\w+\)[sd]|(?<!\$)\{\w*\}")
_HALF_WIDTH = re.compile("[\u4e00-\u9fff）][,;?!]")


def texts() -> dict[str, str]:
    """Return every text that is to be translated, with one place where it is used."""
    found: dict[str, str] = {}
    for place, text in (*of_code(), *_of_templates(), *_of_tables()):
        found.setdefault(text, place)
    return found


def of_code() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield from _extracted("python", path, _PYTHON_KEYWORDS, {})
        for place, noun in _extracted("python", path, {"plural": (2,)}, {}):
            yield place, counted(noun)


def _of_templates() -> Iterator[tuple[str, str]]:
    environment = jinja2.Environment(
        extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True
    )
    for path in sorted((PACKAGE / "console/templates").iterdir()):
        keywords = {"_": None, "gettext": None, "ngettext": (1, 2)}
        yield from _extracted("jinja2.ext:babel_extract", path, keywords, _TEMPLATE_OPTIONS)
        for node in environment.parse(path.read_text("utf-8")).find_all(Filter):
            if node.name == "plural" and isinstance(node.args[0], Const):
                yield path.name, counted(node.args[0].value)


def _extracted(
    method: str, path: Path, keywords: dict[str, object], options: dict[str, str]
) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        for line, message, *_rest in extract(method, file, keywords, (), options):
            for text in (message,) if isinstance(message, str) else message:
                yield f"{path.relative_to(PACKAGE)}:{line}", text


def _of_tables() -> Iterator[tuple[str, str]]:
    """Yield the texts of tables, which are translated where a table is read."""
    for table in (NUMBER, REQUEST, OURS):
        for code in table.values():
            yield from (("core/codes.py", text) for text in (code.meaning, code.advice))
    for row in CODE_ROWS:
        words = (row.source, row.meaning, row.result, row.again, row.advice, row.concerns)
        charged = (row.charged_by_delivery, row.charged_by_sending)
        yield from (("core/codes.tsv", text) for text in (*words, *charged) if text)
    for field in AppSettings.model_fields.values():
        if field.description:
            yield "settings/models.py", field.description
    words = [
        *UNMATCHED_REASONS.values(),
        *STATES,
        *EVENTS,
        *Kind,
        *Reason,
        *get_args(State),
        *ROLES,
    ]
    yield from (("tables", str(text)) for text in words)
    yield from (("core/explain.py", state.capitalize()) for state in STATES)
    for _owner, _name, text in help_texts(typer.main.get_command(app)):
        yield from (("--help", paragraph) for paragraph in help_paragraphs(text))


def complaints(language: str) -> list[str]:
    """Return what the catalogue of *language* lacks, and translations that changed code."""
    catalogue = _read(language)
    found = []
    wanted = texts()
    for text, place in wanted.items():
        translation = catalogue.get(text, "")
        if not translation:
            found.append(f"{language}: no translation of {text!r} ({place})")
        elif sorted(_KEPT.findall(text)) != sorted(_KEPT.findall(translation)):
            found.append(f"{language}: fields and code differ: {text!r} and {translation!r}")
        found += [f"{language}: {what}: {translation!r}" for what in style_of(text, translation)]
    unused = catalogue.keys() - wanted.keys()
    return found + [f"{language}: not used any more: {text!r}" for text in sorted(unused)]


def style_of(text: str, translation: str) -> list[str]:
    """Return what the glossary at the head of a catalogue has against a translation of *text*."""
    found = [f"{word} is {better}" for word, better in _AVOIDED.items() if word in translation]
    if _COUNTRY_ALONE.search(translation) and not _COUNTRY_ALONE.search(text):
        found.append("国家 is 国家/地区")
    if "重新发送" in translation and not _SECOND_TIME.search(text):
        found.append("重新发送 is send again")
    chinese = bool(re.search("[\u4e00-\u9fff]", text))  # an example of what users write
    if _BLANK_BETWEEN.search(translation) and not chinese:
        found.append("a blank between two Chinese words")
    if _NO_BLANK.search(_FIELDS.sub("{}", translation)) and not chinese:
        found.append("no blank between Chinese and Latin letters or figures")
    if _HALF_WIDTH.search(translation) and not chinese:
        found.append("half-width punctuation after Chinese")
    return found


def _read(language: str) -> dict[str, str]:
    with CATALOGUES[language].open("rb") as file:
        return {str(each.id): str(each.string) for each in read_po(file) if each.id}


def update(language: str) -> None:
    """Write the catalogue of *language* with every text, sorted, and its translation if any."""
    known = _read(language) if CATALOGUES[language].exists() else {}
    CATALOGUES[language].write_bytes(catalogue_of(language, texts(), known))


def catalogue_of(language: str, wanted: Iterable[str], known: dict[str, str]) -> bytes:
    """Return a catalogue as a file; without dates and places, so that branches merge."""
    catalogue = Catalog(language, header_comment=_HEADER, fuzzy=False)
    for text in wanted:
        catalogue.add(text, known.get(text, ""))
    file = io.BytesIO()
    write_po(file, catalogue, width=96, no_location=True, sort_output=True, omit_header=True)
    head = f'{_HEADER}\nmsgid ""\nmsgstr ""\n"Language: {language}\\n"\n'
    return (head + '"Content-Type: text/plain; charset=utf-8\\n"\n\n').encode() + file.getvalue()


if __name__ == "__main__":
    for each in CATALOGUES:
        update(each)
    sys.exit("\n".join(line for each in CATALOGUES for line in complaints(each)) or None)
