"""A list that was corrected: its rejects, and the original, loaded without sending twice."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openpyxl
import pytest

from dispatcher.lists.rejects import safe_cell

FILES = Path(__file__).parent / "files"
GOOD = "+8613112345678"
HEADER = "recipient,template_id,param_1"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return path


def rows(path: Path, encoding: str = "utf-8-sig") -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding), newline="")))


async def drop_messages(db) -> None:
    """Drop the first partition, as retention does when it is full."""
    first, past = await db.fetchrow("SELECT * FROM dispatcher.partitions() LIMIT 1")
    for table in ("message", "outcome"):
        await db.execute(f"DROP TABLE dispatcher.{table}_{first}_to_{past}")
    await db.execute("TRUNCATE dispatcher.queue, dispatcher.bulk")
    await db.execute("SELECT setval('dispatcher.message_id', $1)", past - 1)


async def age_loads(db, age: str) -> None:
    await db.execute(
        f"UPDATE dispatcher.file_import SET started_at = started_at - interval '{age}'"
    )


def saved_by_excel(path: Path, encoding: str, *, without: str = "\0") -> None:
    """Write the file as Excel does after it opened it: formulas become what they show."""
    text = io.StringIO(newline="")
    shown = [
        [(cell[2:-1] if cell.startswith('="') else cell).replace(without, "") for cell in row]
        for row in rows(path)
    ]
    csv.writer(text).writerows(shown)
    path.write_bytes(text.getvalue().encode(encoding))


async def test_rejects_open_in_excel_without_a_changed_cell(operate, tmp_path):
    file = write(
        tmp_path / "x.csv",
        "+86 131 1,t1,062569",
        "bad,t1,100000",
        "bad,t1,1-2",
        "bad,t1,=1+1",
        "bad,t1,@SUM(A1)",
        "bad,t1,'quoted",
        "bad,t1,-东",
    )
    assert (await operate("enqueue", file)).code == 1
    rejects = tmp_path / "x.rejects.csv"
    assert rejects.read_bytes().startswith(b"\xef\xbb\xbf")
    assert [row[2] for row in rows(rejects)[:2]] == ["recipient", '="+86 131 1"']
    assert [row[4] for row in rows(rejects)[1:]] == [
        '="062569"', "100000", '="1-2"', "'=1+1", "'@SUM(A1)", "''quoted", "'-东",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
async def test_rejects_that_excel_saved_give_the_cells_of_the_original(
    operate, db, tmp_path, encoding
):
    texts = [
        "062569", "=1+1", "@SUM(A1)", "'quoted", "-东门公园", "滨江公园便利店", "1-2", "MAR1", "-5",
        "(5)", ".5", "true", "¥1234.5", "5月1日", "\uff11\uff12", "5" * 300,
    ]  # fmt: skip
    file = write(tmp_path / "x.csv", *(f"bad{at},t1,{text}" for at, text in enumerate(texts)))
    assert (await operate("enqueue", file)).code == 1
    rejects = tmp_path / "x.rejects.csv"
    saved_by_excel(rejects, encoding)
    corrected = rejects.read_text(encoding).replace("bad", "+8613100000")
    for at in range(len(texts)):
        corrected = corrected.replace(f"+8613100000{at},", f"+86131000000{at:02},")
    rejects.write_bytes(corrected.encode(encoding))
    ended = await operate("enqueue", rejects)
    assert ended.code == 0, ended
    loaded = await db.fetch("SELECT params[1] FROM dispatcher.message ORDER BY id")
    assert [row[0] for row in loaded] == texts


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        *((cell, f'="{cell}"') for cell in ("MAR1", "SEP-2", "(5)", ".5", "¥1,234.5", "5月1日")),
        *(
            (cell, f'="{cell}"')
            for cell in ("TRUE", " false ", "\uff11\uff12", "-(5)", "{4,East}", "tpl5")
        ),
        *((cell, cell) for cell in ("123456789", "0", "truely", '["5","East"]', "5\n6", "王小二")),
        *((cell, f"'{cell}") for cell in ("=5", "@5", "'5", "\t5", "-东", "5" * 256)),
    ],
)
def test_a_cell_that_a_spreadsheet_changes_is_a_text(cell, written):
    assert safe_cell(cell) == written


async def test_lines_of_an_open_quote_are_loaded_from_the_rejects(operate, db, tmp_path):
    for name, lines in (
        ("f28-unbalanced-quote.csv", 7),
        ("g06-unbalanced-quote-in-header.csv", 3_000),
    ):
        rejects = tmp_path / f"{name}.rejects.csv"
        assert (await operate("enqueue", FILES / name, "--rejects", rejects)).code == 1
        saved_by_excel(rejects, "utf-8-sig", without='"')
        ended = await operate("enqueue", rejects)
        assert ended.out.startswith(f"{lines:,} messages enqueued.")
    assert await db.fetchval("SELECT count(DISTINCT recipient) FROM dispatcher.message") == 3_007


async def test_the_corrected_original_loads_only_the_rest(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    file = write(tmp_path / "list.csv", *lines, "1310000,t1,9")
    assert (await operate("enqueue", file)).code == 1
    mended = tmp_path / "mended.csv"
    text = "\r\n".join((HEADER, *lines, "13100000009,t1,9", ""))
    mended.write_bytes(b"\xef\xbb\xbf" + text.encode())
    ended = await operate("enqueue", mended)
    assert ended.code == 1
    assert "9 of 10 messages" in ended.err
    assert "--rest enqueues only the others" in ended.err
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 9
    dry = await operate("enqueue", mended, "--dry-run", "--rest")
    assert dry.out.startswith("1 message would be enqueued.\n")
    ended = await operate("enqueue", mended, "--rest")
    assert ended.out.startswith("1 message enqueued.\n10 lines of data: 1 enqueued, 9 left out.")
    assert (
        await db.fetchval(
            "SELECT count(DISTINCT recipient) FROM dispatcher.queue JOIN"
            " dispatcher.message USING (id)"
        )
        == 10
    )


async def test_what_was_cancelled_is_not_in_already(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    await operate("enqueue", write(tmp_path / "wrong.csv", *lines))
    await db.execute("SELECT dispatcher.cancel(array_agg(id)) FROM dispatcher.queue")
    ended = await operate("enqueue", write(tmp_path / "again.csv", *lines, f"{GOOD},t1,x"))
    assert (ended.code, ended.out) == (0, "10 messages enqueued.\n")


async def test_a_few_that_are_in_are_said_and_loaded(operate, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    await operate("enqueue", write(tmp_path / "x.csv", *lines[:2]))
    ended = await operate("enqueue", write(tmp_path / "y.csv", *lines))
    assert ended.out.startswith(
        "9 messages enqueued.\n2 messages enqueued a second time: in since "
    )


async def test_many_that_are_in_are_never_loaded_twice_unasked(operate, db, tmp_path):
    lines = [f"+86131{at:08d},t1,x" for at in range(2_500)]
    assert (await operate("enqueue", write(tmp_path / "x.csv", *lines[:1_000]))).code == 0
    ended = await operate("enqueue", write(tmp_path / "y.csv", *lines))
    assert (ended.code, ended.out) == (1, "")
    assert "1,000 of 2,500 messages of " in ended.err
    assert (await operate("enqueue", tmp_path / "y.csv", "--rest")).code == 0
    assert await db.fetchval("SELECT count(DISTINCT recipient) FROM dispatcher.message") == 2_500


@pytest.mark.parametrize("wipe", [False, True])
async def test_a_corrected_list_is_not_sent_again(operate, db, tmp_path, wipe):
    lines = [f"+8613100000{at:03d},t1,{at}" for at in range(20)]
    file = write(tmp_path / "x.csv", *lines[:5], *("1,t1,0",) * 15)
    assert (await operate("enqueue", file)).code == 1
    if wipe:
        await db.execute("UPDATE dispatcher.message SET params = '{}', wiped_at = now()")
    write(file, *lines)
    for dry_run in ((), ("--dry-run",)):
        ended = await operate("enqueue", file, *dry_run)
        assert (ended.code, "--rest enqueues only the others" in ended.err) == (1, True), ended
        told = ended.out + ended.err
        assert ("variables of 5 of those" in told) is wipe
    assert ended.out.startswith("15 messages would be enqueued with --rest.\n")
    assert "\n5 messages left out: in since " in ended.out
    ended = await operate("enqueue", file, "--rest")
    assert ended.out.startswith("15 messages enqueued.\n20 lines of data: 15 enqueued, 5 left out.")
    assert await db.fetchval("SELECT count(DISTINCT recipient) FROM dispatcher.message") == 20
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 20


async def test_a_daily_list_is_another_one_by_its_reference(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a", "+8613112345679,t1,b")
    assert (await operate("enqueue", file)).code == 0
    await db.execute("UPDATE dispatcher.message SET params = '{}', wiped_at = now()")
    write(file, f"{GOOD},t1,c", "+8613112345679,t1,d")
    assert (await operate("enqueue", file)).code == 1
    ended = await operate("enqueue", file, "--reference", "today")
    assert (ended.code, ended.out.splitlines()[0]) == (0, "2 messages enqueued.")


async def test_rejects_mended_in_two_rounds_are_sent_once(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,x", *(f"bad{at},t1,{at}" for at in range(10)))
    assert (await operate("enqueue", file)).code == 1
    rejects = tmp_path / "x.rejects.csv"
    text = rejects.read_text("utf-8-sig")
    for at in range(4):
        text = text.replace(f'bad{at}"', f'+861310000000{at}"')
    rejects.write_text(text, "utf-8-sig")
    for name in ("x.rejects.csv", "x.rejects-2.csv", "other.csv"):  # the last: by its campaign
        round_two = tmp_path / name
        round_two.write_text(text, "utf-8-sig")
        ended = await operate("enqueue", round_two, "--campaign", "x.csv")
        if name == "x.rejects.csv":
            assert ended.out.startswith("4 messages enqueued.")
            for at in range(4, 10):
                text = text.replace(f'bad{at}"', f'+861310000000{at}"')
        else:
            assert f"4 of 10 messages of {round_two} are in already" in ended.err, name
    ended = await operate("enqueue", round_two, "--campaign", "x.csv", "--rest")
    assert ended.out.startswith("6 messages enqueued.")
    assert await db.fetchval("SELECT count(DISTINCT recipient) FROM dispatcher.message") == 11
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 11


async def test_a_list_with_most_of_an_earlier_one_is_that_list(operate, tmp_path):
    lines = [f"+8613100000{at:03d},t1,{at}" for at in range(60)]
    first = write(tmp_path / "x.csv", *lines[:11])
    assert (await operate("enqueue", first)).code == 0
    ended = await operate("enqueue", write(tmp_path / "y.csv", *lines))
    assert (ended.code, "11 of 60 messages of " in ended.err) == (1, True)
    ended = await operate("enqueue", write(tmp_path / "z.csv", *lines[6:]))  # not most of it
    assert (ended.code, ended.out.splitlines()[0]) == (0, "54 messages enqueued.")


async def test_lines_refused_for_a_missing_option_are_loaded(operate, db, tmp_path):
    header = "recipient,template_id,send_at\n"
    zoned = "+8613100000001,t1,2036-12-01 09:00+08:00\n"
    file = tmp_path / "x.csv"
    file.write_text(header + zoned + "+8613100000002,t1,2036-12-01 09:00\n", encoding="utf-8")
    assert (await operate("enqueue", file)).out.startswith("1 message enqueued.")
    await db.execute("UPDATE dispatcher.file_import SET started_at = now() - interval '9 days'")
    ended = await operate("enqueue", file, "--zone", "Asia/Shanghai")
    assert (ended.code, ended.out) == (1, "")
    assert "x.csv is in already, since " in ended.err
    assert "--rest enqueues only what is not in" in ended.err
    assert (
        f"Lines of it were refused, 1, each with its reason in {file.with_suffix('')}.rejects"
        in (ended.err.replace("\n", " "))
    )
    dry = await operate("enqueue", file, "--zone", "Asia/Shanghai", "--dry-run")
    assert (dry.code, dry.out.splitlines()[0]) == (1, "1 message would be enqueued with --rest.")
    await drop_messages(db)
    for left in (1, 0):
        ended = await operate("enqueue", file, "--zone", "Asia/Shanghai", "--rest")
        assert (ended.code, ended.out.split(" ")[0]) == (0, str(left)), ended
    assert await db.fetchval("SELECT recipient FROM dispatcher.message") == "+8613100000002"
    campaigns = await db.fetch("SELECT name FROM dispatcher.campaign")
    assert [row["name"] for row in campaigns] == ["x.csv"]


async def test_a_list_of_which_nothing_is_in_is_loaded_again(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    text = "recipient,template_id,send_at\n+8613100000002,t1,2036-12-01 09:00\n"
    file.write_text(text, encoding="utf-8")
    assert (await operate("enqueue", file)).out.startswith("0 messages enqueued.")
    ended = await operate("enqueue", file, "--zone", "Asia/Shanghai")
    assert (ended.code, ended.out) == (0, "1 message enqueued.\n")
    assert await db.fetchval("SELECT campaign FROM dispatcher.message") == "x.csv"
    assert await db.fetchval("SELECT count(*) FROM dispatcher.file_import") == 1


async def test_the_rest_of_a_cancelled_list_is_what_was_cancelled(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    file = write(tmp_path / "x.csv", *lines)
    assert (await operate("enqueue", file)).code == 0
    await db.execute("SELECT dispatcher.cancel(array_agg(id)) FROM dispatcher.queue WHERE id > 4")
    ended = await operate("enqueue", file, "--rest")
    waiting = await db.fetchval("SELECT count(*) FROM dispatcher.queue")
    sent = await db.fetchval(
        "SELECT count(DISTINCT m.recipient) FROM dispatcher.message m"
        " LEFT JOIN dispatcher.outcome o ON o.message_id = m.id WHERE o.state IS NULL"
    )
    assert (ended.out.splitlines()[0], sent) == ("5 messages enqueued.", 9), waiting


async def test_what_is_cancelled_counts_from_the_command_on(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", *(f"+861310000000{at},t1,{at}" for at in range(9)))
    assert (await operate("enqueue", file)).code == 0
    await db.execute("SELECT dispatcher.cancel_campaign('x.csv')")
    ended = await operate("enqueue", file, "--rest")
    assert (ended.code, ended.out.splitlines()[0]) == (0, "9 messages enqueued."), ended


async def test_one_patient_of_a_daily_list_does_not_stop_it(operate, db, tmp_path):
    rows = [f"+8613100000{at:03d},t1,{at}" for at in range(30)]
    file = write(tmp_path / "x.csv", *rows)
    assert (await operate("enqueue", file)).code == 0
    await db.execute("UPDATE dispatcher.message SET params = '{}', wiped_at = now()")
    write(file, *(f"+8613100001{at:03d},t1,{at}" for at in range(30)), "+8613100000007,t1,x")
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out.splitlines()[0]) == (0, "31 messages enqueued."), ended
    assert "1 message enqueued a second time: in since" in ended.out
    assert "variables of 1 of those" in ended.out


async def test_a_list_of_each_day_goes_in_when_others_are_wiped(operate, db, tmp_path):
    for day in range(3):
        file = write(tmp_path / "x.csv", f"{GOOD},t1,{day}", f"+8613112345679,t1,{day}")
        if day == 2:
            await db.execute("UPDATE dispatcher.message SET params = '{}', wiped_at = now()")
            ended = await operate("enqueue", file, "--rest", "--dry-run")
            assert ended.out.startswith("0 messages would be enqueued.")
        ended = await operate("enqueue", file)
        assert (ended.code, ended.out.splitlines()[0]) == (0, "2 messages enqueued."), ended
        assert "second time" not in ended.out


async def test_a_list_of_each_week_goes_in(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    assert (await operate("enqueue", write(tmp_path / "x.csv", *lines))).code == 0
    await age_loads(db, "167 hours 59 min")
    ended = await operate("enqueue", write(tmp_path / "x.csv", *reversed(lines)))
    assert ended.out.splitlines()[0] == "9 messages enqueued.", ended
    await age_loads(db, "5 days")
    ended = await operate("enqueue", write(tmp_path / "x.csv", *lines[:5]))
    assert (ended.code, "5 of 5 messages of " in ended.err) == (1, True), ended


async def test_a_file_is_known_after_its_rest_was_empty(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a", "+8613112345679,t1,b", "bad,t1,c")
    assert (await operate("enqueue", file)).out.startswith("2 messages enqueued.")
    for _ in range(2):
        ended = await operate("enqueue", file, "--rest")
        assert ended.out.splitlines()[0] == "0 messages enqueued."
        await age_loads(db, "9 days")
        ended = await operate("enqueue", file)
        assert (ended.code, "x.csv is in already, since " in ended.err) == (1, True), ended
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 2


async def test_a_file_whose_lines_another_has_put_in_is_in(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    assert (await operate("enqueue", write(tmp_path / "y.csv", *lines))).code == 0
    file = write(tmp_path / "x.csv", *reversed(lines))
    for _ in range(3):
        ended = await operate("enqueue", file, "--rest")
        assert (ended.code, ended.out.splitlines()[0]) == (0, "0 messages enqueued."), ended
        await age_loads(db, "9 days")
        assert "x.csv is in already, since " in (await operate("enqueue", file)).err


async def test_an_interrupted_rest_goes_on_without_what_is_in(operate, db, tmp_path):
    lines = [f"+861310000000{at},t1,{at}" for at in range(9)]
    file = write(tmp_path / "x.csv", *lines)
    assert (await operate("enqueue", file)).code == 0
    await db.execute("SELECT dispatcher.cancel(array_agg(id)) FROM dispatcher.queue WHERE id < 4")
    await age_loads(db, "9 days")
    assert (await operate("enqueue", file, "--rest")).out.startswith("3 messages enqueued.")
    await db.execute(
        "UPDATE dispatcher.file_import SET finished_at = NULL, lines = 4, left_out = 0"
        " WHERE digest NOT LIKE '% %'"
    )
    ended = await operate("enqueue", file, "--rest")
    assert ended.out.startswith("3 messages enqueued.\n9 lines of data: 3 enqueued, 6 left out.")
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 12


async def test_the_rest_has_lines_that_were_left_out_and_cancelled(operate, tmp_path):
    file = tmp_path / "x.csv"
    rows = [f"+861310000000{at},t1,2036-12-01 09:00+08:00" for at in range(9)]
    rows.append("+8613100000009,t1,2036-12-01 09:00")
    file.write_text("\n".join(("recipient,template_id,send_at", *rows)), encoding="utf-8")
    assert (await operate("enqueue", file)).out.startswith("9 messages enqueued.")
    rest = ("enqueue", file, "--rest", "--zone", "Asia/Shanghai")
    assert (await operate(*rest)).out.startswith("1 message enqueued.")
    assert (await operate("campaign", "cancel", "x.csv")).code == 0
    ended = await operate(*rest)
    assert (ended.code, ended.out.splitlines()[0]) == (0, "10 messages enqueued."), ended


async def test_the_rest_has_what_unique_left_out(operate, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a", f"{GOOD},t1,b")
    assert (await operate("enqueue", file, "--unique")).out.startswith("1 message enqueued.")
    assert (await operate("enqueue", file, "--rest")).out.startswith("1 message enqueued.")
    ended = await operate("enqueue", file, "--rest", "--reference", "new")
    assert ended.out.startswith("2 messages enqueued."), ended


async def test_an_interrupted_load_that_was_cancelled_begins_anew(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", *(f"+861310000000{at},t1,{at}" for at in range(9)))
    assert (await operate("enqueue", file)).code == 0
    await db.execute(
        "UPDATE dispatcher.file_import"
        " SET finished_at = NULL, lines = 5, imported = 4, imported_lines = 4"
    )
    assert (await operate("campaign", "cancel", "x.csv")).code == 0
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out.splitlines()[:2]) == (
        0,
        ["9 messages enqueued.", "Campaign: x.csv (2)"],
    ), ended


async def test_a_dropped_load_has_only_the_lines_it_came_to(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", *(f"+861310000000{at},t1,{at}" for at in range(3)))
    assert (await operate("enqueue", file)).code == 0
    await db.execute(
        "UPDATE dispatcher.file_import"
        " SET finished_at = NULL, lines = 3, imported = 2, imported_lines = 2"
    )
    assert (await operate("campaign", "cancel", "x.csv")).code == 0
    await drop_messages(db)
    ended = await operate("enqueue", file)
    assert (ended.code, "2 of 3 messages of " in ended.err) == (1, True), ended
    assert (await operate("enqueue", file, "--rest")).out.startswith("1 message enqueued.")


async def test_a_dry_run_of_a_list_that_is_in_says_so(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a", "+8613112345679,t1,b")
    assert (await operate("enqueue", file)).code == 0
    ended = await operate("enqueue", file, "--dry-run")
    assert ended.out.startswith("0 messages would be enqueued with --rest.\n")
    assert (ended.code, f"{file} is in already, since " in ended.err) == (1, True)
    ended = await operate("enqueue", file, "--dry-run", "--again")
    assert "\n2 messages would be enqueued a second time: in since " in ended.out
    await db.execute(
        "UPDATE dispatcher.file_import"
        " SET finished_at = NULL, lines = 2, imported = 1, imported_lines = 1"
    )
    ended = await operate("enqueue", file, "--dry-run")
    assert ended.out.splitlines()[:3] == [
        "1 message would be enqueued.",
        "2 lines of data: 1 would be enqueued, 1 left out.",
        "An interrupted load would go on after line 2.",
    ]


async def test_a_dry_run_shows_texts_segments_cost_and_rules(operate, db, tmp_path):
    await operate("template", "add", "t1", "--text", "您的验证码是${NUM_6}。")
    await operate("cost", "--price", "CN=0.05CNY")
    await operate("suppress", GOOD)
    await operate("limit", "default", "--per-day", 3)
    file = write(tmp_path / "x.csv", f"{GOOD},t1,062569", "+8613112345679,t1,1234567")
    ended = await operate("enqueue", file, "--dry-run")
    assert ended.code == 1
    assert ended.out.splitlines() == [
        "1 message would be enqueued.",
        "2 lines of data: 1 would be enqueued, 1 refused.",
        "1 number suppressed: they will be rejected.",
        "Limits of default: 3 a day to a number. What is over one waits.",
        "Line 2, +86131****5678: 您的验证码是062569。",
        "1 segment.",
        "About 0.05 CNY.",
    ]
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0


async def test_a_dry_run_refuses_what_the_load_refuses(operate, tmp_path):
    header = "recipient,template_id,idempotency_key\n"
    (tmp_path / "x.csv").write_text(f"{header}{GOOD},t1,used\n", encoding="utf-8")
    assert (await operate("enqueue", tmp_path / "x.csv")).code == 0
    keys = ("a", "a", "used", "", "")
    lines = [",t1,a", *(f"+8613112345679,t1,{key}" for key in keys)]
    file = tmp_path / "y.csv"
    file.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    dry = await operate("enqueue", file, "--dry-run")
    assert (dry.code, dry.line.endswith(f": mend them in {file}.")) == (1, True), dry
    told = rows(tmp_path / "y.rejects.csv")
    assert [row[0] for row in told[1:]] == ["2", "4", "5"]
    assert (await operate("enqueue", file)).out.startswith("3 messages enqueued.")
    assert rows(tmp_path / "y.rejects.csv") == told


async def test_rejects_that_were_corrected_are_not_overwritten(operate, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(f"recipient,template_id\n1,t1\n2,t1\n{GOOD},t1\n", encoding="utf-8")
    rejects, second = tmp_path / "x.rejects.csv", tmp_path / "x.rejects-2.csv"
    ended = await operate("enqueue", file)
    assert f"each with its reason in {rejects}: mend them there" in ended.err.replace("\n", " ")
    written = rejects.read_bytes()
    corrected = written.replace(b",1,", b",+8613112345679,")
    rejects.write_bytes(corrected)
    for wanted in (("--dry-run",), ("--again",), ("--dry-run", "--again")):
        ended = await operate("enqueue", file, *wanted)
        assert f"{rejects} was changed since it was written, and stays as it is" in ended.out
        assert f"reason in {second}: mend" in ended.err.replace("\n", " ")
        assert (rejects.read_bytes(), second.read_bytes()) == (corrected, written)
    second.write_bytes(written + b"9,mine,3,t1\n")
    ended = await operate("enqueue", file, "--dry-run", "--rejects", rejects)
    assert (tmp_path / "x.rejects-3.csv").read_bytes() == written
    assert (rejects.read_bytes(), second.read_bytes()[-12:]) == (corrected, b"9,mine,3,t1\n")
    ended = await operate("enqueue", rejects, "--campaign", "x.csv")
    assert ended.out.startswith("1 message enqueued.")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x.csv", *(f"x.rejects{end}.csv" for end in ("", "-2", "-3", ".rejects"))}


async def test_codes_of_options_are_read_as_those_of_cells(operate, db, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(f"recipient\n{GOOD}\n", encoding="utf-8")
    codes = ("--template", "\ufefft1\u200b ", "--app", "\uff33hop", "--sender", "csms1\u00a0")
    assert (await operate("enqueue", file, *codes)).code == 0
    row = await db.fetchrow("SELECT template_id, app, sender FROM dispatcher.message")
    assert tuple(row) == ("t1", "shop", "csms1")


def workbook(path: Path, *, hidden: int = 0) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["春节名单"])
    sheet.append([])
    sheet.append(["手机号", "模板", "变量1", "发送时间"])
    sheet.append([13100000001, "t1", 62569, "2036-12-01 09:00"])
    sheet["C4"].number_format = "000000"
    sheet.append(["+8613100000002", "t1", "=1+1", None])
    sheet.append([8613100000003, "t1", 1234.5, None])
    sheet["C6"].number_format = "#,##0.00"
    sheet.append([13100000004.0, "t1", "东", None])
    sheet["D7"] = datetime(2036, 12, 1, 9)  # noqa: DTZ001 - a cell has no zone
    sheet.append([1310000, "t1", "x"])
    sheet.append([13100000005, "t1", "y"])
    if hidden:
        sheet.row_dimensions[hidden].hidden = True
    book.save(path)
    return path


@pytest.mark.parametrize("name", ["x.xlsx", "x.csv"])
async def test_a_workbook_gives_what_its_sheet_shows(operate, db, tmp_path, name):
    file = workbook(tmp_path / name, hidden=9)
    ended = await operate("enqueue", file, "--zone", "Asia/Shanghai")
    assert (ended.code, ended.out.splitlines()[0]) == (1, "2 messages enqueued."), ended
    loaded = await db.fetch(
        "SELECT recipient, params[1] AS one, extract(epoch FROM send_at)::int AS due"
        " FROM dispatcher.message ORDER BY id"
    )
    due = 2_111_706_000  # 2036-12-01 09:00 in Shanghai
    assert list(map(tuple, loaded)) == [
        ("+8613100000001", "062569", due),
        ("+8613100000004", "东", due),
    ]
    told = {int(row[0]): row[1] for row in rows(file.with_suffix(".rejects.csv"))[1:]}
    assert told.keys() == {5, 6, 8, 9}
    assert "param_1: it holds a formula without a result" in told[5]
    assert "param_1: it is a number in the format #,##0.00" in told[6]
    assert "it has 7 digits" in told[8]
    assert "hidden" in told[9]


async def test_a_workbook_with_several_sheets_asks_for_one(operate, tmp_path):
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("May")):
        sheet.append(["phone", "template"])
        sheet.append([13100000001, "t1"])
    book.save(tmp_path / "x.xlsx")
    ended = await operate("enqueue", tmp_path / "x.xlsx")
    assert (ended.code, "name one with --sheet" in ended.line) == (2, True)
    assert (await operate("enqueue", tmp_path / "x.xlsx", "--sheet", "May")).code == 0


async def test_lines_without_a_zone_take_the_times_of_the_whole(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,x")
    options = ("--send-at", "2036-12-01 09:00", "--zone", "Asia/Shanghai", "--priority", "2",
               "--app", "shop",
        "--reference", "r1", "--signature", "签", "--sender", "csms1")  # fmt: skip
    assert (await operate("enqueue", file, *options)).code == 0
    row = await db.fetchrow(
        "SELECT app, sender, signature, reference, priority, extract(epoch FROM send_at)::int"
        " FROM dispatcher.message"
    )
    assert tuple(row) == ("shop", "csms1", "签", "r1", 2, 2_111_706_000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--send-at", "2036-12-01 09:00"), "send_at has no zone"),
        (("--zone", "Mars/Base"), "there is no time zone"),
        (("--zone", "Etc/GMT+8"), "has its sign reversed"),
        (("--column", "x"), "--column takes pairs"),
        (("--rest", "--again"), "not both"),
        (("--param", "x"), "--param is for lists without columns"),
        (("--priority", "high"), "priority is 0 first"),
        (("--spread", "0h"), "--spread takes a time"),
        (("--spread", "-4h"), "--spread takes a time"),
        (("--spread", "9999d"), "at most 366d"),
        (("--per-hour", "0"), "'--per-hour'"),
        (("--stop-at", "0%"), "--stop-at takes a share"),
        (("--stop-at", "101%"), "--stop-at takes a share"),
        (("--campaign", "a\nb"), "--campaign takes a name"),
        (("--encoding", "idna"), "there is no encoding"),
        (("--encoding", "undefined"), "there is no encoding"),
    ],
)
async def test_options_that_make_no_sense_load_nothing(operate, tmp_path, options, words):
    ended = await operate("enqueue", write(tmp_path / "x.csv", f"{GOOD},t1,x"), *options)
    assert (ended.code, words in ended.line) == (2, True), ended


async def test_an_again_that_fails_forgets_no_load(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a")
    assert (await operate("enqueue", file)).code == 0
    ended = await operate("enqueue", file, "--again", "--priority", "urgent")
    assert (ended.code, "priority is" in ended.err) == (2, True)
    assert (await operate("campaign", "cancel", "x.csv")).code == 0
    assert (await operate("enqueue", file, "--again", "--campaign", "x.csv")).code == 2
    ended = await operate("enqueue", file)
    assert "x.csv is in already, since " in ended.err
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 1
    assert (await operate("enqueue", file, "--again")).code == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 2


@pytest.mark.parametrize(
    ("option", "segments", "line"), [("--rest", 2, 3), ("--unique", 2, 2), ("--again", 4, 2)]
)
async def test_a_dry_run_counts_only_what_it_would_take(operate, tmp_path, option, segments, line):
    assert (await operate("template", "add", "t1", "--text", "${TXT_20}")).code == 0
    first = write(tmp_path / "x.csv", f"{GOOD},t1,a", f"{GOOD},t1,b")
    assert (await operate("enqueue", first)).code == 0
    file = write(
        tmp_path / "y.csv", f"{GOOD},t1,a", f"{GOOD},t1,c", f"{GOOD},t1,b", "+8613112345679,t1,c"
    )
    ended = await operate("enqueue", file, option, "--dry-run")
    assert f"\n{segments} segments.\n" in ended.out
    assert f"\nLine {line}, +86131****5678: " in ended.out
    repeats = {"--rest": "1 line", "--unique": "2 lines", "--again": "2 lines"}[option]
    assert f"{repeats} with the number of an earlier line" in ended.out


async def test_rejects_of_a_sheet_are_loaded_with_its_options(operate, db, tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "五月"
    book.active.append(HEADER.split(","))
    book.active.append(["1", "t1", "a"])
    book.create_sheet("other").append(["x"])
    book.save(tmp_path / "x.xlsx")
    ended = await operate("enqueue", tmp_path / "x.xlsx", "--sheet", "五月")
    assert "enqueue that file with the same options and --campaign x.xlsx." in ended.err
    rejects = tmp_path / "x.rejects.csv"
    rejects.write_text(rejects.read_text("utf-8-sig").replace(",1,", f",{GOOD},"), "utf-8-sig")
    ended = await operate("enqueue", rejects, "--sheet", "五月", "--campaign", "x.xlsx")
    assert ended.out == "1 message enqueued.\n"
    assert await db.fetchval("SELECT campaign FROM dispatcher.message") == "x.xlsx"


async def test_a_dry_run_says_when_a_list_is_due(operate, tmp_path):
    file = tmp_path / "x.csv"
    times = ("2099-05-02 09:00", "2099-05-01 21:30", "2099-05-04 1:00")
    rows = [f"{GOOD},t1,{time}" for time in times]
    text = "\n".join(("recipient,template_id,send_at", *rows, "1,t1,2100-01-01 00:00"))
    file.write_text(text, encoding="utf-8")
    asked = ("--dry-run", "--zone", "Asia/Shanghai")
    found = re.search(
        r"^Due from (.+) to (.+)\.$", (await operate("enqueue", file, *asked)).out, re.MULTILINE
    )
    assert [datetime.fromisoformat(time).astimezone(UTC) for time in found.groups()] == [
        datetime(2099, 5, 1, 13, 30, tzinfo=UTC),
        datetime(2099, 5, 3, 17, tzinfo=UTC),
    ]
    plain = write(file, f"{GOOD},t1,a", "+8613112345679,t1,a")
    assert "\nDue " not in (await operate("enqueue", plain, "--dry-run")).out
    found = await operate("enqueue", plain, "--dry-run", "--send-at", "2099-05-01T09:00+08:00")
    assert "\nDue at 2099-0" in found.out
    ended = await operate("enqueue", plain, "--dry-run", "--per-hour", "60")
    found = re.search(r"^Due from (.+) to (.+)\.$", ended.out, re.MULTILINE)
    first, last = map(datetime.fromisoformat, found.groups())
    assert last - first == timedelta(minutes=1)


async def test_a_dry_run_says_when_the_rest_is_due(operate, db, tmp_path):
    file = write(tmp_path / "x.csv", *(f"+861310000000{at},t1,{at}" for at in range(3)))
    assert (await operate("enqueue", file, "--per-hour", "60")).code == 0
    started = await db.fetchval(
        "UPDATE dispatcher.file_import SET finished_at = NULL, lines = 3, imported = 2,"
        " imported_lines = 2 RETURNING started_at"
    )
    ended = await operate("enqueue", file, "--per-hour", "60", "--dry-run")
    found = re.search(r"^Due at (.+)\.$", ended.out, re.MULTILINE)
    wait = datetime.fromisoformat(found[1]) - started
    assert abs(wait - timedelta(minutes=2)) <= timedelta(seconds=1)


async def test_a_dry_run_names_the_countries_of_a_list(operate, tmp_path):
    home = write(tmp_path / "x.csv", f"{GOOD},t1,a")
    assert "By country" not in (await operate("enqueue", home, "--dry-run")).out
    file = write(tmp_path / "x.csv", f"{GOOD},t1,a", "+13055550123,t1,a", "+13055550124,t1,a")
    assert "\nBy country: US 2, CN 1.\n" in (await operate("enqueue", file, "--dry-run")).out


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat("T", "seconds")


async def test_times_that_are_past_are_counted(operate, db, tmp_path):
    times = [ago(hours=23), ago(minutes=5), ago(days=-1), "", ago(days=400)]
    rows = [f"+861310000000{at},t1,{time}" for at, time in enumerate(times)]
    file = tmp_path / "x.csv"
    file.write_text("\n".join(("recipient,template_id,send_at", *rows)), encoding="utf-8")
    for option in (("--dry-run",), ()):
        ended = await operate("enqueue", file, *option)
        assert "\nMessages with a send_at that is past: 3.\n" in ended.out
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 5
    rows = ["recipient,template_id,send_at", f"{GOOD},t1,{ago(days=-1)}", f"{GOOD},t1,"]
    file.write_text("\n".join(rows), encoding="utf-8")
    assert "past" not in (await operate("enqueue", file, "--again")).out


async def test_lines_with_another_number_of_variables_are_named(operate, db, tmp_path):
    counts = {"t1": [2, 1, 2, 0], "t2": [1, 1], "t3": [3, 2], "t4": [1, 0]}
    await db.execute("INSERT INTO dispatcher.template (template_id, kinds) VALUES ('t4', '{}')")
    cells = [
        (name, [*("a" * count), "", "", ""][:3]) for name, some in counts.items() for count in some
    ]
    lines = [f"+86131000000{at:02},{name},{','.join(row)}" for at, (name, row) in enumerate(cells)]
    file = tmp_path / "x.csv"
    head = "recipient,template_id,param_1,param_2,param_3"
    file.write_text("\n".join((head, *lines)), encoding="utf-8")
    ended = await operate("enqueue", file)
    said = [line for line in ended.out.splitlines() if "number of variables" in line]
    why = "is not defined here, and its lines differ in their number of variables: most have"
    assert said == [
        f"Template t1 {why} 2, others: 2 (line 3, 5).",
        f"Template t3 {why} 3, others: 1 (line 9).",
    ]
    assert "9 messages enqueued." in ended.out
    many = [f"+86132000{at:05},t1,a,{'b' * (at > 6)}," for at in range(20)]
    file.write_text("\n".join((head, *many)), encoding="utf-8")
    ended = await operate("enqueue", file, "--dry-run")
    assert f"Template t1 {why} 2, others: 7 (line 2, 3, 4, 5, 6, ...).\n" in ended.out
    again = [line.replace(",t1,a,", ",t1,a,b") for line in many[:7]]
    file.write_text("\n".join((head, *again)), encoding="utf-8")
    assert "number of variables" not in (await operate("enqueue", file)).out
