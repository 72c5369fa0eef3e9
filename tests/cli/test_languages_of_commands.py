"""Commands speak the language of the locale; what programs read stays English."""

import csv
import json

CHINESE = "zh_CN.UTF-8"


async def test_help_is_in_the_language_of_the_locale(operate):
    chinese = await operate("settle", "--help", locale=CHINESE)
    assert "人工处置一个或多个结果未知的批次。" in chinese.out
    assert "该应用的批次。" in chinese.out
    assert "结果未知" not in (await operate("settle", "--help")).out


async def test_status_is_in_the_language_of_the_locale(operate):
    chinese = await operate("status", locale=CHINESE)
    assert "没有工作进程在运行" in chinese.out
    assert "处理方法：" in chinese.out


async def test_json_is_english_in_every_locale(operate):
    chinese = await operate("status", "--json", locale=CHINESE)
    assert json.loads(chinese.out)["findings"][0]["title"] == "No worker is running"


async def test_an_error_is_in_the_language_of_the_locale(operate):
    failed = await operate("show", "7", locale=CHINESE)
    assert (failed.code, failed.line) == (1, "dispatcher: 没有短信 7。")


async def test_refused_lines_get_chinese_reasons(operate, tmp_path):
    rows = "recipient,template_id\n+8613112345678,t\n12,t\n+8613112345679,\n"
    (tmp_path / "list.csv").write_text(rows)
    done = await operate("enqueue", tmp_path / "list.csv", locale=CHINESE)
    assert done.code == 1
    assert done.out.splitlines()[:2] == [
        "已写入 1 条短信。", "数据共 3 行：1 行已写入，2 行被拒绝。",
    ]  # fmt: skip
    (file,) = tmp_path.glob("*.rejects.csv")
    rejects = file.read_text(encoding="utf-8-sig")
    assert "recipient：过短：2 位数字" in rejects
    assert "缺少 template_id" in rejects


async def test_what_the_database_refuses_gets_chinese_reasons(operate, tmp_path):
    head = "recipient,template_id,sender,signature,idempotency_key,send_at,expires_at"
    head += "".join(f",param_{place}" for place in range(1, 22))
    cells = [
        ("t 1", "", "", "", "", ""),
        ("t", "1 2", "", "", "", ""),
        ("t", "", '"a\nb"', "", "", ""),
        ("t", "", "", "", "1999-01-01 00:00Z", ""),
        ("t", "", "", "", "", "9999-12-31 12:00Z"),
        ("t", "", "", "", "", "", *["x"] * 21),
        ("t", "", "", "", "", "", "长" * 30_000),
        ("t", "", "", "once", "", ""),
        ("t", "", "", "once", "", ""),
    ]
    rows = [(f"+861311234567{place}", *row, *[""] * 21)[:28] for place, row in enumerate(cells)]
    (tmp_path / "list.csv").write_text("\n".join([head, *map(",".join, rows)]))
    assert (await operate("enqueue", tmp_path / "list.csv", locale=CHINESE)).code == 1
    with (tmp_path / "list.rejects.csv").open(encoding="utf-8-sig", newline="") as rejects:
        assert [row["reason"] for row in csv.DictReader(rejects)] == [
            "template_id 含有空白",
            "sender 含有空白",
            "signature 含有换行",
            "send_at 不在 2000 年至 9999 年之间",
            "expires_at 不在 2000 年至 9999 年之间",
            "变量超过 20 个",
            "变量过长：最多 64 KB",
            "其 idempotency_key 已被使用过",
        ]


async def test_an_unreachable_database_is_explained_in_chinese(command):
    failed = await command("status", locale=CHINESE, DATABASE_URL="postgresql://u@127.0.0.1:1/x")
    assert failed.line == (
        "dispatcher: 127.0.0.1:1/x 没有 PostgreSQL 响应（连接被拒绝）：请启动它，"
        "或更正 DISPATCHER_DATABASE_URL。"
    )


async def test_a_code_is_explained_in_chinese(command):
    explained = await command("explain", "E200028", locale=CHINESE)
    assert "变量与模板不符" in explained.out
    assert "可以，更正变量之后" in explained.out
    assert "号码，平台" in explained.out
    assert "…" not in explained.out
    programs = await command("explain", "E200028", "--json", locale=CHINESE)
    assert programs.out == (await command("explain", "E200028", "--json")).out


async def test_a_code_of_words_is_explained_in_chinese(command):
    assert "其他任何文本" in (await command("explain", "too-long", locale=CHINESE)).out
    assert "any other text" in (await command("explain", "too-long")).out


async def test_what_a_table_says_of_a_row_is_chinese(operate, db):
    await operate("template", "add", "t1", "NUM_6", "--promotional")
    await operate("template", "add", "t2", "--text", "Hi", "--not-promotional")
    listed = (await operate("template", "list", locale=CHINESE)).out.splitlines()
    rows = {cells[0]: cells[1:] for line in listed if (cells := line.split())}
    assert (rows["t1"], rows["t2"]) == (["NUM_6", "是"], ["无", "否"])
    await db.execute(
        "INSERT INTO dispatcher.reply (digest, number, text, unsubscribed)"
        " VALUES ('x', '+8613112345678', 'R', true)"
    )
    assert "是" in (await operate("replies", locale=CHINESE)).out


async def test_one_of_two_options_is_asked_for_in_chinese(command):
    failed = await command("template", "add", "t1", locale=CHINESE)
    assert (failed.code, failed.line) == (2, "dispatcher: 请给出 --text 或 --kinds 之一。")


async def test_the_simulator_names_a_wrong_address_in_chinese(command):
    words = ("simulate", "--key", "k", "--secret", "s", "--listen", "here")
    failed = await command(*words, locale=CHINESE)
    assert (failed.code, failed.line) == (2, "dispatcher: here 不是 HOST:PORT。")
    assert (await command(*words)).line == "dispatcher: here is not HOST:PORT."


async def test_a_check_is_chinese_in_columns_and_english_for_programs(command):
    chinese = (await command("check", locale=CHINESE)).out.splitlines()
    assert chinese[0].startswith("失败  设置          没有配置应用：请设置 ")
    assert chinese[1].startswith("失败  数据库        还没有数据库：")
    assert all(ascii(line)[1:-1] == line for line in (await command("check")).out.splitlines())
    programs = await command("check", "--json", locale=CHINESE)
    assert json.loads(programs.out)[0]["subject"] == "settings"
    assert programs.out.isascii()


async def test_exported_reasons_are_chinese_in_csv_alone(operate, db):
    await db.execute(
        "WITH made AS (INSERT INTO dispatcher.message (recipient, template_id)"
        " VALUES ('+8613112345678', 't') RETURNING id)"
        " INSERT INTO dispatcher.outcome (message_id, state, attempts, code, reason)"
        " SELECT id, 'rejected', 1, 'suppressed', $1 FROM made",
        "Its number is on the list of numbers never to send to.",
    )
    assert "号码在屏蔽名单中。" in (await operate("export", "--app", "default", locale=CHINESE)).out
    programs = await operate("export", "--app", "default", "--json", locale=CHINESE)
    assert "Its number is on the list" in programs.out


async def test_an_action_and_its_audit_are_whole_chinese_sentences(operate, db):
    await db.execute(
        "INSERT INTO dispatcher.message (recipient, template_id) VALUES ('+8613112345678', 't')"
    )
    message_id = await db.fetchval("SELECT max(id) FROM dispatcher.message")
    done = await operate("cancel", str(message_id), locale=CHINESE)
    assert done.out == "1 条短信已取消。\n"
    assert "1 条中有 1 条已取消" in (await operate("audit", locale=CHINESE)).out
    assert "1 of 1 cancelled" in (await operate("audit", "--json", locale=CHINESE)).out
    done = await operate("suppress", "+8613112345678", locale=CHINESE)
    assert done.out == "1 个号码已屏蔽，从下一秒起生效。\n"
    await operate("token", "add", "Ana", "--role", "see")
    assert "从未" in (await operate("token", "list", locale=CHINESE)).out
    assert "已添加" in (await operate("audit", locale=CHINESE)).out
