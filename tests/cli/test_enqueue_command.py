"""``dispatcher enqueue`` imports good lines and refuses bad ones with a reason."""

import csv
import os
import resource
from pathlib import Path

import pytest

from dispatcher.core.errors import ListError
from dispatcher.lists.memory import MAX_MEMORY_BYTES, limited_memory
from dispatcher.lists.reading import Form, open_list

GOOD = "+8613112345678"


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def refused(path: Path) -> dict[int, str]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        return {int(row["line"]): row["reason"] for row in csv.DictReader(stream)}


async def test_every_column_arrives(operate, db, tmp_path):
    file = write(
        tmp_path / "all.csv",
        "Reference,recipient,template_id,param_1,param_2,app,sender,signature,priority,send_at,"
        "expires_at,idempotency_key",
        'order-1,+8613112345678,t1,"你好, 世界",062569,shop,csms1,签名,1,'
        "2036-01-31T09:00:00+08:00,2036-01-31T10:00:00+08:00,key-1",
    )
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out, ended.err) == (0, "1 message enqueued.\n", "")
    row = await db.fetchrow("SELECT *, extract(epoch FROM send_at) AS due FROM dispatcher.message")
    assert {name: row[name] for name in ("app", "sender", "signature", "priority")} == {
        "app": "shop", "sender": "csms1", "signature": "签名", "priority": 1,
    }  # fmt: skip
    assert row["params"] == ["你好, 世界", "062569"]
    assert row["due"] == 2085354000
    assert row["reference"] == "order-1"
    assert await db.fetchval("SELECT key FROM dispatcher.idempotency") == "key-1"
    assert not (tmp_path / "all.rejects.csv").exists()


async def test_empty_cells_take_the_defaults_of_the_table(operate, db, tmp_path):
    file = write(
        tmp_path / "few.csv",
        "recipient,template_id,param_1,app,sender,priority,send_at,expires_at",
        f"{GOOD},t1,,,,,,",
        "",
        f"{GOOD},t2,x,,,,,",
    )
    assert (await operate("enqueue", file)).code == 0
    rows = await db.fetch(
        "SELECT app, sender, params, priority, expires_at, send_at <= now() AS due"
        " FROM dispatcher.message ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("default", None, [], 5, None, True),
        ("default", None, ["x"], 5, None, True),
    ]


async def test_each_bad_line_is_refused_with_its_number_and_reason(operate, db, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_bytes(
        "\n".join(
            [
                "recipient,template_id,param_1,param_2,priority,send_at,idempotency_key",
                f"{GOOD},t1,,,,,once",  # 2: good
                "+86 131 1234,t1,,,,,",  # 3
                f"{GOOD},,,,,,",  # 4
                f"{GOOD},t1,,second,,,",  # 5
                f"{GOOD},t1,,,high,,",  # 6
                f"{GOOD},t1,,,,tomorrow,",  # 7
                f"{GOOD},t1,,,,2026-01-31T09:00:00,",  # 8: no zone
                f"{GOOD},t1",  # 9
                f"{GOOD},t1,,,,,once",  # 10: the key is taken
                f'{GOOD},t1,"two',  # 11 and 12: one good line over two
                'lines",,,,',
                f"{GOOD},t1,BYTES,,,,",  # 13
                f"{GOOD},t1,a\0b,,,,",  # 14
                f"{GOOD},t1,last,,,,",  # 15: good
            ]
        )
        .encode()
        .replace(b"BYTES", b"\xff\xfe")
    )
    ended = await operate("enqueue", file)
    assert (ended.code, ended.out.splitlines()[0]) == (1, "3 messages enqueued.")
    assert ended.line.startswith(f"dispatcher: 10 lines of {file} refused")
    assert refused(tmp_path / "bad.rejects.csv") == {
        3: "recipient: no number of mainland China has 7 digits and begins like this after +86",
        4: "template_id is missing",
        5: "param_1 is empty, and one after it is not",
        6: "priority is 0 first to 9 last",
        7: "send_at is no time, such as 2026-01-31T09:00:00+08:00",
        8: "send_at has no zone: write it, as in 2026-01-31T09:00:00+08:00,"
        " or give --zone Asia/Shanghai",
        9: "it has 2 cells, and the header has 7",
        10: "its idempotency_key was used before",
        13: "it is not UTF-8 text",
        14: "it holds NUL bytes: the file was damaged there",
    }
    params = await db.fetch("SELECT params FROM dispatcher.message ORDER BY id")
    assert [row[0] for row in params] == [[], ["two\nlines"], ["last"]]


async def test_a_corrected_rejects_file_is_imported(operate, db, tmp_path):
    file = write(tmp_path / "a.csv", "recipient,template_id", "+86 131?,t1", f"{GOOD},t1")
    assert (await operate("enqueue", file)).code == 1
    rejects = tmp_path / "a.rejects.csv"
    rejects.write_text(
        rejects.read_text("utf-8").replace("+86 131?", "+86 131 0000 0131"), encoding="utf-8"
    )
    assert (await operate("enqueue", rejects)).code == 0
    assert await db.fetchval("SELECT count(*) FROM dispatcher.queue") == 2


async def test_a_byte_order_mark_and_windows_lines_are_no_trouble(operate, db, tmp_path):
    (tmp_path / "excel.csv").write_bytes(
        b"\xef\xbb\xbfrecipient,template_id,param_1\r\n+8613112345678,t1,\xe4\xbd\xa0\r\n"
    )
    assert (await operate("enqueue", tmp_path / "excel.csv")).code == 0
    assert await db.fetchval("SELECT params FROM dispatcher.message") == ["你"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "is empty"),
        ("template_id,text", "has no column recipient"),
        ("recipient,template_id,text", "has an unknown column 'text'"),
        ("recipient,template_id,a,b", "has unknown columns 'a', 'b'"),
        ("recipient,template_id,params,param_1", "has both params and param_1"),
        ("recipient,template_id,param_1,param_3", "has param_3, and no param_2"),
        ("recipient,template_id,recipient", "has two columns for recipient"),
        ("recipient,手机号", "has two columns for recipient"),
        ("手機號碼,recipient", "has two columns for recipient"),
        ("recipient," + ",".join("abcdefgh"), "'a', 'b', 'c', 'd', 'e' and 3 more"),
    ],
)
def test_a_header_that_is_none_of_messages_is_refused_at_once(header, words, tmp_path):
    file = write(tmp_path / "x.csv", header, *([f"{GOOD},t1,x"] if header else []))
    with pytest.raises(ListError) as caught:
        open_list(file, Form())
    assert caught.value.misused
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is PDF, and no list"),
        (b"<html><table><tr><td>phone</td></tr></table>", "is a web page or XML, and no list"),
        (b'[{"recipient": "13100000001"}]', "is JSON, and no list"),
        (b"\x1f\x8b\x08\x00", "is a packed file, and no list"),
        (b"\x09\x08\x10\x00\x00\x06\x05\x00", "is an old or a protected Excel file"),
        (b"PK\x03\x04", "is a zip file, and not an Excel workbook that can be read"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, words):
    file = tmp_path / "x.xls"
    file.write_bytes(content)
    with pytest.raises(ListError, match=words):
        open_list(file, Form())


def test_a_line_that_is_too_long_takes_no_other_with_it(tmp_path):
    file = write(tmp_path / "x.csv", "phone,template", f'{GOOD},"{"x" * 300_000}"', f"{GOOD},t1")
    _, long, last = open_list(file, Form()).sheet
    assert (long.line, long.trouble) == (2, "it has more than 100,000 characters")
    assert (last.line, last.trouble, last.cells) == (3, None, [GOOD, "t1"])


def test_what_takes_too_much_memory_is_refused_by_its_reader():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ListError, match="too much memory"), limited_memory():
        bytearray(MAX_MEMORY_BYTES)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_file_that_can_be_read_only_once_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ListError, match="can be read only once"):
        open_list(tmp_path / "x.csv", Form())


async def test_a_file_may_have_any_bytes_for_a_name(operate, db, tmp_path):
    file = tmp_path / os.fsdecode(b"a\xff\n.csv")
    write(file, "phone,template", f"{GOOD},t1")
    assert (await operate("enqueue", file)).code == 0
    assert await db.fetchval("SELECT name FROM dispatcher.campaign") == "a\ufffd\ufffd.csv"


async def test_bad_lines_at_batch_edges_lose_and_repeat_nothing(operate, db, tmp_path):
    bad = {2, 3, 5001, 5002, 7000, 11999}
    lines = [f"{'bad' if n in bad else '+86131'}{n:08d},t1" for n in range(2, 12_001)]
    ended = await operate("enqueue", write(tmp_path / "many.csv", "recipient,template_id", *lines))
    assert ended.out.startswith(f"{11_999 - len(bad):,} messages enqueued.\n")
    assert set(refused(tmp_path / "many.rejects.csv")) == bad
    there = await db.fetch("SELECT recipient FROM dispatcher.message ORDER BY id")
    assert [row[0] for row in there] == [
        f"+86131{number:08d}" for number in range(2, 12_001) if number not in bad
    ]


async def test_the_file_itself_is_never_taken_for_its_rejects(operate, tmp_path):
    file = write(tmp_path / "x.csv", "recipient,template_id", "bad,t1")
    ended = await operate("enqueue", file, "--rejects", file)
    assert ended.code == 2
    assert file.read_text().startswith("recipient")


async def test_a_place_for_rejects_that_cannot_be_looked_at_is_one_line(operate, db, tmp_path):
    file = write(tmp_path / f"{'x' * 245}.csv", "recipient,template_id", "+8613112345678,t1")
    (tmp_path / "loop").symlink_to("loop")
    for rejects, why in (
        (None, "File name too long"),
        (tmp_path / ("y" * 300), "File name too long"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
    ):
        named = ["--rejects", rejects] if rejects else []
        ended = await operate("enqueue", file, *named)
        place = rejects or file.with_suffix(".rejects.csv")
        assert (ended.code, ended.line) == (
            2,
            f"dispatcher: {place} cannot be written: {why}. Nothing was enqueued.",
        )
    assert await db.fetchval("SELECT count(*) FROM dispatcher.message") == 0
    absent = tmp_path / "absent" / "y.csv"
    assert (await operate("enqueue", file, "--rejects", absent)).code == 0  # no line was refused


async def test_a_load_that_is_cut_short_says_how_much_of_it_is_in(operate, db, tmp_path):
    await db.execute(
        """
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM dispatcher.bulk) THEN
                RAISE EXCEPTION 'cut' USING ERRCODE = 'admin_shutdown';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER cut BEFORE INSERT ON dispatcher.message
        FOR EACH STATEMENT EXECUTE FUNCTION cut();
        """
    )
    lines = [f"+86131{n:08d},t1" for n in range(6_000)]
    ended = await operate("enqueue", write(tmp_path / "x.csv", "recipient,template_id", *lines))
    assert (ended.code, ended.out) == (1, "")
    trouble, so_far = ended.err.splitlines()
    assert "starting or stopping" in trouble
    assert so_far.startswith("dispatcher: at least 5,000 messages of")
    assert await db.fetchval("SELECT sum(size) FROM dispatcher.bulk") == 5_000
